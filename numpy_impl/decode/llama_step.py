"""One new token through a Llama, written flat.

When texts are written, one token after the other goes through the model, and every weight is read for it. That takes as long as memory
takes to deliver the weights; what is computed with them is little. What the layers of `models.llama` do besides (they check what they are
given, and make ready for a backward) then counts: it is left out here. The formulas are those of `LlamaBlock`, in their order:

    x ← x + o_proj(attention(q, K, V)),    q, k = turn(q_proj(h)), turn(k_proj(h)),   v = v_proj(h),   h = norm1(x)
    x ← x + down_proj(silu(gate_proj(h)) · up_proj(h)),   h = norm2(x)

K and V are all keys and values so far, the new token's k and v at the end.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers.gated_feed_forward import GatedFeedForward
from numpy_impl.layers.grouped_query_attention import GroupedQueryAttention
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import RMSNorm
from numpy_impl.ops._product import product


def llama_step(model: Any, x: NDArray, caches: Sequence[LayerCache]) -> NDArray:
    """h = norm(block_n(… block_1(x))),  of one new token a row.

    Parameters
    ----------
    model : Llama      of LlamaBlocks without sinks and caps of scores; projections and mlps may be anything: adapted, quantized, experts
    x : (B, 1, D)      the embedded tokens
    caches             one a layer, which take the tokens in

    Returns
    -------
    h : (B, 1, D), what the head reads. There is no backward. It is `model.trunk`, to rounding

    Examples
    --------
    >>> from byhand.configs.llama import LlamaConfig
    >>> from numpy_impl.models.llama import Llama
    >>> model = Llama(LlamaConfig(vocabulary=7, max_length=8, d_model=8, n_layers=2, n_heads=2), rng=np.random.default_rng(0))
    >>> cache = model.new_cache()
    >>> places = cache.place((1, 1))
    >>> h = llama_step(model, model.tokens(np.array([[3]])), cache.layers(places))
    >>> bool(np.allclose(h, model.hidden(np.array([[3]]))[0], atol=1e-6))
    True
    """
    layers = model.blocks.layers
    demand("llama_step", len(caches) == len(layers), f"{len(layers)} caches, one a layer", caches=len(caches))
    places = caches[0].places
    cos, sin = (table[:, 0, None] for table in model.rotary(x, places))          # (B, 1, R/2): the same for all heads
    rest = model.blocks.layers[0].attn.head_width - 2 * cos.shape[-1]            # numbers that are not turned
    cos = np.concatenate([cos, cos, np.ones_like(cos, shape=(len(x), 1, rest))], -1)    # (B, 1, E): what each number is multiplied by
    b, _, d = x.shape
    x = x.reshape(b, d)
    for block, cache in zip(layers, caches, strict=True):
        x = x + _attend(block.attn, _normalised(block.norm1, x), cos, sin, cache)
        x = x + _feed(block.mlp, _normalised(block.norm2, x))
    return _normalised(model.norm, x).reshape(b, 1, d)


def _attend(attn: GroupedQueryAttention, h: NDArray, cos: NDArray, sin: NDArray, cache: LayerCache) -> NDArray:
    """h (B, D) -> y (B, D)."""
    b, heads, e = len(h), attn.n_heads, attn.head_width
    q = _projected(attn.q_proj, h).reshape(b, heads, e)
    k = _projected(attn.k_proj, h).reshape(b, attn.n_kv_heads, e)
    v = _projected(attn.v_proj, h).reshape(b, attn.n_kv_heads, 1, e)
    if attn.q_norm is not None:
        q, k = _normalised(attn.q_norm, q), _normalised(attn.k_norm, k)
    turned = _turned(np.concatenate([q, k], 1), cos, sin)                        # both at once: (B, H + K, E)
    q, k = turned[:, :heads], turned[:, heads:]

    left = None if attn.window is None else attn.window[0]
    key, value, mask = cache.append(k[:, :, None], v, left=left)                 # (B, K, S, E)
    if mask is None and left is not None:
        key, value = key[:, :, -left - 1 :], value[:, :, -left - 1 :]
    group = heads // attn.n_kv_heads
    q = (q / math.sqrt(e)).reshape(b, attn.n_kv_heads, group, e)                 # (B, K, G, E): those that share a head of keys
    scores = q @ key.mT                                            # (B, K, G, S)
    if mask is not None:
        np.copyto(scores, -np.inf, where=~mask)
    scores -= scores.max(-1, keepdims=True, initial=np.finfo(scores.dtype).min)
    np.exp(scores, out=scores)
    y = scores @ value                                                           # softmax · V, but for the sum of the row
    y /= np.maximum(scores.sum(-1, keepdims=True), 1)                            # 1 and more, but where there is no key: there y is 0
    return _projected(attn.o_proj, y.reshape(b, heads * e))


def _feed(mlp: Module, h: NDArray) -> NDArray:
    """h (B, D) -> y (B, D)."""
    if type(mlp) is not GatedFeedForward or mlp.activation != "swiglu":
        return mlp(h)
    gate = _projected(mlp.gate_proj, h)
    gate /= 1 + np.exp(np.minimum(-gate, 80))                                    # silu; at e⁸⁰ it is 0 for good, and float32 still finite
    gate *= _projected(mlp.up_proj, h)
    return _projected(mlp.down_proj, gate)


def _projected(layer: Module, h: NDArray) -> NDArray:
    """layer(h): a product with its weight where it is a plain layer."""
    if type(layer) is not Linear:
        return layer(h)
    y = product(h, layer.weight)
    return y if layer.bias is None else y + layer.bias


def _normalised(norm: RMSNorm, x: NDArray) -> NDArray:
    """weight · x / √(mean(x²) + ε)  over the last axis."""
    y = x / np.sqrt(np.vecdot(x, x)[..., None] / x.shape[-1] + norm.eps)
    y *= norm.weight
    return y


def _turned(x: NDArray, cos: NDArray, sin: NDArray) -> NDArray:
    """x (B, heads, E) turned by the angle of its position, pairs (i, i + R/2); cos (B, 1, E) stands beside every number, sin (B, 1, R/2)
    beside every pair."""
    half = sin.shape[-1]
    y = x * cos
    y[..., :half] -= x[..., half : 2 * half] * sin
    y[..., half : 2 * half] += x[..., :half] * sin
    return y
