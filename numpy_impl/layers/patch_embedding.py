"""From images to tokens."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import per_axis, size
from numpy_impl.layers.module import Module
from numpy_impl.ops.patch_embedding import patch_embedding


class PatchEmbedding(Module):
    """y[b, n] = weight · (patch n of image b, flattened) + bias,  patches counted row by row.

    Parameters
    ----------
    channels : int             of the images
    d_model : int              width of a token
    patch : int or (int, int)  height and width of a patch, in pixels; the images must be multiples of it
    bias : bool                whether there is a bias
    dtype                      of the parameters
    rng                        np.random.Generator of the initial values

    weight (D, C, ph, pw) has the shape of a convolution's; weight and bias (D,) start uniform in ±1/√(C · ph · pw).

    Examples
    --------
    >>> layer = PatchEmbedding(3, 8, patch=16, rng=np.random.default_rng(0))
    >>> layer(np.zeros((2, 3, 32, 64), dtype=np.float32)).shape
    (2, 8, 8)
    """

    def __init__(self, channels: int, d_model: int, *, patch: int | tuple[int, int], bias: bool = True, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        size("PatchEmbedding", channels=channels, d_model=d_model)
        self.patch = per_axis("PatchEmbedding", 2, patch=patch)
        rng = rng or np.random.default_rng()
        shape = (d_model, channels, *self.patch)
        bound = math.prod(shape[1:]) ** -0.5
        self.weight = rng.uniform(-bound, bound, shape).astype(dtype)
        self.bias = rng.uniform(-bound, bound, d_model).astype(dtype) if bias else None

    def forward(self, images: NDArray) -> tuple[NDArray, Callable]:
        """images (B, C, H, W) -> y (B, N, D), N = H/ph · W/pw; backward: dy -> dimages, grads."""
        y, patch_embedding_backward = patch_embedding(images, self.weight, self.bias, patch=self.patch)

        def backward(dy):
            dimages, dweight, dbias = patch_embedding_backward(dy)
            return dimages, self.grads(weight=dweight, bias=dbias)

        return y, backward
