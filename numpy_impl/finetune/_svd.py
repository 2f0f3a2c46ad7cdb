"""The singular value decomposition cut off at a rank, with its signs settled."""

import numpy as np
from numpy.typing import NDArray


def truncated_svd(matrix: NDArray, r: int) -> tuple[NDArray, NDArray, NDArray]:
    """U (M, r), S (r,), Vᵀ (r, N): the r largest singular values of matrix (M, N), and their vectors; U · diag(S) · Vᵀ is the nearest
    matrix of rank r (Eckart & Young 1936).

    A singular value that does not exist (r above M or N), or that is nothing but rounding, is 0.

    (u, v) and (−u, −v) serve equally well, and which of them comes out differs from one LAPACK to the next. Here the largest entry of u
    is positive; of several that are as large to 1 %, the first. (Without that margin rounding would choose among those of (1, −1) / √2.)
    """
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    u, s, vt = u[:, :r], s[:r], vt[:r]
    s = np.where(s > max(matrix.shape) * np.finfo(s.dtype).eps * s.max(initial=0), s, 0)
    magnitude = np.abs(u)
    large = magnitude >= 0.99 * magnitude.max(0, initial=0)
    sign = np.sign((u * (large & (large.cumsum(0) == 1))).sum(0))                        # of the first of the large ones, column by column
    missing = (0, r - s.size)
    return np.pad(u * sign, ((0, 0), missing)), np.pad(s, missing), np.pad(vt * sign[:, None], (missing, (0, 0)))
