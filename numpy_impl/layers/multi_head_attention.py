"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2), over the sequence itself or over another one."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, demand, in_range, size
from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module


class MultiHeadAttention(Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(q_h, k_h, v_h),  q = q_proj(x), k = k_proj(c), v = v_proj(c).

    Each head reads its own D/H columns of q, k and v; c is the context, or x itself if there is none.

    Parameters
    ----------
    d_model : int     D, width of x and y
    n_heads : int     H, a divisor of D
    bias : bool       whether the four projections have a bias
    dropout : float   the share of attention probabilities that is dropped where `noise` is given
    d_context : int   C, width of the context; D by default
    dtype             of the parameters
    rng               np.random.Generator of the initial values

    Examples
    --------
    >>> attn = MultiHeadAttention(8, 2, rng=np.random.default_rng(0))
    >>> y, backward = attn.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, dcontext, grads = backward(np.ones_like(y))
    >>> dx.shape, dcontext, list(grads)
    ((3, 5, 8), None, ['q_proj', 'k_proj', 'v_proj', 'o_proj'])
    """

    def __init__(self, d_model: int, n_heads: int, *, bias: bool = True, dropout: float = 0.0, d_context: int | None = None,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        size("MultiHeadAttention", d_model=d_model, n_heads=n_heads)
        demand("MultiHeadAttention", d_model % n_heads == 0, "d_model to be a multiple of n_heads", d_model=d_model, n_heads=n_heads)
        in_range("MultiHeadAttention", 0, 1, dropout=dropout)
        d_context = d_model if d_context is None else d_context
        self.n_heads, self.dropout = n_heads, dropout
        self.q_proj = Linear(d_model, d_model, bias=bias, dtype=dtype, rng=rng)
        self.k_proj = Linear(d_context, d_model, bias=bias, dtype=dtype, rng=rng)
        self.v_proj = Linear(d_context, d_model, bias=bias, dtype=dtype, rng=rng)
        self.o_proj = Linear(d_model, d_model, bias=bias, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, context: NDArray | None = None, *, mask: NDArray | None = None, causal: bool = False,
                noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., T, D), context (..., S, C) or None, mask broadcastable to (..., H, T, S), True = may see -> y (..., T, D).

        backward: dy -> dx, dcontext (None without context), grads.
        """
        at_least_rank("MultiHeadAttention", 2, x=x, context=context)
        source = x if context is None else context
        q, q_backward = self.q_proj.forward(x)                          # (..., T, D)
        k, k_backward = self.k_proj.forward(source)                     # (..., S, D)
        v, v_backward = self.v_proj.forward(source)                     # (..., S, D)
        heads, heads_backward = scaled_dot_product(
            self._split(q), self._split(k), self._split(v), mask=mask, causal=causal, dropout=self.dropout, noise=noise
        )                                                               # (..., H, T, D/H)
        y, o_backward = self.o_proj.forward(_merge(heads))

        def backward(dy):
            dmerged, do_proj = o_backward(dy)
            dq, dk, dv, _ = heads_backward(self._split(dmerged))
            dx, dq_proj = q_backward(_merge(dq))
            dsource_by_k, dk_proj = k_backward(_merge(dk))
            dsource_by_v, dv_proj = v_backward(_merge(dv))
            dsource = dsource_by_k + dsource_by_v
            grads = {"q_proj": dq_proj, "k_proj": dk_proj, "v_proj": dv_proj, "o_proj": do_proj}
            if context is None:
                return dx + dsource, None, grads                        # x came in three times
            return dx, dsource, grads

        return y, backward

    def _split(self, x: NDArray) -> NDArray:
        """(..., T, D) -> (..., H, T, D/H): a view."""
        return x.reshape(*x.shape[:-1], self.n_heads, x.shape[-1] // self.n_heads).swapaxes(-2, -3)


def _merge(heads: NDArray) -> NDArray:
    """(..., H, T, D/H) -> (..., T, D)."""
    *lead, h, t, e = heads.shape
    return heads.swapaxes(-2, -3).reshape(*lead, t, h * e)
