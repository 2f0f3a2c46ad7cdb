"""Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245): several query heads share one head of keys and values."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand import checks
from byhand.checks import at_least_rank, booleans, broadcastable, choice, demand, in_range, positive, size
from byhand.noise import Noise, at
from numpy_impl.attention.grouped_query import grouped_query_attention
from numpy_impl.attention.sinks import sink_attention
from numpy_impl.attention.sliding_window import sliding_window_attention
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers._remembered import remembered
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import RMSNorm
from numpy_impl.ops.qk_norm import qk_norm
from numpy_impl.positions.rotary import rotary as turn


class GroupedQueryAttention(Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(q_h, k_g, v_g),  g = ⌊h · K / H⌋.

    q = turn(norm(q_proj(x))) in H heads of width E, k = turn(norm(k_proj(x))) and v = v_proj(x) in K heads; norm is there with qk_norm,
    turn where `rotary` is given.

    Parameters
    ----------
    d_model : int         D, width of x and y
    n_heads : int         H, query heads
    n_kv_heads : int      K, key and value heads, a divisor of H; H by default (multi-head), 1 is multi-query
    head_width : int      E, width of a head; D / H by default
    bias                  False: no projection has a bias; True: all four; "qkv": all but o_proj (Qwen2)
    qk_norm : bool        whether each head's queries and keys are RMS-normalised, before they are turned (Qwen3)
    eps : float           ε of those norms
    window : (int, int)   a query sees that many keys back and that many ahead, and its own; None in its place: without limit
    soft_cap : float      cap(s) = c · tanh(s / c) keeps scores within ±c (Gemma 2); no cap by default
    sinks : bool          whether every head has a learned extra score that takes part in the softmax and brings no value (gpt-oss)
    dropout : float       the share of attention probabilities that is dropped where `noise` is given
    dtype                 of the parameters
    rng                   np.random.Generator of the initial values

    A window alone costs time and memory linear in T; beside a bias, a mask, sinks or dropout it is a mask, and costs what
    that costs. Sinks start at 0.

    Raises
    ------
    ValueError   if K does not divide H, H does not divide D and no head_width is given, an option is out of its range, or what is given to
                 a call does not fit

    Examples
    --------
    >>> attn = GroupedQueryAttention(8, 4, 2, rng=np.random.default_rng(0))
    >>> y, backward = attn.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, dbias, grads = backward(np.ones_like(y))
    >>> dx.shape, dbias, grads["k_proj"]["weight"].shape
    ((3, 5, 8), None, (4, 8))
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int | None = None, *, head_width: int | None = None,
                 bias: bool | Literal["qkv"] = False, qk_norm: bool = False, eps: float = 1e-6,
                 window: tuple[int | None, int | None] | None = None, soft_cap: float | None = None, sinks: bool = False,
                 dropout: float = 0.0, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        who = "GroupedQueryAttention"
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        size(who, d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
        demand(who, n_heads % n_kv_heads == 0, "n_heads to be a multiple of n_kv_heads", n_heads=n_heads, n_kv_heads=n_kv_heads)
        if head_width is None:
            demand(who, d_model % n_heads == 0, "d_model to be a multiple of n_heads, or a head_width", d_model=d_model, n_heads=n_heads)
            head_width = d_model // n_heads
        size(who, head_width=head_width)
        choice(who, (False, True, "qkv"), bias=bias)
        if window is not None:
            checks.window(who, window=window)
        if soft_cap is not None:
            positive(who, soft_cap=soft_cap)
        in_range(who, 0, 1, dropout=dropout)
        self.n_heads, self.n_kv_heads, self.head_width = n_heads, n_kv_heads, head_width
        self.eps, self.window, self.soft_cap, self.dropout = eps, window, soft_cap, dropout
        self.q_proj = Linear(d_model, n_heads * head_width, bias=bool(bias), dtype=dtype, rng=rng)
        self.k_proj = Linear(d_model, n_kv_heads * head_width, bias=bool(bias), dtype=dtype, rng=rng)
        self.v_proj = Linear(d_model, n_kv_heads * head_width, bias=bool(bias), dtype=dtype, rng=rng)
        self.o_proj = Linear(n_heads * head_width, d_model, bias=bias is True, dtype=dtype, rng=rng)
        self.q_norm = RMSNorm(head_width, eps=eps, dtype=dtype) if qk_norm else None
        self.k_norm = RMSNorm(head_width, eps=eps, dtype=dtype) if qk_norm else None
        self.sinks = np.zeros(n_heads, dtype) if sinks else None

    def forward(self, x: NDArray, bias: NDArray | None = None, *, rotary: tuple[NDArray, NDArray] | None = None,
                mask: NDArray | None = None, causal: bool = False, noise: Noise | None = None,
                cache: LayerCache | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D) -> y (..., T, D); backward: dy -> dx, dbias (None without bias), grads.

        bias is added to the scores and broadcasts to (..., H, T, T); mask too, True = may see; rotary is the pair cos, sin (..., T, R/2)
        of `rotary_table`, one for all sequences or one for each. With a cache, x (B, T, D) are the newest of S tokens: scores are
        (B, H, T, S), causal whatever is said, and there is no backward.
        """
        who = "GroupedQueryAttention"
        at_least_rank(who, 2, x=x)
        booleans(who, mask=mask)
        (q, k, v), qkv_backward = self.qkv(x, rotary=rotary, noise=noise)
        window = self.window
        if cache is not None:
            k, v, mask, causal = remembered(cache, k, v, mask, None if window is None else window[0])
            window = window if causal else None                         # what is seen lies in the window already
        broadcastable(who, (*q.shape[:-1], k.shape[-2]), bias=bias, mask=mask)
        heads, heads_backward = self._attend(q, k, v, bias, mask=mask, causal=causal, window=window, noise=noise)      # (..., H, T, E)
        y, merge_backward = self.merge(heads, noise=noise)

        def backward(dy):
            dheads, do_proj = merge_backward(dy)
            dq, dk, dv, dbias, dsinks = heads_backward(dheads)
            dx, grads = qkv_backward(dq, dk, dv)
            return dx, dbias, grads | do_proj | self.grads(sinks=dsinks)

        return y, backward if cache is None else None

    def qkv(self, x: NDArray, *, rotary: tuple[NDArray, NDArray] | None = None,
            noise: Noise | None = None) -> tuple[tuple[NDArray, NDArray, NDArray], Callable]:
        """x (..., T, D) -> q (..., H, T, E), k and v (..., K, T, E), normalised and turned; backward: dq, dk, dv -> dx, grads."""
        q, q_backward = self.q_proj.forward(x, noise=at(noise, "q_proj"))       # (..., T, H · E)
        k, k_backward = self.k_proj.forward(x, noise=at(noise, "k_proj"))       # (..., T, K · E)
        v, v_backward = self.v_proj.forward(x, noise=at(noise, "v_proj"))
        q, k, v = self._split(q), self._split(k), self._split(v)        # (..., T, H or K, E)
        if self.q_norm is not None:
            (q, k), norm_backward = qk_norm(q, k, self.q_norm.weight, self.k_norm.weight, eps=self.eps)
        q, k, v = q.swapaxes(-2, -3), k.swapaxes(-2, -3), v.swapaxes(-2, -3)      # (..., H or K, T, E)
        if rotary is not None:
            at_least_rank("GroupedQueryAttention", 2, cos=rotary[0], sin=rotary[1])
            cos, sin = (table[..., None, :, :] for table in rotary)     # the same for every head
            q, turn_q_backward = turn(q, cos=cos, sin=sin)
            k, turn_k_backward = turn(k, cos=cos, sin=sin)

        def backward(dq, dk, dv):
            if rotary is not None:
                dq, dk = turn_q_backward(dq), turn_k_backward(dk)
            dq, dk, dv = dq.swapaxes(-2, -3), dk.swapaxes(-2, -3), dv.swapaxes(-2, -3)
            norms = {}
            if self.q_norm is not None:
                dq, dk, dq_weight, dk_weight = norm_backward(dq, dk)
                norms = {"q_norm": self.q_norm.grads(weight=dq_weight), "k_norm": self.k_norm.grads(weight=dk_weight)}
            dx_by_q, dq_proj = q_backward(_side_by_side(dq))
            dx_by_k, dk_proj = k_backward(_side_by_side(dk))
            dx_by_v, dv_proj = v_backward(_side_by_side(dv))
            return dx_by_q + dx_by_k + dx_by_v, {"q_proj": dq_proj, "k_proj": dk_proj, "v_proj": dv_proj} | norms

        return (q, k, v), backward

    def merge(self, heads: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """heads (..., H, T, E) -> y (..., T, D), o_proj of the heads side by side; backward: dy -> dheads, grads."""
        y, o_backward = self.o_proj.forward(_side_by_side(heads.swapaxes(-2, -3)), noise=at(noise, "o_proj"))

        def backward(dy):
            dmerged, do_proj = o_backward(dy)
            return self._split(dmerged).swapaxes(-2, -3), {"o_proj": do_proj}

        return y, backward

    def _split(self, x: NDArray) -> NDArray:
        """(..., T, heads · E) -> (..., T, heads, E): a view."""
        return x.reshape(*x.shape[:-1], x.shape[-1] // self.head_width, self.head_width)

    def _attend(self, q: NDArray, k: NDArray, v: NDArray, bias: NDArray | None, *, mask: NDArray | None, causal: bool,
                window: tuple[int | None, int | None] | None, noise: Noise | None) -> tuple[NDArray, Callable]:
        """q (..., H, T, E), k and v (..., K, S, E) -> heads (..., H, T, E); backward: dheads -> dq, dk, dv, dbias, dsinks."""
        drops = noise is not None and self.dropout > 0
        if window is not None and bias is None and mask is None and self.sinks is None and not drops:
            return self._slide(q, k, v, causal, window)
        if window is not None:                                          # beside anything else, the window is a mask
            band = _band(q.shape[-2], k.shape[-2], *window)
            mask = band if mask is None else mask & band
        options = dict(mask=mask, causal=causal, soft_cap=self.soft_cap, dropout=self.dropout, noise=noise)
        if self.sinks is None:
            heads, plain_backward = grouped_query_attention(q, k, v, bias, **options)
            return heads, lambda dheads: (*plain_backward(dheads), None)

        heads, sink_backward = sink_attention(q, k, v, self.sinks, bias, **options)

        def backward(dheads):
            dq, dk, dv, dsinks, dbias = sink_backward(dheads)
            return dq, dk, dv, dbias, dsinks

        return heads, backward

    def _slide(self, q: NDArray, k: NDArray, v: NDArray, causal: bool,
               window: tuple[int | None, int | None]) -> tuple[NDArray, Callable]:
        """The heads of a window that nothing else joins: only its band of the scores is computed."""
        *lead, h, t, e = q.shape
        groups = (*lead, self.n_kv_heads, h // self.n_kv_heads)
        k, v = (np.broadcast_to(x[..., None, :, :], (*groups, *x.shape[-2:])) for x in (k, v))      # a view for every head of the group
        heads, slide_backward = sliding_window_attention(
            q.reshape(*groups, t, e), k, v, window=window, causal=causal, soft_cap=self.soft_cap
        )

        def backward(dheads):
            dq, dk, dv = slide_backward(dheads.reshape(*groups, t, e))
            return dq.reshape(q.shape), dk.sum(-3), dv.sum(-3), None, None    # the group's sum: its heads share them

        return heads.reshape(q.shape), backward


def _band(t: int, s: int, left: int | None, right: int | None) -> NDArray:
    """(T, S) booleans: key s lies in the window of query t, i − left ≤ s ≤ i + right, where i = t + S − T; T ≤ S."""
    left, right = (s if reach is None else min(reach, s) for reach in (left, right))
    return np.tri(t, s, k=s - t + right, dtype=bool) & ~np.tri(t, s, k=s - t - left - 1, dtype=bool)


def _side_by_side(heads: NDArray) -> NDArray:
    """(..., T, heads, E) -> (..., T, heads · E)."""
    *lead, h, e = heads.shape
    return heads.reshape(*lead, h * e)
