"""Attention that reads a learned prefix before the text (Li & Liang 2021, arXiv:2101.00190)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, booleans, broadcastable, exact_rank, floats, same_shape
from byhand.noise import Noise
from torch_impl.attention.grouped_query import grouped_query_attention
from torch_impl.attention.scaled_dot_product import Kernel
from torch_impl.attention.sinks import sink_attention


def prefix_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_key: Tensor,
    prefix_value: Tensor,
    bias: Tensor | None = None,
    sinks: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y = attention(query, prefix_key ‖ key, prefix_value ‖ value):  every query sees the N entries of the prefix, which no mask hides.

    query (..., H, T, E), key (..., K, S, E), value (..., K, S, W), prefix_key (K, N, E), prefix_value (K, N, W), bias and mask broadcast to
    (..., H, T, S), sinks (H,) -> y (..., H, T, W). `kernel` is that of `grouped_query_attention`, or of `sink_attention` with sinks.
    """
    who = "prefix_attention"
    floats(who, query=query, key=key, value=value, prefix_key=prefix_key, prefix_value=prefix_value, bias=bias, sinks=sinks)
    at_least_rank(who, 3, query=query, key=key, value=value)
    exact_rank(who, 3, prefix_key=prefix_key, prefix_value=prefix_value)
    *lead, k, s, _ = key.shape
    n = prefix_key.shape[-2]
    same_shape(who, (k, n, key.shape[-1]), prefix_key=prefix_key)
    same_shape(who, (k, n, value.shape[-1]), prefix_value=prefix_value)
    booleans(who, mask=mask)
    broadcastable(who, (*query.shape[:-1], s), bias=bias, mask=mask)

    keys = torch.cat([prefix_key.expand(*lead, *prefix_key.shape), key], -2)  # (..., K, N + S, E)
    values = torch.cat([prefix_value.expand(*lead, *prefix_value.shape), value], -2)
    if bias is not None:
        bias = F.pad(bias.expand(*bias.shape[:-1], s), (n, 0))
    if mask is not None:
        mask = F.pad(mask.expand(*mask.shape[:-1], s), (n, 0), value=True)
    options: dict[str, Any] = dict(mask=mask, causal=causal, scale=scale, soft_cap=soft_cap, dropout=dropout, noise=noise, kernel=kernel)
    if sinks is None:
        return grouped_query_attention(query, keys, values, bias, **options)
    return sink_attention(query, keys, values, sinks, bias, **options)
