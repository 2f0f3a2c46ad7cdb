"""The transformer block: two residual branches, attention and feed-forward, and where they are normalised."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, demand, in_range, positive
from byhand.noise import Noise, at
from numpy_impl.decode.cache import LayerCache
from numpy_impl.layers._routed import Routes, Routing, telling
from numpy_impl.layers.feed_forward import ACTIVATIONS, FeedForward
from numpy_impl.layers.gated_feed_forward import GATES, GatedFeedForward
from numpy_impl.layers.init import xavier_normal
from numpy_impl.layers.module import Grads, Module
from numpy_impl.layers.multi_head_attention import MultiHeadAttention
from numpy_impl.layers.norm import LayerNorm, RMSNorm
from numpy_impl.ops.dropout import dropout

Order = Literal["pre", "post", "sandwich", "parallel", "none"]


class Block(Module):
    """y = mid + mlp(norm2(mid)),  with  mid = x + attn(norm1(x))        (order "pre"; GPT-2, Llama)
    y = norm2(α · mid + mlp(mid)),  with  mid = norm1(α · x + attn(x))      ("post"; Vaswani et al. 2017, BERT; with α ≠ 1 DeepNorm)
    y = mid + norm2_after(mlp(norm2(mid))),  with  mid = x + norm1_after(attn(norm1(x)))      ("sandwich"; Ding et al. 2021, Gemma 2)
    y = x + attn(h) + mlp(h),  with  h = norm1(x)      ("parallel"; GPT-J, PaLM)
    y = mid + mlp(mid),  with  mid = x + attn(x)      ("none")

    What a branch gives passes through dropout before anything else is done with it.

    Parameters
    ----------
    d_model : int               D, width of x and y
    n_heads : int               H
    d_hidden : int              F, width inside the feed-forward layer
    norm : str                  "layer" or "rms"
    order : str                 "pre", "post", "sandwich", "parallel" or "none": where there are norms, as above
    activation : str            of FeedForward, or of GatedFeedForward (swiglu, geglu, reglu, glu, bilinear), which makes the layer gated
    bias : bool                 whether the projections, and LayerNorm, have a bias
    eps : float                 ε of the norms
    dropout : float             the share dropped of what a branch adds
    attention_dropout : float   the share of attention probabilities dropped
    hidden_dropout : float      the share of hidden activations dropped
    head_width : int            E, width of a head; D/H by default, and then H must divide D
    scale : float               of the attention scores; 1/√E by default
    alpha : float               α, how much the skip counts; only with order "post"
    beta : float                weights start as `xavier_normal`, with the gain β in v_proj, o_proj and the feed-forward layer, 1 in q_proj
                                and k_proj; by default as Linear's do
    dtype                       of the parameters
    rng                         np.random.Generator of the initial values

    Dropout acts only where `noise` is given. DeepNorm's α and β for a number of layers come from `byhand.configs.deepnorm`.

    Sources: Ding et al. 2021, arXiv:2105.13290, section 2.4; Wang & Komatsuzaki 2021 (GPT-J); Wang et al. 2022, arXiv:2203.00555, figure 2.

    Examples
    --------
    >>> block = Block(8, 2, 32, rng=np.random.default_rng(0))
    >>> y, backward = block.forward(np.ones((3, 5, 8), dtype=np.float32), causal=True)
    >>> dx, dbias, grads = backward(np.ones_like(y))
    >>> dx.shape, dbias, list(grads)
    ((3, 5, 8), None, ['norm1', 'attn', 'norm2', 'mlp'])
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, *, norm: Literal["layer", "rms"] = "layer",
                 order: Order = "pre", activation: str = "gelu", bias: bool = True, eps: float = 1e-5,
                 dropout: float = 0.0, attention_dropout: float = 0.0, hidden_dropout: float = 0.0, head_width: int | None = None,
                 scale: float | None = None, alpha: float = 1.0, beta: float | None = None,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        choice("Block", ("layer", "rms"), norm=norm)
        choice("Block", ("pre", "post", "sandwich", "parallel", "none"), order=order)
        choice("Block", (*ACTIVATIONS, *GATES), activation=activation)
        in_range("Block", 0, 1, dropout=dropout)
        positive("Block", alpha=alpha)
        demand("Block", order == "post" or alpha == 1, "order='post' with an alpha", order=order, alpha=alpha)
        self.order, self.dropout, self.alpha = order, dropout, alpha

        def make_norm(*orders: Order) -> Module | None:
            return _make_norm(norm, d_model, eps, bias, dtype=dtype) if order in orders else None

        make_mlp = FeedForward if activation in ACTIVATIONS else GatedFeedForward
        self.norm1 = make_norm("pre", "post", "sandwich", "parallel")
        self.attn = MultiHeadAttention(d_model, n_heads, bias=bias, dropout=attention_dropout, head_width=head_width, scale=scale,
                                       dtype=dtype, rng=rng)
        self.norm1_after = make_norm("sandwich")
        self.norm2 = make_norm("pre", "post", "sandwich")
        self.mlp = make_mlp(d_model, d_hidden, activation=activation, bias=bias, dropout=hidden_dropout, dtype=dtype, rng=rng)
        self.norm2_after = make_norm("sandwich")
        if beta is not None:
            _start_deepnorm(self, beta, rng)

    def forward(self, x: NDArray, bias: NDArray | None = None, *, mask: NDArray | None = None, causal: bool = False,
                noise: Noise | None = None, cache: LayerCache | None = None) -> tuple[NDArray, Callable | None]:
        """x (..., T, D) -> y (..., T, D); backward: dy -> dx, dbias (None without bias), grads.

        bias, added to the attention scores, and mask, True = may see, broadcast to (..., H, T, T). With a cache x (B, T, D) are the newest
        of S tokens, which see each other and those before them, bias and mask are (B, H, T, S), and there is no backward.
        """
        y, _, backward = self.routed(x, bias, mask=mask, causal=causal, noise=noise, cache=cache)
        return y, backward

    def routed(self, x: NDArray, bias: NDArray | None = None, *, mask: NDArray | None = None, causal: bool = False,
               real: NDArray | None = None, noise: Noise | None = None,
               cache: LayerCache | None = None) -> tuple[NDArray, Routes, Callable | None]:
        """As `forward`, and what the routers in mlp did with the tokens, of which `real` (..., T) are no padding; backward: dy, dlogits of
        the routers -> dx, dbias, grads."""
        routes: list[Routing] = []
        attend = partial(self.attn.forward, bias=bias, mask=mask, causal=causal, noise=at(noise, "attn"), cache=cache)
        attend = _then_dropout(attend, self.dropout, at(noise, "dropout1"))
        feed = partial(telling, self.mlp, routes, real=real, noise=at(noise, "mlp"))
        feed = _then_dropout(feed, self.dropout, at(noise, "dropout2"))
        if self.order == "parallel":
            y, parallel_backward = _parallel(x, self.norm1, attend, feed)
            return y, tuple(routes), parallel_backward if cache is None else None
        mid, attn_backward = self._add(x, attend, self.norm1, self.norm1_after)
        y, mlp_backward = self._add(mid, feed, self.norm2, self.norm2_after)

        def backward(dy, dlogits=()):
            dmid, dmlp, dnorm2, dnorm2_after = mlp_backward(dy, dlogits)
            dx, _, dbias, dattn, dnorm1, dnorm1_after = attn_backward(dmid)
            return dx, dbias, _present(norm1=dnorm1, attn=dattn, norm1_after=dnorm1_after, norm2=dnorm2, mlp=dmlp, norm2_after=dnorm2_after)

        return y, tuple(routes), backward if cache is None else None

    def _add(self, x: NDArray, branch: Callable, norm: Module | None, after: Module | None) -> tuple[NDArray, Callable]:
        """x and what a branch adds to it; backward: dy -> dx, *what else the branch returns, gradients of branch, norm and after."""
        return _post_norm(x, branch, norm, self.alpha) if self.order == "post" else _pre_norm(x, branch, norm, after)


