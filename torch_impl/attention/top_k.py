"""Top-k attention (Gupta, Dar, Goodman, Ciprut & Berant 2021, arXiv:2106.06899): each query keeps its k best keys and forgets the rest."""

import math

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, choice, demand, floats, in_range, positive, same_shape, size
from byhand.noise import Noise
from torch_impl.attention.attention_weights import attention_weights
from torch_impl.attention.scaled_dot_product import Kernel, scaled_dot_product


def top_k_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    k: int,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y = dropout(P) · value,  with  P = softmax(cap(scale · query · keyᵀ) + bias)  over those keys alone that a query keeps.

    Of the keys that it may see, a query keeps the k with the largest attention weights; of equal weights the one with the lower index. A
    weight that underflows to 0 is not kept. query (..., T, E), key (..., S, E), value (..., S, W), bias and mask broadcast to (..., T, S)
    -> y (..., T, W).

    The table of weights is computed for the choice, without gradient; `kernel` is that of the `scaled_dot_product` over what is kept.
    """
    who = "top_k_attention"
    floats(who, query=query, key=key, value=value, bias=bias)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    size(who, k=k)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), bias=bias, mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    in_range(who, 0, 1, dropout=dropout)
    choice(who, ("auto", "math", "sdpa"), kernel=kernel)
    fits = soft_cap is None and (noise is None or dropout == 0)
    demand(who, fits or kernel != "sdpa", "kernel 'math' or 'auto' with a soft cap or dropout", kernel=kernel)

    if k < s:
        with torch.no_grad():
            weights = attention_weights(query, key, bias, mask=mask, causal=causal, scale=scale, soft_cap=soft_cap)
            mask = _largest(weights, k)
    return scaled_dot_product(
        query, key, value, bias, mask=mask, causal=causal, scale=scale, soft_cap=soft_cap, dropout=dropout, noise=noise, kernel=kernel
    )


def _largest(weights: Tensor, k: int) -> Tensor:
    """Booleans (..., S), True for the k largest weights of each row that are not 0; which of equal ones torch.topk takes is not defined."""
    least = weights.topk(k).values[..., -1:]
    above = ~(weights <= least)  # a row of NaN is kept, and shows
    tied = (weights == least) & (weights > 0)
    room = k - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1) <= room))
