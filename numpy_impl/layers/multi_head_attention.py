"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2), over the sequence itself or over another one."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, demand, in_range, size
from byhand.noise import Noise, at
from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.decode.cache import LayerCache
from numpy_impl.decode.context import ContextStore
from numpy_impl.layers._remembered import remembered
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module


class MultiHeadAttention(Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(q_h, k_h, v_h),  q = q_proj(x), k = k_proj(c), v = v_proj(c).

    Each head reads its own E columns of q, k and v; c is the context, or x itself if there is none.

    Parameters
    ----------
    d_model : int     D, width of x and y
    n_heads : int     H
    bias : bool       whether the four projections have a bias
    dropout : float   the share of attention probabilities that is dropped where `noise` is given
    d_context : int   C, width of the context; D by default
    head_width : int  E, width of a head; D/H by default, and then H must divide D
    scale : float     of the scores q · k; 1/√E by default (T5 leaves them as they are, 1)
    dtype             of the parameters
    rng               np.random.Generator of the initial values

    Examples
    --------
    >>> attn = MultiHeadAttention(8, 2, rng=np.random.default_rng(0))
    >>> y, backward = attn.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, dcontext, dbias, grads = backward(np.ones_like(y))
    >>> dx.shape, dcontext, dbias, list(grads)
    ((3, 5, 8), None, None, ['q_proj', 'k_proj', 'v_proj', 'o_proj'])
    """

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0, d_context: int | None = None,
                 head_width: int | None = None, scale: float | None = None, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        size("MultiHeadAttention", d_model=d_model, n_heads=n_heads)
        if head_width is None:
            demand("MultiHeadAttention", d_model % n_heads == 0, "d_model to be a multiple of n_heads, or a head_width",
                   d_model=d_model, n_heads=n_heads)
            head_width = d_model // n_heads
        size("MultiHeadAttention", head_width=head_width)
        in_range("MultiHeadAttention", 0, 1, dropout=dropout)
        d_context, width = d_model if d_context is None else d_context, n_heads * head_width
        self.n_heads, self.head_width, self.dropout, self.scale = n_heads, head_width, dropout, scale
        self.q_proj = Linear(d_model, width, bias=bias, dtype=dtype, rng=rng)
        self.k_proj = Linear(d_context, width, bias=bias, dtype=dtype, rng=rng)
        self.v_proj = Linear(d_context, width, bias=bias, dtype=dtype, rng=rng)
        self.o_proj = Linear(width, d_model, bias=bias, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, context: NDArray | None = None, bias: NDArray | None = None, *, mask: NDArray | None = None,
                causal: bool = False, noise: Noise | None = None,
                cache: LayerCache | ContextStore | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D), context (..., S, C) or None -> y (..., T, D); backward: dy -> dx, dcontext and dbias (or None), grads.

        bias, added to the scores, and mask, True = may see, broadcast to (..., H, T, S). With a cache there is no backward. x (B, T, D) are
        then the newest of S tokens, causal whatever is said; with a ContextStore, keys and values of the context are those of the first
        call.
        """
        at_least_rank("MultiHeadAttention", 2, x=x, context=context)
        if isinstance(cache, ContextStore):
            q, k, v = self.with_context(x, context, cache)
        else:
            (q, k, v), qkv_backward = self.qkv(x, context, noise=noise)
            if cache is not None:
                k, v, mask, causal = remembered(cache, k, v, mask)
        heads, heads_backward = scaled_dot_product(
            q, k, v, bias, mask=mask, causal=causal, scale=self.scale, dropout=self.dropout, noise=noise
        )                                                               # (..., H, T, E)
        y, merge_backward = self.merge(heads, noise=noise)

        def backward(dy):
            dheads, do_proj = merge_backward(dy)
            dq, dk, dv, dbias = heads_backward(dheads)
            dx, dcontext, grads = qkv_backward(dq, dk, dv)
            return dx, dcontext, dbias, grads | do_proj

        return y, backward if cache is None else None

    def qkv(self, x: NDArray, context: NDArray | None = None, *,
            noise: Noise | None = None) -> tuple[tuple[NDArray, NDArray, NDArray], Callable]:
        """x (..., T, D), context (..., S, C) or None -> q (..., H, T, E), k and v (..., H, S, E); backward: dq, dk, dv -> dx, dcontext (or
        None), grads."""
        source, own = (x, True) if context is None else (context, False)
        q, q_backward = self.q_proj.forward(x, noise=at(noise, "q_proj"))       # (..., T, H · E)
        k, k_backward = self.k_proj.forward(source, noise=at(noise, "k_proj"))  # (..., S, H · E)
        v, v_backward = self.v_proj.forward(source, noise=at(noise, "v_proj"))  # (..., S, H · E)

        def backward(dq, dk, dv):
            dx, dq_proj = q_backward(_side_by_side(dq))
            dsource_by_k, dk_proj = k_backward(_side_by_side(dk))
            dsource_by_v, dv_proj = v_backward(_side_by_side(dv))
            dsource = dsource_by_k + dsource_by_v
            grads = {"q_proj": dq_proj, "k_proj": dk_proj, "v_proj": dv_proj}
            return (dx + dsource, None, grads) if own else (dx, dsource, grads)    # x alone came in three times

        return (self._split(q), self._split(k), self._split(v)), backward

    def with_context(self, x: NDArray, context: NDArray | None, held: ContextStore) -> tuple[NDArray, NDArray, NDArray]:
        """q of x, k and v of the context: made once, and kept."""
        if held.key is None:
            held.hold(self._split(self.k_proj(context)), self._split(self.v_proj(context)))
        return self._split(self.q_proj(x)), held.key, held.value

    def merge(self, heads: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """heads (..., H, T, E) -> y (..., T, D), o_proj of the heads side by side; backward: dy -> dheads, grads."""
        y, o_backward = self.o_proj.forward(_side_by_side(heads), noise=at(noise, "o_proj"))

        def backward(dy):
            dmerged, do_proj = o_backward(dy)
            return self._split(dmerged), {"o_proj": do_proj}

        return y, backward

    def _split(self, x: NDArray) -> NDArray:
        """(..., T, H · E) -> (..., H, T, E): a view."""
        return x.reshape(*x.shape[:-1], self.n_heads, self.head_width).swapaxes(-2, -3)



def _side_by_side(heads: NDArray) -> NDArray:
    """(..., H, T, E) -> (..., T, H · E)."""
    *lead, h, t, e = heads.shape
    return heads.swapaxes(-2, -3).reshape(*lead, t, h * e)
