"""The block of the architecture experiments: two residual branches, normalised before, after, or not at all."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, in_range
from byhand.configs.decoder import DROPPING, NORM_TYPES, NORMS
from byhand.noise import Noise, at
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers._routed import Routes, Routing, telling
from numpy_impl.layers.decoder_attention import DecoderAttention
from numpy_impl.layers.feed_forward import ACTIVATIONS, FeedForward
from numpy_impl.layers.gated_feed_forward import GATES, GatedFeedForward
from numpy_impl.layers.module import Grads, Module
from numpy_impl.layers.norm import LayerNorm, RMSNorm
from numpy_impl.ops.dropout import dropout as drop


class DecoderBlock(Module):
    """y = mid + mlp(norm2(mid)),  with  mid = x + attn(norm1(x))      (norm "pre")
    y = norm2(mid + mlp(mid)),  with  mid = norm1(x + attn(x))      (norm "post")
    y = mid + mlp(mid),         with  mid = x + attn(x)             (norm "none")

    Parameters
    ----------
    d_model : int      D, width of x and y
    n_heads : int      H, a divisor of D
    d_hidden : int     F, width inside the feed-forward layer
    norm : str         "pre": normalise what a branch reads; "post": normalise the sum; "none"
    norm_type : str    "layer" or "rms"
    activation : str   of FeedForward, or of GatedFeedForward (swiglu, geglu, reglu, glu, bilinear), which makes the layer gated
    bias : bool        whether the projections, and LayerNorm, have a bias
    eps : float        ε of the norms
    dropout : float    the share dropped of what a branch adds and, where attention can, of its probabilities
    dtype              of the parameters
    rng                np.random.Generator of the initial values
    attention          the other options of DecoderAttention: attention, positions and their sizes

    Dropout acts only where `noise` is given.

    Examples
    --------
    >>> block = DecoderBlock(8, 2, 32, positions="rotary", rng=np.random.default_rng(0))
    >>> y, backward = block.forward(np.ones((3, 5, 8), dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, list(grads)
    ((3, 5, 8), ['norm1', 'attn', 'norm2', 'mlp'])
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, norm: str = "pre", norm_type: str = "layer", activation: str = "gelu",
                 bias: bool = False, eps: float = 1e-5, dropout: float = 0.0, dtype: DTypeLike = np.float32,
                 rng: np.random.Generator | None = None, **attention: Any):
        who = "DecoderBlock"
        choice(who, NORMS, norm=norm)
        choice(who, NORM_TYPES, norm_type=norm_type)
        choice(who, (*ACTIVATIONS, *GATES), activation=activation)
        in_range(who, 0, 1, dropout=dropout)
        self.norm, self.dropout = norm, dropout

        def make_norm() -> Module | None:
            if norm == "none":
                return None
            return LayerNorm(d_model, eps=eps, bias=bias, dtype=dtype) if norm_type == "layer" else RMSNorm(d_model, eps=eps, dtype=dtype)

        made: dict[str, Any] = dict(bias=bias, dtype=dtype, rng=rng)
        make_mlp = FeedForward if activation in ACTIVATIONS else GatedFeedForward
        self.norm1 = make_norm()
        attention_dropout = dropout if attention.get("attention", "full") in DROPPING else 0.0
        self.attn = DecoderAttention(d_model, n_heads, dropout=attention_dropout, **made, **attention)
        self.norm2 = make_norm()
        self.mlp = make_mlp(d_model, d_hidden, activation=activation, **made)

    def forward(self, x: NDArray, *, noise: Noise | None = None, cache: LayerCache | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D) -> y (..., T, D); backward: dy -> dx, grads (none with a cache, where x (B, T, D) are the newest tokens)."""
        y, _, backward = self.routed(x, noise=noise, cache=cache)
        return y, backward

    def routed(self, x: NDArray, *, real: NDArray | None = None, noise: Noise | None = None,
               cache: LayerCache | None = None) -> tuple[NDArray, Routes, Callable | None]:
        """As `forward`, and what the routers in mlp did with the tokens, of which `real` (..., T) are no padding; backward: dy, dlogits of
        the routers -> dx, grads."""
        routes: list[Routing] = []
        attend = partial(self.attn.forward, noise=at(noise, "attn"), cache=cache)
        mid, mid_backward = self._residual(x, attend, self.norm1, at(noise, "dropout1"))
        feed = partial(telling, self.mlp, routes, real=real, noise=at(noise, "mlp"))
        y, y_backward = self._residual(mid, feed, self.norm2, at(noise, "dropout2"))

        def backward(dy, dlogits=()):
            dmid, dmlp, dnorm2 = y_backward(dy, dlogits)
            dx, dattn, dnorm1 = mid_backward(dmid)
            return dx, {"norm1": dnorm1, "attn": dattn, "norm2": dnorm2, "mlp": dmlp}

        return y, tuple(routes), backward if cache is None else None

    def _residual(self, x: NDArray, branch: Callable, norm: Module | None, noise: Noise | None) -> tuple[NDArray, Callable]:
        """y = after(x + dropout(branch(before(x)))), where one of before and after may be the norm; backward: dy -> dx, dbranch, dnorm."""
        before = norm.forward if self.norm == "pre" else _identity
        after = norm.forward if self.norm == "post" else _identity
        h, before_backward = before(x)
        h, branch_backward = branch(h)
        h, drop_backward = drop(h, p=self.dropout, noise=noise)
        y, after_backward = after(x + h)

        def backward(dy, *told):                                        # what it gets beside dy is the branch's
            dsum, dafter = after_backward(dy)
            dh, dbranch = branch_backward(drop_backward(dsum), *told)
            dh, dbefore = before_backward(dh)
            return dsum + dh, dbranch, dbefore | dafter                 # the skip, plus the branch; only one is a norm's

        return y, backward


def _identity(x: NDArray) -> tuple[NDArray, Callable[[NDArray], tuple[NDArray, Grads]]]:
    return x, lambda dy: (dy, {})
