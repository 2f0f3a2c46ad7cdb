"""Flash attention over packed sequences: documents of any length end to end, none of which sees another (Dao 2023, arXiv:2307.08691)."""

import torch
from torch import Tensor

from byhand.checks import cumulative, demand
from byhand.noise import Noise
from torch_impl.attention._kernels import (
    Call,
    Kernel,
    Window,
    checked,
    choose,
    flash_attn,
    flash_attn_options,
    run_dense,
    run_flex,
    sight,
)


def flash_attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor | None = None,
    causal: bool = False,
    window: Window = (None, None),
    scale: float | None = None,
    soft_cap: float | None = None,
    alibi_slopes: Tensor | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    tile: int | tuple[int, int] | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y = flash_attention of each document's queries, keys and values, the documents lying end to end.

    query (..., T, E), key (..., S, E), value (..., S, W), cu_seqlens_q and cu_seqlens_k (D + 1,) integers from 0 to T and to S
    -> y (..., T, W). `kernel` as in flash_attention; "math" and "sdpa" hide the other documents behind a mask of T × S entries.
    """
    who = "flash_attention_varlen"
    scale = checked(who, query, key, value, window, scale, soft_cap, alibi_slopes, dropout, tile)
    cu_seqlens_k = cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k
    cumulative(who, query.shape[-2], cu_seqlens_q=cu_seqlens_q)
    cumulative(who, key.shape[-2], cu_seqlens_k=cu_seqlens_k)
    demand(who, len(cu_seqlens_q) == len(cu_seqlens_k), "as many documents of queries as of keys",
           cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)

    ends_q, ends_k = (ends.to(query.device, torch.int64) for ends in (cu_seqlens_q, cu_seqlens_k))
    lengths = ends_q.diff()
    start, stop, end = (bound.repeat_interleave(lengths) for bound in (ends_k[:-1], ends_k[1:], ends_q[1:]))     # (T,)
    place = torch.arange(query.shape[-2], device=query.device) + (stop - end)
    low, high = sight(place, start, stop, causal, window)
    call = Call(query, key, value, place, low, high, True, causal, tuple(window), scale, soft_cap, alibi_slopes, dropout, noise)
    match choose(who, kernel, call):
        case "flash_attn":  # pragma: no cuda
            left, right = (-1 if reach is None else min(int(reach), query.shape[-2] + key.shape[-2]) for reach in window)
            # (..., T, E) -> (T, heads, E): leading axes are heads to a kernel that knows packed sequences but no batch.
            flat = [x.reshape(-1, *x.shape[-2:]).transpose(0, 1) for x in (query, key, value)]
            options = flash_attn_options(call)
            if options["alibi_slopes"] is not None:
                options["alibi_slopes"] = options["alibi_slopes"].expand(query.shape[:-2]).reshape(-1)
            y = flash_attn("flash_attn_varlen_func")(
                *flat, cu_seqlens_q=ends_q.int(), cu_seqlens_k=ends_k.int(), max_seqlen_q=int(lengths.max()),
                max_seqlen_k=int(ends_k.diff().max()), causal=causal, window_size=(left, right), **options,
            )
            return y.transpose(0, 1).reshape(*query.shape[:-1], value.shape[-1])
        case "flex":
            return run_flex(call)
        case dense:
            return run_dense(dense, call)
