"""Attention with learned vectors for relative positions (Shaw, Uszkoreit & Vaswani 2018, arXiv:1803.02155)."""

import math

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, floats, in_range, same_shape, size
from byhand.noise import Noise
from torch_impl.attention.attention_weights import attention_weights
from torch_impl.ops.dropout import dropout as random_dropout


def shaw_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_table: Tensor,
    value_table: Tensor | None = None,
    *,
    max_distance: int,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
) -> Tensor:
    """y_t = Σ_s P[t, s] (value_s + b_i),  P = dropout(softmax(scale · query_t · (key_s + a_i))),  i = k + clip(s − (t + S − T), −k, k).

    query (..., T, E), key (..., S, E), value (..., S, W), a = key_table (2k + 1, E), b = value_table (2k + 1, W) or None, k = max_distance,
    mask broadcasts to (..., T, S) -> y (..., T, W). The tables meet queries and probabilities as (..., T, 2k + 1), never as (T, S, E).
    """
    who = "shaw_attention"
    floats(who, query=query, key=key, value=value, key_table=key_table, value_table=value_table)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    size(who, at_least=0, max_distance=max_distance)
    same_shape(who, (2 * max_distance + 1, e), key_table=key_table)
    same_shape(who, (2 * max_distance + 1, w), value_table=value_table)
    booleans(who, mask=mask)
    broadcastable(who, (*lead, t, s), mask=mask)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    in_range(who, 0, 1, dropout=dropout)

    after = torch.arange(s, device=query.device) - torch.arange(s - t, s, device=query.device)[:, None]
    ids = (max_distance + after.clamp(-max_distance, max_distance)).expand(*lead, t, s)
    bias = ((query * scale) @ key_table.mT).gather(-1, ids)
    p = attention_weights(query, key, bias, mask=mask, causal=causal, scale=scale)
    dropped = random_dropout(p, p=dropout, noise=noise)
    y = dropped @ value
    if value_table is None:
        return y
    collected = dropped.new_zeros(*lead, t, 2 * max_distance + 1).scatter_add(-1, ids, dropped)
    return y + collected @ value_table
