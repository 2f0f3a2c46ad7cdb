"""The singular value decomposition cut off at a rank, with its signs settled."""

import torch
import torch.nn.functional as F
from torch import Tensor


def truncated_svd(matrix: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (M, r), S (r,), Vᵀ (r, N) of matrix (M, N); singular values that are missing or nothing but rounding are 0."""
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    u, s, vt = u[:, :r], s[:r], vt[:r]
    s = s * (s > max(matrix.shape) * torch.finfo(s.dtype).eps * s[:1])
    u, vt = settled(u, vt)
    missing = r - s.numel()
    return F.pad(u, (0, missing)), F.pad(s, (0, missing)), F.pad(vt, (0, 0, 0, missing))


def settled(u: Tensor, vt: Tensor) -> tuple[Tensor, Tensor]:
    """The largest entry of every column of u (M, K) is positive; of several as large to 1 %, the first. vt (K, N) turns with it."""
    if not u.numel():
        return u, vt
    magnitude = u.abs()
    large = (magnitude >= 0.99 * magnitude.amax(0)).to(u.dtype)
    sign = u.gather(0, large.argmax(0, keepdim=True)).sign()               # argmax is the first of the ones
    return u * sign, vt * sign.mT
