"""What an attention layer looks at when a cache remembers the tokens before."""

import numpy as np
from numpy.typing import NDArray

from numpy_impl.decode.cache import LayerCache


def remembered(cache: LayerCache, k: NDArray, v: NDArray, mask: NDArray | None,
               left: int | None = None) -> tuple[NDArray, NDArray, NDArray | None, bool]:
    """Keys and values of all tokens from those of the new ones (B, H, T, E), and the mask and the causality that are left to apply."""
    k, v, seen = cache.append(k, v, left=left)
    if seen is None:
        return k, v, mask, True
    return k, v, seen if mask is None else seen & mask, False            # what is seen is up to each token's own place


def bias_by_distance(bias: NDArray, back: NDArray) -> NDArray:
    """(B, H, T, S), where rows differ in how far back (B, T, S) each key stands from each query, of a bias that depends on that alone.

    bias (H, 1, F) is that of one query and of the F keys up to its own: the last one is 0 back. What stands ahead, back < 0, is for a mask
    to hide.
    """
    return bias[:, 0, -1 - np.maximum(back, 0)].swapaxes(0, 1)
