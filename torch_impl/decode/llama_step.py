"""One new token through a Llama, written flat: what `models.llama` does, without the checks of its layers."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from byhand.checks import demand
from torch_impl.decode.cache import LayerCache
from torch_impl.layers.gated_feed_forward import GatedFeedForward
from torch_impl.layers.grouped_query_attention import GroupedQueryAttention
from torch_impl.layers.linear import Linear
from torch_impl.layers.norm import RMSNorm


def llama_step(model: Any, x: Tensor, caches: Sequence[LayerCache]) -> Tensor:
    """h = norm(block_n(… block_1(x))),  of one new token a row.  x (B, 1, D), embedded -> h (B, 1, D), what the head reads.

    The model is one of LlamaBlocks without sinks and caps of scores; the caches, one a layer, take the tokens in.
    """
    demand("llama_step", len(caches) == len(model.blocks), f"{len(model.blocks)} caches, one a layer", caches=len(caches))
    cos, sin = (table[:, None] for table in model.rotary(x, caches[0].places))  # (B, 1, 1, R/2): the same for all heads
    for block, cache in zip(model.blocks, caches, strict=True):
        x = x + _attend(block.attn, _normalised(block.norm1, x), cos, sin, cache)
        x = x + _feed(block.mlp, _normalised(block.norm2, x))
    return _normalised(model.norm, x)


def _attend(attn: GroupedQueryAttention, h: Tensor, cos: Tensor, sin: Tensor, cache: LayerCache) -> Tensor:
    """h (B, 1, D) -> y (B, 1, D)."""
    q, k, v = (  # (B, heads, 1, E)
        _projected(layer, h).unflatten(-1, (-1, attn.head_width)).transpose(1, 2) for layer in (attn.q_proj, attn.k_proj, attn.v_proj)
    )
    if attn.q_norm is not None and attn.k_norm is not None:
        q, k = _normalised(attn.q_norm, q), _normalised(attn.k_norm, k)
    left = None if attn.window is None else attn.window[0]
    key, value, mask = cache.append(_turned(k, cos, sin), v, left=left)  # (B, K, S, E)
    if mask is None and left is not None:
        key, value = key[:, :, -left - 1 :], value[:, :, -left - 1 :]
    y = F.scaled_dot_product_attention(_turned(q, cos, sin), key, value, attn_mask=mask, enable_gqa=attn.n_heads != attn.n_kv_heads)
    return _projected(attn.o_proj, y.transpose(1, 2).flatten(-2))


def _feed(mlp: nn.Module, h: Tensor) -> Tensor:
    """h (B, 1, D) -> y (B, 1, D)."""
    if type(mlp) is not GatedFeedForward or mlp.activation != "swiglu":
        return mlp(h)
    return _projected(mlp.down_proj, F.silu(_projected(mlp.gate_proj, h)) * _projected(mlp.up_proj, h))


def _projected(layer: nn.Module, h: Tensor) -> Tensor:
    """layer(h): at once where it is a plain layer."""
    return F.linear(h, layer.weight, layer.bias) if type(layer) is Linear else layer(h)


def _normalised(norm: RMSNorm, x: Tensor) -> Tensor:
    """weight · x / √(mean(x²) + ε)  over the last axis."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, heads, 1, E) turned by the angle of its position, pairs (i, i + R/2)."""
    half = cos.shape[-1]
    a, b, rest = x.split((half, half, x.shape[-1] - 2 * half), -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)
