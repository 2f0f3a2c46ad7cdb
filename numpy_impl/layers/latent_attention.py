"""Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434, section 2.1): keys and values made from a short latent."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, demand, in_range, size
from byhand.noise import Noise, at
from numpy_impl.attention.latent import latent_attention
from numpy_impl.attention.scaled_dot_product import scaled_dot_product
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers._remembered import remembered
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Grads, Module
from numpy_impl.layers.norm import RMSNorm
from numpy_impl.positions.rotary import rotary as turn


class MultiHeadLatentAttention(Module):
    """y = o_proj(head₁ ‖ … ‖ head_H),  with  head_h = attention(qᶜ_h ‖ turn(qᴿ_h), kᶜ_h ‖ turn(kᴿ), v_h).

    Keys and values come from one latent c = norm(Wx) of kv_rank numbers a token, [kᶜ_h, v_h] = kv_b_proj(c). Positions would not survive
    that: a turn between the two products keeps them from being multiplied into one. So they go beside it (*decoupled* rope): a key kᴿ of
    rope_width numbers, straight from x and shared by all heads, and as many numbers of each query. A cache holds c and kᴿ alone,
    kv_rank + rope_width numbers a token for all heads together. With q_rank, queries too come from a latent:
    q = q_b_proj(norm(q_a_proj(x))).

    Parameters
    ----------
    d_model : int        D, width of x and y
    n_heads : int        H, heads
    kv_rank : int        C, width of the latent of keys and values
    head_width : int     E, numbers of a query or key without position
    rope_width : int     R, those with; even
    value_width : int    W, width of a head's values; E by default
    q_rank : int         width of the latent of queries; None: q = q_proj(x) at once
    bias : bool          whether the projections that read x, and o_proj, have a bias; those that read a latent, and q_proj, never have
    absorb : bool        whether scores are taken with the latents themselves (`latent_attention`), which builds no keys and values: the
                         same numbers, for less where few queries meet many keys, for more where every token is a query
    interleaved : bool   whether the rope turns pairs of neighbours (DeepSeek's files), or number i with number i + R/2
    eps : float          ε of the norms
    scale : float        of the scores; 1/√(E + R) by default
    dropout : float      the share of attention probabilities that is dropped where `noise` is given
    dtype                of the parameters
    rng                  np.random.Generator of the initial values

    Raises
    ------
    ValueError   if a size is not a positive integer, rope_width is odd, an option is out of its range, or what is given to a call does not
                 fit

    Examples
    --------
    >>> attn = MultiHeadLatentAttention(8, 2, kv_rank=3, head_width=4, rope_width=2, rng=np.random.default_rng(0))
    >>> y, backward = attn.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, {name: array.shape for name, array in attn.state_dict().items() if name.startswith("kv")}
    ((3, 5, 8), {'kv_a_proj.weight': (5, 8), 'kv_a_norm.weight': (3,), 'kv_b_proj.weight': (16, 3)})
    """

    def __init__(self, d_model: int, n_heads: int, *, kv_rank: int, head_width: int, rope_width: int, value_width: int | None = None,
                 q_rank: int | None = None, bias: bool = False, absorb: bool = False, interleaved: bool = False, eps: float = 1e-6,
                 scale: float | None = None, dropout: float = 0.0, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None):
        who = "MultiHeadLatentAttention"
        value_width = head_width if value_width is None else value_width
        size(who, d_model=d_model, n_heads=n_heads, kv_rank=kv_rank, head_width=head_width, value_width=value_width)
        size(who, at_least=2, rope_width=rope_width)
        demand(who, rope_width % 2 == 0, "an even rope_width", rope_width=rope_width)
        in_range(who, 0, 1, dropout=dropout)
        self.n_heads, self.kv_rank, self.head_width = n_heads, kv_rank, head_width
        self.absorb, self.interleaved, self.dropout = absorb, interleaved, dropout
        self.scale = 1 / math.sqrt(head_width + rope_width) if scale is None else scale
        d_query = n_heads * (head_width + rope_width)
        self.q_proj = self.q_a_proj = self.q_a_norm = self.q_b_proj = None
        if q_rank is None:
            self.q_proj = Linear(d_model, d_query, bias=False, dtype=dtype, rng=rng)
        else:
            self.q_a_proj = Linear(d_model, q_rank, bias=bias, dtype=dtype, rng=rng)
            self.q_a_norm = RMSNorm(q_rank, eps=eps, dtype=dtype)
            self.q_b_proj = Linear(q_rank, d_query, bias=False, dtype=dtype, rng=rng)
        self.kv_a_proj = Linear(d_model, kv_rank + rope_width, bias=bias, dtype=dtype, rng=rng)
        self.kv_a_norm = RMSNorm(kv_rank, eps=eps, dtype=dtype)
        self.kv_b_proj = Linear(kv_rank, n_heads * (head_width + value_width), bias=False, dtype=dtype, rng=rng)
        self.o_proj = Linear(n_heads * value_width, d_model, bias=bias, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, *, rotary: tuple[NDArray, NDArray] | None = None, mask: NDArray | None = None, causal: bool = False,
                noise: Noise | None = None, cache: LayerCache | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D) -> y (..., T, D); backward: dy -> dx, grads.

        mask broadcasts to (..., H, T, T), True = may see; rotary is the pair cos, sin (..., T, R/2) of `rotary_table`. With a cache, which
        holds latents and turned keys, x (B, T, D) are the newest of S tokens, causal whatever is said, and there is no backward.
        """
        at_least_rank("MultiHeadLatentAttention", 2, x=x)
        e, c = self.head_width, self.kv_rank
        q, q_backward = self._query(x, noise)                                # (..., T, H · (E + R))
        q = _split(q, self.n_heads)                                     # (..., H, T, E + R)
        down, kv_a_backward = self.kv_a_proj.forward(x, noise=at(noise, "kv_a_proj"))  # (..., T, C + R)
        latent, norm_backward = self.kv_a_norm.forward(down[..., :c])   # (..., T, C)
        q_turned, turn_q_backward = self._turn(q[..., e:], rotary)
        k_turned, turn_k_backward = self._turn(down[..., None, :, c:], rotary)              # (..., 1, T, R): one for all heads
        if cache is not None:
            held, k_turned, mask, causal = remembered(cache, latent[..., None, :, :], k_turned, mask)    # (B, 1, S, C) and (B, 1, S, R)
            latent = held[..., 0, :, :]
        attend = self._absorbed if self.absorb else self._built
        heads, heads_backward = attend(                                 # (..., H, T, W)
            q[..., :e], q_turned, latent, k_turned[..., 0, :, :],
            mask=mask, causal=causal, scale=self.scale, dropout=self.dropout, noise=noise,
        )
        y, o_backward = self.o_proj.forward(_merge(heads), noise=at(noise, "o_proj"))

        def backward(dy):
            dmerged, do_proj = o_backward(dy)
            dq, dq_turned, dlatent, dk_turned, dkv_b_proj = heads_backward(_split(dmerged, self.n_heads))
            ddown, dkv_a_norm = norm_backward(dlatent)
            ddown = np.concatenate([ddown, turn_k_backward(dk_turned[..., None, :, :])[..., 0, :, :]], -1)
            dx_by_kv, dkv_a_proj = kv_a_backward(ddown)
            dq = np.concatenate([dq, turn_q_backward(dq_turned)], -1)
            dx_by_q, dqueries = q_backward(_merge(dq))
            return dx_by_q + dx_by_kv, dqueries | {
                "kv_a_proj": dkv_a_proj, "kv_a_norm": dkv_a_norm, "kv_b_proj": dkv_b_proj, "o_proj": do_proj
            }

        return y, backward if cache is None else None

    def _built(self, q: NDArray, q_turned: NDArray, latent: NDArray, k_turned: NDArray, **options: Any) -> tuple[NDArray, Callable]:
        """The heads (..., H, T, W) from keys and values that are built.

        backward: dheads -> dq, dq_turned, dlatent, dk_turned, and the gradients of kv_b_proj.
        """
        e = self.head_width
        up, kv_b_backward = self.kv_b_proj.forward(latent, noise=at(options["noise"], "kv_b_proj"))
        up = _split(up, self.n_heads)                                   # (..., H, T, E + W)
        query = np.concatenate([q, q_turned], -1)
        key = np.concatenate([up[..., :e], np.broadcast_to(k_turned[..., None, :, :], (*up.shape[:-1], k_turned.shape[-1]))], -1)
        heads, heads_backward = scaled_dot_product(query, key, up[..., e:], **options)

        def backward(dheads):
            dquery, dkey, dvalue, _ = heads_backward(dheads)
            dlatent, dkv_b_proj = kv_b_backward(_merge(np.concatenate([dkey[..., :e], dvalue], -1)))
            dk_turned = dkey[..., e:].sum(-3)                           # the heads' sum, for they share it
            return dquery[..., :e], dquery[..., e:], dlatent, dk_turned, dkv_b_proj

        return heads, backward

    def _absorbed(self, q: NDArray, q_turned: NDArray, latent: NDArray, k_turned: NDArray, **options: Any) -> tuple[NDArray, Callable]:
        """The same from the latents themselves, as attention/latent.py explains."""
        weight = self.kv_b_proj.weight.reshape(self.n_heads, -1, self.kv_rank)              # (H, E + W, C)
        weight_k, weight_v = weight[:, :self.head_width], weight[:, self.head_width:]
        heads, heads_backward = latent_attention(q, latent, weight_k, weight_v, q_turned, k_turned, **options)

        def backward(dheads):
            dq, dlatent, dweight_k, dweight_v, dq_turned, dk_turned = heads_backward(dheads)
            dweight = np.concatenate([dweight_k, dweight_v], 1).reshape(self.kv_b_proj.weight.shape)
            return dq, dq_turned, dlatent, dk_turned, self.kv_b_proj.grads(weight=dweight)

        return heads, backward

    def _query(self, x: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        """x -> queries (..., T, H · (E + R)), at once or through a latent; backward: dq -> dx, grads."""
        if self.q_proj is not None:
            q, q_backward = self.q_proj.forward(x, noise=at(noise, "q_proj"))

            def backward_at_once(dq):
                dx, dq_proj = q_backward(dq)
                return dx, {"q_proj": dq_proj}

            return q, backward_at_once

        down, a_backward = self.q_a_proj.forward(x, noise=at(noise, "q_a_proj"))
        latent, norm_backward = self.q_a_norm.forward(down)
        q, b_backward = self.q_b_proj.forward(latent, noise=at(noise, "q_b_proj"))

        def backward(dq) -> tuple[NDArray, Grads]:
            dlatent, dq_b_proj = b_backward(dq)
            ddown, dq_a_norm = norm_backward(dlatent)
            dx, dq_a_proj = a_backward(ddown)
            return dx, {"q_a_proj": dq_a_proj, "q_a_norm": dq_a_norm, "q_b_proj": dq_b_proj}

        return q, backward

    def _turn(self, x: NDArray, rotary: tuple[NDArray, NDArray] | None) -> tuple[NDArray, Callable]:
        """x (..., heads, T, R) turned by its positions, or as it is without them."""
        if rotary is None:
            return x, lambda dx: dx
        at_least_rank("MultiHeadLatentAttention", 2, cos=rotary[0], sin=rotary[1])
        cos, sin = (table[..., None, :, :] for table in rotary)         # the same for every head
        return turn(x, cos=cos, sin=sin, interleaved=self.interleaved)


def _split(x: NDArray, heads: int) -> NDArray:
    """(..., T, H · E) -> (..., H, T, E): a view."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).swapaxes(-2, -3)


def _merge(heads: NDArray) -> NDArray:
    """(..., H, T, E) -> (..., T, H · E)."""
    *lead, h, t, e = heads.shape
    return heads.swapaxes(-2, -3).reshape(*lead, t, h * e)
