"""x Wᵀ, in the order of the two factors that BLAS is faster at."""

import numpy as np
from numpy.typing import NDArray

_FEW = 16  # rows


def product(x: NDArray, weight: NDArray) -> NDArray:
    """x (N, I), weight (O, I) -> x Wᵀ (N, O).

    With a few rows, those of a batch of texts that grow by a token each, W is what takes time to read. As the first factor, (W xᵀ)ᵀ, it is
    read as it lies, which takes about half the time, the transposition of the result included. With more rows that comes to cost more.
    """
    if 1 < len(x) <= _FEW:
        return np.ascontiguousarray((weight @ x.T).T)
    return x @ weight.T