def _pre_norm(x: NDArray, branch: Callable, norm: Module | None, after: Module | None) -> tuple[NDArray, Callable]:
    """y = x + after(branch(norm(x))),  without the norms that are None; what the backward gets beside dy is the branch's."""
    h, norm_backward = _normalise(norm, x)
    h, branch_backward = branch(h)
    h, after_backward = _normalise(after, h)

    def backward(dy, *told):
        dh, dafter = after_backward(dy)
        dh, *others, dbranch = branch_backward(dh, *told)
        dx, dnorm = norm_backward(dh)
        return dy + dx, *others, dbranch, dnorm, dafter                 # the skip, plus the branch

    return x + h, backward


def _post_norm(x: NDArray, branch: Callable, norm: Module, alpha: float) -> tuple[NDArray, Callable]:
    """y = norm(α · x + branch(x)); what the backward gets beside dy is the branch's."""
    h, branch_backward = branch(x)
    y, norm_backward = norm.forward(alpha * x + h)

    def backward(dy, *told):
        dsum, dnorm = norm_backward(dy)
        dx, *others, dbranch = branch_backward(dsum, *told)
        return alpha * dsum + dx, *others, dbranch, dnorm, None         # the skip, plus the branch

    return y, backward


def _parallel(x: NDArray, norm: Module, attend: Callable, feed: Callable) -> tuple[NDArray, Callable]:
    """y = x + attend(h) + feed(h),  with  h = norm(x)."""
    h, norm_backward = norm.forward(x)
    attended, attn_backward = attend(h)
    fed, mlp_backward = feed(h)

    def backward(dy, dlogits=()):
        dh_by_attn, _, dbias, dattn = attn_backward(dy)
        dh_by_mlp, dmlp = mlp_backward(dy, dlogits)
        dx, dnorm = norm_backward(dh_by_attn + dh_by_mlp)
        return dy + dx, dbias, {"norm1": dnorm, "attn": dattn, "mlp": dmlp}

    return x + attended + fed, backward


