"""The singular value decomposition cut off at a rank, with its signs settled."""

import numpy as np
from numpy.typing import NDArray


def truncated_svd(matrix: NDArray, r: int) -> tuple[NDArray, NDArray, NDArray]:
    """U (M, r), S (r,), Vᵀ (r, N): the r largest singular values of matrix (M, N), and their vectors; U · diag(S) · Vᵀ is the nearest
    matrix of rank r (Eckart & Young 1936).

    A singular value that does not exist (r above M or N), or that is nothing but rounding, is 0. Signs are those of `settled`.
    """
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    u, s, vt = u[:, :r], s[:r], vt[:r]
    s = np.where(s > max(matrix.shape) * np.finfo(s.dtype).eps * s.max(initial=0), s, 0)
    u, vt = settled(u, vt)
    missing = (0, r - s.size)
    return np.pad(u, ((0, 0), missing)), np.pad(s, missing), np.pad(vt, (missing, (0, 0)))


def settled(u: NDArray, vt: NDArray) -> tuple[NDArray, NDArray]:
    """Pairs of singular vectors, u (M, K) by columns and vt (K, N) by rows, each pair with the sign that makes u's largest entry positive.

    (u, v) and (−u, −v) serve equally well, and which of them comes out differs from one LAPACK to the next. Of several entries that are as
    large to 1 %, the first decides. (Without that margin rounding would choose among those of (1, −1) / √2.)
    """
    magnitude = np.abs(u)
    large = magnitude >= 0.99 * magnitude.max(0, initial=0)
    first = large & (large.cumsum(0) == 1)                                 # of the large ones, column by column
    sign = np.sign((u * first).sum(0))
    return u * sign, vt * sign[:, None]
