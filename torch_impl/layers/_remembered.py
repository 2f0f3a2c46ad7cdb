"""What an attention layer looks at when a cache remembers the tokens before."""

from torch import Tensor

from torch_impl.decode.cache import LayerCache


def remembered(cache: LayerCache, k: Tensor, v: Tensor, mask: Tensor | None,
               left: int | None = None) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    """Keys and values of all tokens from those of the new ones (B, H, T, E), and the mask and the causality that are left to apply."""
    k, v, seen = cache.append(k, v, left=left)
    if seen is None:
        return k, v, mask, True
    return k, v, seen if mask is None else seen & mask, False  # what is seen is up to each token's own place


def bias_by_distance(bias: Tensor, back: Tensor) -> Tensor:
    """(B, H, T, S), where rows differ in how far back (B, T, S) each key stands from each query, of a bias that depends on that alone: bias
    (H, 1, F), of one query and of the F keys up to its own."""
    return bias[:, 0, -1 - back.clamp(min=0)].transpose(0, 1)