def _then_dropout(branch: Callable, p: float, noise: Noise | None) -> Callable:
    """h -> dropout(branch(h)); backward: dy -> what the branch's own returns."""
    def forward(h):
        h, branch_backward = branch(h)
        h, dropout_backward = dropout(h, p=p, noise=noise)
        return h, lambda dy, *told: branch_backward(dropout_backward(dy), *told)

    return forward


def _make_norm(norm: str, d_model: int, eps: float, bias: bool, dtype: DTypeLike) -> Module:
    return LayerNorm(d_model, eps=eps, bias=bias, dtype=dtype) if norm == "layer" else RMSNorm(d_model, eps=eps, dtype=dtype)


def _normalise(norm: Module | None, x: NDArray) -> tuple[NDArray, Callable]:
    """norm(x), or x itself where there is no norm; backward: dy -> dx, and the norm's gradients or None."""
    return (x, lambda dy: (dy, None)) if norm is None else norm.forward(x)


def _present(**grads: Any) -> Grads:
    """The gradients of the children that there are."""
    return {name: grad for name, grad in grads.items() if grad is not None}


def _start_deepnorm(block: Module, beta: float, rng: np.random.Generator | None) -> None:
    """Xavier weights, smaller by β where a branch's output is linear in them. (q_proj and k_proj only move it between values.)"""
    for name, array in block.state_dict().items():
        if name.endswith("proj.weight"):
            gain = 1 if name.endswith(("q_proj.weight", "k_proj.weight")) else beta
            array[...] = xavier_normal(array.shape, gain=gain, dtype=array.dtype, rng=rng)
