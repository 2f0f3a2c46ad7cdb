"""The block of the Llama family (Touvron et al. 2023, arXiv:2302.13971): RMS norms, grouped-query attention with rotary, a gated mlp."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import in_range
from byhand.noise import Noise, at
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers._routed import Routes, routed
from numpy_impl.layers.gated_feed_forward import GatedFeedForward
from numpy_impl.layers.grouped_query_attention import GroupedQueryAttention
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import RMSNorm
from numpy_impl.ops.dropout import dropout


class LlamaBlock(Module):
    """y = mid + mlp(norm2(mid)),  with  mid = x + attn(norm1(x)).

    attn turns queries and keys by their positions and shares keys and values among heads; mlp is down(swiglu(gate, up)). What a branch
    adds to x passes through dropout first.

    Parameters
    ----------
    d_model : int               D, width of x and y
    n_heads : int               H, query heads
    d_hidden : int              F, width inside the feed-forward layer
    n_kv_heads : int            K, key and value heads, a divisor of H; H by default
    head_width : int            E, width of a head; D / H by default
    attention_bias              False, True or "qkv": which projections of attention have a bias, as GroupedQueryAttention explains
    mlp_bias : bool             whether the projections of the feed-forward layer have one
    qk_norm : bool              whether queries and keys are normalised
    window : (int, int)         how far a query sees back and ahead; without limit by default
    activation : str            swiglu, or another gate of GatedFeedForward
    eps : float                 ε of the norms
    dropout : float             the share dropped of what a branch adds
    attention_dropout : float   the share of attention probabilities dropped
    mlp : Module                what stands in the feed-forward layer's place, a mixture of experts, say; d_hidden, activation and mlp_bias
                                are without meaning then
    dtype                       of the parameters
    rng                         np.random.Generator of the initial values

    Dropout acts only where `noise` is given.

    Examples
    --------
    >>> block = LlamaBlock(8, 4, 24, n_kv_heads=2, rng=np.random.default_rng(0))
    >>> y, backward = block.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, list(grads)
    ((3, 5, 8), ['norm1', 'attn', 'norm2', 'mlp'])
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, n_kv_heads: int | None = None, head_width: int | None = None,
                 attention_bias: bool | Literal["qkv"] = False, mlp_bias: bool = False, qk_norm: bool = False,
                 window: tuple[int | None, int | None] | None = None, activation: str = "swiglu", eps: float = 1e-5,
                 dropout: float = 0.0, attention_dropout: float = 0.0, mlp: Module | None = None, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        in_range("LlamaBlock", 0, 1, dropout=dropout)
        self.dropout = dropout
        self.norm1 = RMSNorm(d_model, eps=eps, dtype=dtype)
        self.attn = GroupedQueryAttention(
            d_model, n_heads, n_kv_heads, head_width=head_width, bias=attention_bias, qk_norm=qk_norm, eps=eps, window=window,
            dropout=attention_dropout, dtype=dtype, rng=rng,
        )
        self.norm2 = RMSNorm(d_model, eps=eps, dtype=dtype)
        if mlp is None:
            mlp = GatedFeedForward(d_model, d_hidden, activation=activation, bias=mlp_bias, dtype=dtype, rng=rng)
        self.mlp = mlp

    def forward(self, x: NDArray, *, rotary: tuple[NDArray, NDArray] | None = None, mask: NDArray | None = None, causal: bool = False,
                noise: Noise | None = None, cache: LayerCache | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D), rotary, mask and cache as GroupedQueryAttention takes them -> y (..., T, D); backward: dy -> dx, grads (none with
        a cache)."""
        y, _, backward = self.routed(x, rotary=rotary, mask=mask, causal=causal, noise=noise, cache=cache)
        return y, backward

    def routed(self, x: NDArray, *, rotary: tuple[NDArray, NDArray] | None = None, mask: NDArray | None = None, causal: bool = False,
               real: NDArray | None = None, noise: Noise | None = None,
               cache: LayerCache | None = None) -> tuple[NDArray, Routes, Callable | None]:
        """As `forward`, and what the routers in mlp did with the tokens, of which `real` (..., T) are no padding; backward: dy, dlogits of
        the routers -> dx, grads."""
        h, norm1_backward = self.norm1.forward(x)
        h, attn_backward = self.attn.forward(h, rotary=rotary, mask=mask, causal=causal, noise=at(noise, "attn"), cache=cache)
        h, dropout1_backward = dropout(h, p=self.dropout, noise=at(noise, "dropout1"))
        mid = x + h
        h, norm2_backward = self.norm2.forward(mid)
        h, routes, mlp_backward = routed(self.mlp, h, real=real, noise=at(noise, "mlp"))
        h, dropout2_backward = dropout(h, p=self.dropout, noise=at(noise, "dropout2"))

        def backward(dy, dlogits=()):
            dh, dmlp = mlp_backward(dropout2_backward(dy), dlogits)
            dbranch, dnorm2 = norm2_backward(dh)
            dmid = dy + dbranch                                         # the skip, plus the branch
            dh, *_, dattn = attn_backward(dropout1_backward(dmid))
            dbranch, dnorm1 = norm1_backward(dh)
            return dmid + dbranch, {"norm1": dnorm1, "attn": dattn, "norm2": dnorm2, "mlp": dmlp}

        return mid + h, routes, backward if cache is None else None
