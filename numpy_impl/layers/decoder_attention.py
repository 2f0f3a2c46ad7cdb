"""Causal self-attention in which positions and the choice of keys are options: what the architecture experiments compare."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, demand, in_range, size
from byhand.configs.decoder import DROPPING, attention_options
from byhand.noise import Noise, at
from numpy_impl.attention.linear_attention import linear_attention
from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.attention.sliding_window import sliding_window_attention
from numpy_impl.attention.strided import strided_attention
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers._remembered import bias_by_distance, remembered
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.positions.alibi import alibi_bias
from numpy_impl.positions.rotary import rotary, rotary_frequencies, rotary_table
from numpy_impl.positions.t5 import t5_bias


class DecoderAttention(Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(turn(q_h), turn(k_h), v_h, bias),  q, k, v = three projections of x.

    Parameters
    ----------
    d_model : int        D, width of x and y
    n_heads : int        H, a divisor of D
    attention : str      "full", "window", "strided" or "linear": which of the keys up to its own a query sees, as DecoderConfig explains
    positions : str      "rotary" turns q and k; "alibi" and "relative" make the bias; with all others the layer knows no positions
    window : int         "window": how many keys a query sees, its own among them
    stride : int         "strided": steps between the keys that a query sees far away
    local : int          "strided": how many of the nearest keys it sees, its own among them; stride by default
    rope_base : float    of "rotary"
    buckets : int        of "relative": how many distances are told apart
    max_distance : int   of "relative": from where on all distances are one
    bias : bool          whether the four projections have a bias
    dropout : float      the share of attention probabilities that is dropped where `noise` is given; with "full" and "window"
    dtype                of the parameters
    rng                  np.random.Generator of the initial values

    relative (buckets, H), the table of "relative", starts at 0: at first no distance is preferred.

    Examples
    --------
    >>> attn = DecoderAttention(8, 2, positions="relative", buckets=4, rng=np.random.default_rng(0))
    >>> y, backward = attn.forward(np.ones((3, 5, 8), dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, list(grads)
    ((3, 5, 8), ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'relative'])
    """

    def __init__(self, d_model: int, n_heads: int, *, attention: str = "full", positions: str = "none", window: int | None = None,
                 stride: int | None = None, local: int | None = None, rope_base: float = 10000.0, buckets: int = 32,
                 max_distance: int = 128, bias: bool = False, dropout: float = 0.0, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        who = "DecoderAttention"
        size(who, d_model=d_model, n_heads=n_heads, buckets=buckets)
        local = attention_options(
            who, d_model=d_model, n_heads=n_heads, attention=attention, positions=positions, window=window, stride=stride, local=local
        )
        in_range(who, 0, 1, dropout=dropout)
        demand(who, attention in DROPPING or dropout == 0, f"attention from {DROPPING} with dropout", attention=attention, dropout=dropout)
        self.n_heads, self.attention, self.positions, self.dropout = n_heads, attention, positions, dropout
        self.window, self.stride, self.local = window, stride, local
        self.rope_base, self.max_distance = rope_base, max_distance
        self.q_proj = Linear(d_model, d_model, bias=bias, dtype=dtype, rng=rng)
        self.k_proj = Linear(d_model, d_model, bias=bias, dtype=dtype, rng=rng)
        self.v_proj = Linear(d_model, d_model, bias=bias, dtype=dtype, rng=rng)
        self.o_proj = Linear(d_model, d_model, bias=bias, dtype=dtype, rng=rng)
        self.relative = np.zeros((buckets, n_heads), dtype) if positions == "relative" else None

    def forward(self, x: NDArray, *, noise: Noise | None = None, cache: LayerCache | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D) -> y (..., T, D); backward: dy -> dx, grads.

        With a cache, x (B, T, D) are the newest tokens, which see each other and those before them, and there is no backward.
        """
        at_least_rank("DecoderAttention", 2, x=x)
        t = x.shape[-2]
        q, q_backward = self.q_proj.forward(x, noise=at(noise, "q_proj"))       # (..., T, D)
        k, k_backward = self.k_proj.forward(x, noise=at(noise, "k_proj"))
        v, v_backward = self.v_proj.forward(x, noise=at(noise, "v_proj"))
        turn = self._rotation(x, np.arange(t) if cache is None else cache.places.positions[:, None])
        q, turn_q_backward = turn(self._split(q))                       # (..., H, T, D/H)
        k, turn_k_backward = turn(self._split(k))
        if cache is not None:
            heads = self._remember(q, k, self._split(v), cache, noise)
        else:
            bias, bias_backward = self._bias(t, t, x.dtype)             # (H, T, T), or None
            heads, heads_backward = self._attend(q, k, self._split(v), bias, noise)
        y, o_backward = self.o_proj.forward(_merge(heads), noise=at(noise, "o_proj"))

        def backward(dy):
            dmerged, do_proj = o_backward(dy)
            dq, dk, dv, *dbias = heads_backward(self._split(dmerged))
            dx_by_q, dq_proj = q_backward(_merge(turn_q_backward(dq)))
            dx_by_k, dk_proj = k_backward(_merge(turn_k_backward(dk)))
            dx_by_v, dv_proj = v_backward(_merge(dv))
            grads = {"q_proj": dq_proj, "k_proj": dk_proj, "v_proj": dv_proj, "o_proj": do_proj}
            if self.relative is not None:
                grads |= self.grads(relative=bias_backward(*dbias))
            return dx_by_q + dx_by_k + dx_by_v, grads

        return y, backward if cache is None else None

    def _remember(self, q: NDArray, k: NDArray, v: NDArray, cache: LayerCache, noise: Noise | None) -> NDArray:
        """The heads (B, H, T, D/H) of the newest tokens, which also see the keys and values that are remembered."""
        left = self.window - 1 if self.attention == "window" else None
        key, value, mask, alike = remembered(cache, k, v, None, left)
        t, s = q.shape[2], key.shape[2]
        if alike:
            return self._attend(q, key, value, self._bias(t, s, q.dtype)[0], noise)[0]
        if self.attention == "linear":
            # In a sum over keys the order is all the same: those from before the call come first, then the new ones, whatever the lengths
            # of the rows. What is no token adds nothing, φ(−∞) = 0.
            starts, real = cache.places.starts, cache.places.real
            before = np.arange(starts.max())
            there = np.concatenate([before < starts[:, None], np.ones((len(k), t), bool) if real is None else real], axis=1)   # (B, S)
            k, v = np.concatenate([key[:, :, before], k], axis=2), np.concatenate([value[:, :, before], v], axis=2)
            return linear_attention(q, np.where(there[:, None, :, None], k, -np.inf), v, causal=True)[0]
        # Rows of different lengths: what depends on how far back a key stands is another table for each row.
        back = cache.places.positions[:, :, None] - np.arange(s)         # (B, T, S); only where a window hides the first keys are they gone
        if self.attention == "strided":
            mask = mask & ((back < self.local) | (back % self.stride == 0))[:, None]
        bias, _ = self._bias(1, s, q.dtype)
        bias = None if bias is None else bias_by_distance(bias, back)
        return scaled_dot_product(q, key, value, bias, mask=mask, dropout=self.dropout, noise=noise)[0]

    def _rotation(self, x: NDArray, positions: NDArray) -> Callable:
        """q (..., T, E) -> q with the token at each position turned by it, and the pullback; q as it is where positions do not turn."""
        if self.positions != "rotary":
            return lambda q: (q, lambda dq: dq)
        frequencies = rotary_frequencies(x.shape[-1] // self.n_heads, base=self.rope_base)
        cos, sin = rotary_table(positions, frequencies=frequencies, dtype=x.dtype)
        return partial(rotary, cos=cos, sin=sin)

    def _bias(self, t: int, s: int, dtype: DTypeLike) -> tuple[NDArray | None, Callable | None]:
        """What is added to the scores, and for a learned one the pullback dbias -> dtable."""
        if self.positions == "relative":
            return t5_bias(self.relative, queries=t, keys=s, bidirectional=False, max_distance=self.max_distance)
        return (alibi_bias(self.n_heads, queries=t, keys=s, dtype=dtype) if self.positions == "alibi" else None), None

    def _attend(self, q: NDArray, k: NDArray, v: NDArray, bias: NDArray | None, noise: Noise | None) -> tuple[NDArray, Callable]:
        """heads (..., H, T, D/H) -> y, shaped alike; backward: dy -> dq, dk, dv and, where scores have a bias, dbias."""
        if self.attention == "full":
            return scaled_dot_product(q, k, v, bias, causal=True, dropout=self.dropout, noise=noise)
        if self.attention == "window":
            return sliding_window_attention(q, k, v, window=(self.window - 1, 0), dropout=self.dropout, noise=noise)
        if self.attention == "strided":
            return strided_attention(q, k, v, stride=self.stride, local=self.local - 1, causal=True)
        return linear_attention(q, k, v, causal=True)

    def _split(self, x: NDArray) -> NDArray:
        """(..., T, D) -> (..., H, T, D/H): a view."""
        return x.reshape(*x.shape[:-1], self.n_heads, x.shape[-1] // self.n_heads).swapaxes(-2, -3)


def _merge(heads: NDArray) -> NDArray:
    """(..., H, T, D/H) -> (..., T, D)."""
    *lead, h, t, e = heads.shape
    return heads.swapaxes(-2, -3).reshape(*lead, t, h * e)
