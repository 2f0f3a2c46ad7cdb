"""The block of a decoder that also reads another sequence (Vaswani et al. 2017, arXiv:1706.03762, section 3.1)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice
from byhand.noise import Noise, at
from numpy_impl.decode.cache import LayerCache
from numpy_impl.decode.context import ContextStore
from numpy_impl.layers._routed import Routes, Routing, telling
from numpy_impl.layers.block import Block, Order, _make_norm, _present, _start_deepnorm, _then_dropout
from numpy_impl.layers.multi_head_attention import MultiHeadAttention


class CrossBlock(Block):
    """y = mid₂ + mlp(norm2(mid₂)),  mid₂ = mid₁ + cross_attn(norm_cross(mid₁), context),  mid₁ = x + attn(norm1(x))      (order "pre"; T5)
    y = norm2(mid₂ + mlp(mid₂)),  mid₂ = norm_cross(mid₁ + cross_attn(mid₁, context)),  mid₁ = norm1(x + attn(x))      ("post")

    A `Block` with one more branch, whose queries come from x and whose keys and values come from the context: what an encoder has made of
    the source. The context itself is not normalised here.

    Parameters
    ----------
    d_model : int               D, width of x and y
    n_heads : int               H, in both attentions
    d_hidden : int              F, width inside the feed-forward layer
    d_context : int             C, width of the context; D by default
    order : str                 "pre", "post", "sandwich" or "none": where there are norms, as in Block
    norm, activation, bias, eps, dropout, attention_dropout, hidden_dropout, head_width, scale, alpha, beta, dtype, rng
                                as in Block; those of attention are for both

    Dropout acts only where `noise` is given.

    Examples
    --------
    >>> block = CrossBlock(8, 2, 32, rng=np.random.default_rng(0))
    >>> x, context = np.ones((3, 5, 8), dtype=np.float32), np.ones((3, 7, 8), dtype=np.float32)
    >>> y, backward = block.forward(x, context, causal=True)
    >>> dx, dcontext, dbias, grads = backward(np.ones_like(y))
    >>> dx.shape, dcontext.shape, dbias, list(grads)
    ((3, 5, 8), (3, 7, 8), None, ['norm1', 'attn', 'norm_cross', 'cross_attn', 'norm2', 'mlp'])
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, d_context: int | None = None, norm: Literal["layer", "rms"] = "layer",
                 order: Order = "pre", activation: str = "gelu", bias: bool = True, eps: float = 1e-5,
                 dropout: float = 0.0, attention_dropout: float = 0.0, hidden_dropout: float = 0.0, head_width: int | None = None,
                 scale: float | None = None, alpha: float = 1.0, beta: float | None = None,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        choice("CrossBlock", ("pre", "post", "sandwich", "none"), order=order)
        super().__init__(
            d_model, n_heads, d_hidden, norm=norm, order=order, activation=activation, bias=bias, eps=eps, dropout=dropout,
            attention_dropout=attention_dropout, hidden_dropout=hidden_dropout, head_width=head_width, scale=scale, alpha=alpha, beta=beta,
            dtype=dtype, rng=rng,
        )
        self.norm_cross = None if order == "none" else _make_norm(norm, d_model, eps, bias, dtype)
        self.cross_attn = MultiHeadAttention(d_model, n_heads, bias=bias, dropout=attention_dropout, d_context=d_context,
                                             head_width=head_width, scale=scale, dtype=dtype, rng=rng)
        self.norm_cross_after = _make_norm(norm, d_model, eps, bias, dtype) if order == "sandwich" else None
        if beta is not None:
            _start_deepnorm(self.cross_attn, beta, rng)

    def forward(self, x: NDArray, context: NDArray, bias: NDArray | None = None, *, mask: NDArray | None = None,
                context_mask: NDArray | None = None, causal: bool = False, noise: Noise | None = None,
                cache: tuple[LayerCache, ContextStore] | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D), context (..., S, C) -> y (..., T, D); backward: dy -> dx, dcontext, dbias (None without bias), grads.

        bias, added to the scores among x itself, and mask broadcast to (..., H, T, T), context_mask to (..., H, T, S); True = may see.
        causal too is among x itself. With a cache, one of x and one of the context, x (B, T, D) are the newest of S tokens, which see each
        other and those before them, bias and mask are (B, H, T, S), and there is no backward.
        """
        y, _, backward = self.routed(x, context, bias, mask=mask, context_mask=context_mask, causal=causal, noise=noise, cache=cache)
        return y, backward

    def routed(self, x: NDArray, context: NDArray, bias: NDArray | None = None, *, mask: NDArray | None = None,
               context_mask: NDArray | None = None, causal: bool = False, real: NDArray | None = None,
               noise: Noise | None = None,
               cache: tuple[LayerCache, ContextStore] | None = None) -> tuple[NDArray, Routes, Callable | None]:
        """As `forward`, and what the routers in mlp did with the tokens, of which `real` (..., T) are no padding; backward: dy, dlogits of
        the routers -> dx, dcontext, dbias, grads."""
        routes: list[Routing] = []
        own, other = (None, None) if cache is None else cache
        attend = partial(self.attn.forward, bias=bias, mask=mask, causal=causal, noise=at(noise, "attn"), cache=own)
        attend = _then_dropout(attend, self.dropout, at(noise, "dropout1"))
        cross = partial(self.cross_attn.forward, context=context, mask=context_mask, noise=at(noise, "cross_attn"), cache=other)
        cross = _then_dropout(cross, self.dropout, at(noise, "dropout_cross"))
        feed = partial(telling, self.mlp, routes, real=real, noise=at(noise, "mlp"))
        feed = _then_dropout(feed, self.dropout, at(noise, "dropout2"))
        mid1, attn_backward = self._add(x, attend, self.norm1, self.norm1_after)
        mid2, cross_backward = self._add(mid1, cross, self.norm_cross, self.norm_cross_after)
        y, mlp_backward = self._add(mid2, feed, self.norm2, self.norm2_after)

        def backward(dy, dlogits=()):
            dmid2, dmlp, dnorm2, dnorm2_after = mlp_backward(dy, dlogits)
            dmid1, dcontext, _, dcross_attn, dnorm_cross, dnorm_cross_after = cross_backward(dmid2)
            dx, _, dbias, dattn, dnorm1, dnorm1_after = attn_backward(dmid1)
            return dx, dcontext, dbias, _present(
                norm1=dnorm1, attn=dattn, norm1_after=dnorm1_after, norm_cross=dnorm_cross, cross_attn=dcross_attn,
                norm_cross_after=dnorm_cross_after, norm2=dnorm2, mlp=dmlp, norm2_after=dnorm2_after,
            )

        return y, tuple(routes), backward if cache is None else None
