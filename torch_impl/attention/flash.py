"""Flash attention: exact attention whose memory grows with T, not with T² (Dao et al. 2022, arXiv:2205.14135; Dao 2023, 2307.08691)."""

import torch
from torch import Tensor

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
    to_flash_attn,
)


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
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
    """y = dropout(P) · value,  with  P = softmax(cap(scale · query · keyᵀ) − slope · |distance|)  over the keys that a query may see.

    query (..., T, E), key (..., S, E), value (..., S, W), alibi_slopes (H,) for axis −3 -> y (..., T, W). A query that sees nothing
    gives y = 0 and passes no gradient.

    `kernel` is ``"math"`` (all T × S probabilities, written out), ``"sdpa"`` (PyTorch's own), ``"flex"`` (FlexAttention),
    ``"flash_attn"`` (the distribution of that name) or ``"auto"``, the best that can. What each can do stands in docs/attention.md;
    one that is named and cannot do what is asked is refused. They choose their own tiles: `tile` is the NumPy side's.
    """
    who = "flash_attention"
    scale = checked(who, query, key, value, window, scale, soft_cap, alibi_slopes, dropout, tile)
    t, s = query.shape[-2], key.shape[-2]
    place = torch.arange(t, device=query.device) + (s - t)
    low, high = sight(place, 0, s, causal, window)
    call = Call(query, key, value, place, low, high, False, causal, tuple(window), scale, soft_cap, alibi_slopes, dropout, noise)
    match choose(who, kernel, call):
        case "flash_attn":  # pragma: no cuda
            left, right = (-1 if reach is None else min(int(reach), query.shape[-2] + key.shape[-2]) for reach in window)
            y = flash_attn("flash_attn_func")(
                *map(to_flash_attn, (query, key, value)), causal=causal, window_size=(left, right), **flash_attn_options(call)
            )
            return y.transpose(1, 2).reshape(*query.shape[:-1], value.shape[-1])
        case "flex":
            return run_flex(call)
        case dense:
            return run_dense(dense, call)
