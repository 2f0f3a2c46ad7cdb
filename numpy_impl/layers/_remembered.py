"""What an attention layer looks at when a cache remembers the tokens before."""

from numpy.typing import NDArray

from numpy_impl.decode.cache import LayerCache


def remembered(cache: LayerCache, k: NDArray, v: NDArray, mask: NDArray | None,
               left: int | None = None) -> tuple[NDArray, NDArray, NDArray | None, bool]:
    """Keys and values of all tokens from those of the new ones (B, H, T, E), and the mask and the causality that are left to apply."""
    k, v, seen = cache.append(k, v, left=left)
    if seen is None:
        return k, v, mask, True
    return k, v, seen if mask is None else seen & mask, False            # what is seen is up to each token's own place
