"""Attention by blocks: global, window and random ones (BigBird: Zaheer et al. 2020, arXiv:2007.14062, section 2 and appendix D)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, choice, demand, floats, in_range, positive, same_shape, size
from byhand.noise import Noise
from torch_impl.attention._flex import demand_flex, flex
from torch_impl.ops.random_bits import random_bits

Kernel = Literal["auto", "math", "sdpa", "flex"]


def block_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    block: int = 64,
    global_blocks: int = 2,
    window_blocks: int = 1,
    random_blocks: int = 3,
    seed: int = 0,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """y = P · value,  with  P = softmax(cap(scale · query · keyᵀ))  over the keys in the blocks that the query's block sees.

    query (..., T, E), key (..., S, E), value (..., S, W) -> y (..., T, W). The last query stands beside the last key; which block sees
    which is `block_pattern`'s table. A query that sees nothing gives y = 0 and passes no gradient.

    `kernel` is ``"math"`` (blocks gathered, written out), ``"sdpa"`` (blocks gathered, through PyTorch's fused kernels, which know no soft
    cap: a ValueError), ``"flex"`` (FlexAttention: compiled for CUDA; on a CPU it has no gradients: a ValueError) or ``"auto"`` (sdpa where
    it can; in float64, which is for checking, math).
    """
    who = "block_attention"
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    size(who, block=block)
    _drawable(who, seed, global_blocks=global_blocks, window_blocks=window_blocks, random_blocks=random_blocks)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    choice(who, ("auto", "math", "sdpa", "flex"), kernel=kernel)
    demand(who, soft_cap is None or kernel != "sdpa", "kernel 'math', 'flex' or 'auto' with a soft cap", kernel=kernel)

    longest = max(t, s)
    n, no_queries, no_keys = -(-longest // block), longest - t, longest - s
    pattern = block_pattern(n, global_blocks=global_blocks, window_blocks=window_blocks, random_blocks=random_blocks, seed=seed,
                            causal=causal, device=query.device)
    if kernel == "flex":
        demand_flex(who, query, key, value)

        def sees(a: Tensor, b: Tensor) -> Tensor:
            a, b = a + no_queries, b + no_keys
            return pattern[a // block, b // block] & ((a >= b) | (not causal))

        return flex(query, key, value, sees=sees, scale=scale, soft_cap=soft_cap)

    fused = kernel == "sdpa" or (kernel == "auto" and soft_cap is None and query.dtype != torch.float64)
    queries = _blocks(query, no_queries, n, block)
    # Block n, beside the sequence, is of zeros that nobody sees. It fills up the rows that see fewer blocks than others.
    keys, values = (_blocks(x, no_keys, n + 1, block) for x in (key, value))
    first = no_queries // block
    whole = 0 if causal else min(global_blocks, n)  # rows that see every block, unlike the rest
    done = []
    for begin, end in ((first, max(whole, first)), (max(whole, first), n)):
        most = int(pattern[begin:end].sum(-1).max()) if end > begin else 0
        seen = torch.where(pattern, torch.arange(n, device=query.device), n)[begin:end].sort(-1).values[:, :most]  # (rows, m)
        hidden = _hidden(seen, begin, block, longest, no_keys, causal)
        k, v = (x[..., seen, :, :].flatten(-3, -2) for x in (keys, values))  # (..., rows, m · block, E or W)
        done.append(_attend(queries[..., begin:end, :, :], k, v, hidden, scale, soft_cap, fused))
    y = torch.cat(done, -3).flatten(-3, -2)
    return y[..., no_queries - first * block:, :][..., :t, :]


def block_pattern(
    blocks: int,
    *,
    global_blocks: int = 2,
    window_blocks: int = 1,
    random_blocks: int = 3,
    seed: int = 0,
    causal: bool = False,
    device: torch.device | str | None = None,
) -> Tensor:
    """pattern[i, j] = block i of the queries sees block j of the keys: i or j is global, |i − j| ≤ window, or j was drawn for i.

    -> (blocks, blocks) booleans, NumPy's, bit by bit. Drawn are the `random_blocks` blocks with the smallest words of random bits among
    those that i does not see otherwise; if causal, j ≤ i besides, and the pattern of fewer blocks is a corner of that of more.
    """
    who = "block_pattern"
    size(who, at_least=0, blocks=blocks)
    _drawable(who, seed, global_blocks=global_blocks, window_blocks=window_blocks, random_blocks=random_blocks)
    j = torch.arange(blocks, device=device)
    i = j[:, None]
    pattern = (i < global_blocks) | (j < global_blocks) | ((i - j).abs() <= window_blocks)
    shell = torch.where(j <= i, i * i + j, j * j + j + 1 + i)
    words = random_bits(Noise(seed), (blocks * blocks,), device=device).double()[shell]
    future = (i < j) & causal
    order = words.masked_fill(pattern | future, math.inf).argsort(dim=1, stable=True)
    return pattern.scatter(1, order[:, :random_blocks], True) & ~future


def _drawable(who: str, seed: int, **counts: int) -> None:
    """Raise what block_attention and block_pattern must: counts of blocks that are counts, and a seed."""
    size(who, at_least=0, **counts)
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    demand(who, whole and 0 <= seed < 2**64, "seed as an integer in [0, 2^64)", seed=seed)


def _blocks(x: Tensor, before: int, n: int, block: int) -> Tensor:
    """(..., N, D) -> (..., n, block, D), with `before` positions of zeros before the first one, and more after the last."""
    return F.pad(x, (0, 0, before, n * block - before - x.shape[-2])).unflatten(-2, (n, block))


def _hidden(seen: Tensor, begin: int, block: int, longest: int, no_keys: int, causal: bool) -> Tensor:
    """(rows, block, m · block) booleans: what of the gathered blocks is no key, or stands after the query."""
    inside = torch.arange(block, device=seen.device)
    keys_at = (seen[..., None] * block + inside).flatten(-2)[:, None]  # (rows, 1, m · block)
    hidden = (keys_at < no_keys) | (keys_at >= longest)
    if causal:
        rows = torch.arange(begin, begin + len(seen), device=seen.device)
        hidden = hidden | (keys_at > (rows[:, None] * block + inside)[..., None])
    return hidden.expand(-1, block, -1)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, scale: float, soft_cap: float | None, fused: bool
) -> Tensor:
    """softmax(cap(scale · query · keyᵀ)) · value, row of blocks by row of blocks; nothing comes of seeing nothing."""
    if fused:
        blind = hidden.all(-1, keepdim=True)
        q, k, v = (x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]) for x in (query, key, value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden | blind, scale=scale).masked_fill(blind, 0)
        return y.reshape(*query.shape[:-1], value.shape[-1])
    scores = (query * scale) @ key.mT
    if soft_cap is not None:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    scores = scores.masked_fill(hidden, -math.inf)
    blind = (scores == -math.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0) @ value
