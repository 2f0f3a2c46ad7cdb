"""Pooling: what stands at the tokens of a text made into one vector (Reimers & Gurevych 2019, "Sentence-BERT", arXiv:1908.10084)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, booleans, floats, same_shape


def mean_pool(x: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """y = Σₜ xₜ / n  over the n tokens that the mask keeps.

    Parameters
    ----------
    x : (..., T, D)    a vector for each token, float32 or float64
    mask : (..., T)    booleans, True where there is a token and not padding; None: everywhere. What stands at padding is not looked at

    Returns
    -------
    y : (..., D)   0 where there is no token
    backward : dy (..., D) -> dx (..., T, D)   0 at padding

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no two axes, or mask is not boolean or not of x's shape without its last axis

    Examples
    --------
    >>> x = np.array([[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]])
    >>> y, backward = mean_pool(x, mask=np.array([True, True, False]))
    >>> y
    array([2., 4.])
    >>> backward(np.ones(2))
    array([[0.5, 0.5],
           [0.5, 0.5],
           [0. , 0. ]])
    """
    mask = _checked("mean_pool", x, mask)
    return _weighted_sum(x, mask, mask / _count(mask, x))


def mean_sqrt_len_pool(x: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """y = Σₜ xₜ / √n  over the n tokens that the mask keeps: of independent xₜ it has one variance, whatever the length of the text.

    Parameters
    ----------
    x : (..., T, D)    a vector for each token, float32 or float64
    mask : (..., T)    booleans, True where there is a token and not padding; None: everywhere. What stands at padding is not looked at

    Returns
    -------
    y : (..., D)   0 where there is no token
    backward : dy (..., D) -> dx (..., T, D)   0 at padding

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no two axes, or mask is not boolean or not of x's shape without its last axis

    Source: Cer et al. 2018, "Universal sentence encoder", arXiv:1803.11175.

    Examples
    --------
    >>> mean_sqrt_len_pool(np.array([[1.0], [2.0], [3.0], [4.0]]))[0]
    array([5.])
    """
    mask = _checked("mean_sqrt_len_pool", x, mask)
    return _weighted_sum(x, mask, mask / np.sqrt(_count(mask, x)))


def weighted_mean_pool(x: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """y = Σₜ pₜ xₜ / Σₜ pₜ  over the tokens that the mask keeps;  pₜ = 1, 2, 3 … from the first of them on, places it drops counted.

    In a model whose tokens see only those before them, the later ones know more.

    Parameters
    ----------
    x : (..., T, D)    a vector for each token, float32 or float64
    mask : (..., T)    booleans, True where there is a token and not padding; None: everywhere. What stands at padding is not looked at

    Returns
    -------
    y : (..., D)   0 where there is no token
    backward : dy (..., D) -> dx (..., T, D)   0 at padding

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no two axes, or mask is not boolean or not of x's shape without its last axis

    Source: Muennighoff 2022, "SGPT: GPT sentence embeddings for semantic search", arXiv:2202.08904.

    Examples
    --------
    >>> weighted_mean_pool(np.array([[9.0], [1.0], [4.0]]), mask=np.array([False, True, True]))[0]
    array([3.])
    """
    mask = _checked("weighted_mean_pool", x, mask)
    places = np.cumsum(np.logical_or.accumulate(mask, -1), -1)                  # 0 until there is a token, then 1, 2, 3 …
    p = np.where(mask, places, 0).astype(x.dtype)                               # (..., T)
    return _weighted_sum(x, mask, p / np.maximum(p.sum(-1, keepdims=True), 1))


def cls_pool(x: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """y = xₜ  of the first token that the mask keeps: of BERT's special token [CLS].

    Parameters
    ----------
    x : (..., T, D)    a vector for each token, float32 or float64
    mask : (..., T)    booleans, True where there is a token and not padding; None: everywhere. What stands at padding is not looked at

    Returns
    -------
    y : (..., D)   0 where there is no token
    backward : dy (..., D) -> dx (..., T, D)   0 at padding

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no two axes, or mask is not boolean or not of x's shape without its last axis

    Examples
    --------
    >>> cls_pool(np.array([[1.0], [2.0], [3.0]]), mask=np.array([False, True, True]))[0]
    array([2.])
    """
    mask = _checked("cls_pool", x, mask)
    return _picked(x, mask & (np.cumsum(mask, -1) == 1))


def last_token_pool(x: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """y = xₜ  of the last token that the mask keeps, the only one that has seen all others where tokens see only those before them.

    Parameters
    ----------
    x : (..., T, D)    a vector for each token, float32 or float64
    mask : (..., T)    booleans, True where there is a token and not padding; None: everywhere. What stands at padding is not looked at

    Returns
    -------
    y : (..., D)   0 where there is no token
    backward : dy (..., D) -> dx (..., T, D)   0 at padding

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no two axes, or mask is not boolean or not of x's shape without its last axis

    Examples
    --------
    >>> last_token_pool(np.array([[1.0], [2.0], [3.0]]), mask=np.array([True, True, False]))[0]
    array([2.])
    """
    mask = _checked("last_token_pool", x, mask)
    so_far = np.cumsum(mask, -1)
    return _picked(x, mask & (so_far == so_far[..., -1:]))


def max_pool(x: NDArray, *, mask: NDArray | None = None) -> tuple[NDArray, Callable]:
    """y = maxₜ xₜ,  each entry apart, over the tokens that the mask keeps.

    Parameters
    ----------
    x : (..., T, D)    a vector for each token, float32 or float64
    mask : (..., T)    booleans, True where there is a token and not padding; None: everywhere. What stands at padding is not looked at

    Returns
    -------
    y : (..., D)   0 where there is no token
    backward : dy (..., D) -> dx (..., T, D)   0 at padding; of tokens that share the largest entry, the first one gets it

    Raises
    ------
    ValueError   if x is not float32 or float64 or has no two axes, or mask is not boolean or not of x's shape without its last axis

    Examples
    --------
    >>> y, backward = max_pool(np.array([[1.0, 5.0], [4.0, 5.0]]))
    >>> y
    array([4., 5.])
    >>> backward(np.array([1.0, 2.0]))
    array([[0., 2.],
           [1., 0.]])
    """
    mask = _checked("max_pool", x, mask)
    if x.shape[-2] == 0:
        return _picked(x, mask)                                                 # no token, and no largest
    keep = mask[..., None]                                                      # (..., T, 1)
    kept = np.where(keep, x, -np.inf)
    first = np.expand_dims(kept.argmax(-2), -2)                                 # (..., 1, D)
    y = np.where(keep.any(-2), np.take_along_axis(kept, first, -2)[..., 0, :], 0)       # (..., D)

    def backward(dy):
        # A small change of any entry but the largest changes nothing, and of the largest it is the change of y.
        dx = np.zeros(kept.shape, dy.dtype)
        np.put_along_axis(dx, first, dy[..., None, :], -2)
        return np.where(keep, dx, 0)                                            # of no token at all, argmax named the first

    return y, backward


def _checked(name: str, x: NDArray, mask: NDArray | None) -> NDArray:
    floats(name, x=x)
    at_least_rank(name, 2, x=x)
    booleans(name, mask=mask)
    same_shape(name, x.shape[:-1], mask=mask)
    return np.ones(x.shape[:-1], bool) if mask is None else mask


def _count(mask: NDArray, x: NDArray) -> NDArray:
    """How many tokens there are, (..., 1); 1 where there is none, whose sum of nothing is 0 then too."""
    return np.maximum(mask.sum(-1, keepdims=True, dtype=x.dtype), 1)


def _weighted_sum(x: NDArray, mask: NDArray, weight: NDArray) -> tuple[NDArray, Callable]:
    """y = Σₜ weightₜ xₜ  over the tokens that the mask keeps."""
    keep = mask[..., None]                                                      # (..., T, 1)
    y = (weight[..., None, :] @ np.where(keep, x, 0))[..., 0, :]                # (..., 1, T) @ (..., T, D)

    def backward(dy):
        return np.where(keep, weight[..., None] * dy[..., None, :], 0)          # y is linear in x: dxₜ = weightₜ dy

    return y, backward


def _picked(x: NDArray, picked: NDArray) -> tuple[NDArray, Callable]:
    """y = xₜ  at the one place that is picked, or 0 where none is."""
    here = picked[..., None]                                                    # (..., T, 1)

    def backward(dy):
        return np.where(here, dy[..., None, :], 0)                              # what y is a copy of gets all of dy

    return np.where(here, x, 0).sum(-2), backward
