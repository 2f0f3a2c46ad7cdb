"""Transformer-XL's attention: contents and distances are scored apart (Dai et al. 2019, arXiv:1901.02860, section 3.3)."""

import math

from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, choice, demand, floats, in_range, same_shape
from byhand.noise import Noise
from torch_impl.attention.scaled_dot_product import Kernel, scaled_dot_product
from torch_impl.positions.transformer_xl import relative_shift


def transformer_xl_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position_key: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y = dropout(softmax(scores)) · value,  scores[t, s] = scale · ((query_t + u) · key_s + (query_t + v) · r_d)  with  d = t + S − T − s.

    query (..., T, E), key (..., S, E), value (..., S, W), position_key (..., L, E) whose row j is r_d of d = S − 1 − j, u = content_bias
    and v = position_bias (..., E), mask broadcasts to (..., T, S) -> y (..., T, W). L is S + max(T, 1) − 1, or S if causal. `kernel` is
    that of `scaled_dot_product`, which reads the scores of distances as a bias.
    """
    who = "transformer_xl_attention"
    floats(who, query=query, key=key, value=value, position_key=position_key, content_bias=content_bias, position_bias=position_bias)
    at_least_rank(who, 2, query=query, key=key, value=value, position_key=position_key)
    *lead, t, e = query.shape
    s, distances = key.shape[-2], position_key.shape[-2]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, value.shape[-1]), value=value)
    every = distances == s + max(t, 1) - 1 or (causal and distances == s)
    needs = "a position_key for each of S + max(T, 1) − 1 distances, or of S if causal"
    demand(who, every, needs, position_key=position_key, query=query, key=key)
    demand(who, position_key.shape[-1] == e, "query and position_key of one width", query=query, position_key=position_key)
    broadcastable(who, (*lead, distances, e), position_key=position_key)
    at_least_rank(who, 1, content_bias=content_bias, position_bias=position_bias)
    broadcastable(who, (*lead, e), content_bias=content_bias, position_bias=position_bias)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    in_range(who, 0, 1, dropout=dropout)
    choice(who, ("auto", "math", "sdpa"), kernel=kernel)
    drops = noise is not None and dropout > 0
    demand(who, not drops or kernel != "sdpa", "kernel 'math' or 'auto' with dropout", kernel=kernel)

    by_distance = ((query + position_bias[..., None, :]) * scale) @ position_key.mT      # (..., T, L)
    return scaled_dot_product(
        query + content_bias[..., None, :], key, value, relative_shift(by_distance, keys=s),
        mask=mask, causal=causal, scale=scale, dropout=dropout, noise=noise, kernel=kernel,
    )
