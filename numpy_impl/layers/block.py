"""The transformer block: two residual branches, attention and feed-forward, normalised before (pre) or after (post)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, in_range
from byhand.noise import Noise, at
from numpy_impl.layers.feed_forward import ACTIVATIONS, FeedForward
from numpy_impl.layers.gated_feed_forward import GATES, GatedFeedForward
from numpy_impl.layers.module import Module
from numpy_impl.layers.multi_head_attention import MultiHeadAttention
from numpy_impl.layers.norm import LayerNorm, RMSNorm
from numpy_impl.ops.dropout import dropout


class Block(Module):
    """y = mid + mlp(norm2(mid)),  with  mid = x + attn(norm1(x))      (order "pre"; GPT-2, Llama)
    y = norm2(mid + mlp(mid)),  with  mid = norm1(x + attn(x))      (order "post"; Vaswani et al. 2017, BERT)

    What a branch adds to x passes through dropout first.

    Parameters
    ----------
    d_model : int               D, width of x and y
    n_heads : int               H, a divisor of D
    d_hidden : int              F, width inside the feed-forward layer
    norm : str                  "layer" or "rms"
    order : str                 "pre": normalise what a branch reads; "post": normalise the sum
    activation : str            of FeedForward, or of GatedFeedForward (swiglu, geglu, reglu, glu, bilinear), which makes the layer gated
    bias : bool                 whether the projections, and LayerNorm, have a bias
    eps : float                 ε of the norms
    dropout : float             the share dropped of what a branch adds
    attention_dropout : float   the share of attention probabilities dropped
    hidden_dropout : float      the share of hidden activations dropped
    dtype                       of the parameters
    rng                         np.random.Generator of the initial values

    Dropout acts only where `noise` is given.

    Examples
    --------
    >>> block = Block(8, 2, 32, rng=np.random.default_rng(0))
    >>> y, backward = block.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, list(grads)
    ((3, 5, 8), ['norm1', 'attn', 'norm2', 'mlp'])
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, norm: Literal["layer", "rms"] = "layer",
                 order: Literal["pre", "post"] = "pre", activation: str = "gelu", bias: bool = True, eps: float = 1e-5,
                 dropout: float = 0.0, attention_dropout: float = 0.0, hidden_dropout: float = 0.0,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        choice("Block", ("layer", "rms"), norm=norm)
        choice("Block", ("pre", "post"), order=order)
        choice("Block", (*ACTIVATIONS, *GATES), activation=activation)
        in_range("Block", 0, 1, dropout=dropout)
        self.order, self.dropout = order, dropout

        def make_norm() -> Module:
            return LayerNorm(d_model, eps=eps, bias=bias, dtype=dtype) if norm == "layer" else RMSNorm(d_model, eps=eps, dtype=dtype)

        make_mlp = FeedForward if activation in ACTIVATIONS else GatedFeedForward
        self.norm1 = make_norm()
        self.attn = MultiHeadAttention(d_model, n_heads, bias=bias, dropout=attention_dropout, dtype=dtype, rng=rng)
        self.norm2 = make_norm()
        self.mlp = make_mlp(d_model, d_hidden, activation=activation, bias=bias, dropout=hidden_dropout, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, *, mask: NDArray | None = None, causal: bool = False,
                noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., T, D), mask broadcastable to (..., H, T, T), True = may see -> y (..., T, D); backward: dy -> dx, grads."""
        residual = _pre_norm if self.order == "pre" else _post_norm
        attend = partial(self.attn.forward, mask=mask, causal=causal, noise=at(noise, "attn"))
        mid, attn_backward = residual(x, self.norm1, attend, self.dropout, at(noise, "dropout1"))
        feed = partial(self.mlp.forward, noise=at(noise, "mlp"))
        y, mlp_backward = residual(mid, self.norm2, feed, self.dropout, at(noise, "dropout2"))

        def backward(dy):
            dmid, dnorm2, dmlp = mlp_backward(dy)
            dx, dnorm1, dattn = attn_backward(dmid)
            return dx, {"norm1": dnorm1, "attn": dattn, "norm2": dnorm2, "mlp": dmlp}

        return y, backward


def _pre_norm(x: NDArray, norm: Module, branch: Callable, p: float, noise: Noise | None) -> tuple[NDArray, Callable]:
    """y = x + dropout(branch(norm(x))); backward: dy -> dx, and the gradients of norm and branch."""
    h, norm_backward = norm.forward(x)
    h, branch_backward = branch(h)
    h, dropout_backward = dropout(h, p=p, noise=noise)

    def backward(dy):
        dh, *_, dbranch = branch_backward(dropout_backward(dy))
        dx, dnorm = norm_backward(dh)
        return dy + dx, dnorm, dbranch                                  # the skip, plus the branch

    return x + h, backward


def _post_norm(x: NDArray, norm: Module, branch: Callable, p: float, noise: Noise | None) -> tuple[NDArray, Callable]:
    """y = norm(x + dropout(branch(x))); backward: dy -> dx, and the gradients of norm and branch."""
    h, branch_backward = branch(x)
    h, dropout_backward = dropout(h, p=p, noise=noise)
    y, norm_backward = norm.forward(x + h)

    def backward(dy):
        dsum, dnorm = norm_backward(dy)
        dx, *_, dbranch = branch_backward(dropout_backward(dsum))
        return dsum + dx, dnorm, dbranch                                # the skip, plus the branch

    return y, backward
