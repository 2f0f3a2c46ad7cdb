"""Patches of an image as tokens (Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.1), in the two forms that are in use."""

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import demand, exact_rank, floats, per_axis, same_shape


def patch_embedding(images: Tensor, weight: Tensor, bias: Tensor | None = None, *, patch: int | tuple[int, int]) -> Tensor:
    """y[b, n] = W · (patch n of image b, flattened) + bias,  patches counted row by row.

    images (B, C, H, W), weight (D, C, ph, pw), bias (D,) -> y (B, N, D), N = H/ph · W/pw.
    """
    b, _, c, rows, cols, ph, pw = _sizes("patch_embedding", images, weight, bias, patch)
    tokens = images.reshape(b, c, rows, ph, cols, pw).permute(0, 2, 4, 1, 3, 5).reshape(b, rows * cols, c * ph * pw)
    return F.linear(tokens, weight.flatten(1), bias)


def patch_embedding_conv(images: Tensor, weight: Tensor, bias: Tensor | None = None, *, patch: int | tuple[int, int]) -> Tensor:
    """y[b, n] = conv2d(images, weight, bias, stride=patch)[b, :, n],  positions n counted row by row: equal to `patch_embedding`.

    images (B, C, H, W), weight (D, C, ph, pw), bias (D,) -> y (B, N, D), N = H/ph · W/pw.
    """
    *_, ph, pw = _sizes("patch_embedding_conv", images, weight, bias, patch)
    return F.conv2d(images, weight, bias, stride=(ph, pw)).flatten(2).mT


def _sizes(who: str, images: Tensor, weight: Tensor, bias: Tensor | None, patch: int | tuple[int, int]) -> tuple[int, ...]:
    """(B, D, C, rows of patches, columns of patches, ph, pw), once everything fits."""
    floats(who, images=images, weight=weight, bias=bias)
    exact_rank(who, 4, images=images, weight=weight)
    ph, pw = per_axis(who, 2, patch=patch)
    b, c, h, w = images.shape
    d = weight.shape[0]
    same_shape(who, (d, c, ph, pw), weight=weight)
    same_shape(who, (d,), bias=bias)
    demand(who, 0 not in (*weight.shape, h, w), "images and weight without empty axes, B excepted", images=images, weight=weight)
    demand(who, h % ph == 0 and w % pw == 0, "images that patches divide", images=images, patch=(ph, pw))
    return b, d, c, h // ph, w // pw, ph, pw
