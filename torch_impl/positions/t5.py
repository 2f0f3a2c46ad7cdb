"""T5's relative positions: one learned number per head and bucket of distances (Raffel et al. 2020, arXiv:1910.10683, section 2.1)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import exact_rank, floats, size


def t5_buckets(
    *,
    queries: int,
    keys: int,
    bidirectional: bool = True,
    buckets: int = 32,
    max_distance: int = 128,
    device: torch.device | str | None = None,
) -> Tensor:
    """bucket[t, s] = f(d)  of the distance  d = t + S − T − s  from a query back to a key  -> (T, S) int64.

    f is exact for small distances and logarithmic for larger ones, up to max_distance; in both directions half of the buckets are for each.
    """
    size("t5_buckets", at_least=0, queries=queries, keys=keys)
    return _buckets("t5_buckets", queries, keys, bidirectional, buckets, max_distance, device)


def t5_bias(table: Tensor, *, queries: int, keys: int, bidirectional: bool = True, max_distance: int = 128) -> Tensor:
    """bias[h, t, s] = table[bucket[t, s], h],  with the buckets of `t5_buckets`.  table (buckets, H) -> (H, T, S)."""
    floats("t5_bias", table=table)
    exact_rank("t5_bias", 2, table=table)
    size("t5_bias", at_least=0, queries=queries, keys=keys)
    bucket = _buckets("t5_bias", queries, keys, bidirectional, table.shape[0], max_distance, table.device)
    return F.embedding(bucket, table).permute(2, 0, 1)


def _buckets(
    who: str, queries: int, keys: int, bidirectional: bool, buckets: int, max_distance: int, device: torch.device | str | None
) -> Tensor:
    size(who, at_least=4 if bidirectional else 2, buckets=buckets)
    n = buckets // 2 if bidirectional else buckets
    exact = n // 2
    size(who, at_least=exact + 1, max_distance=max_distance)
    ahead = torch.arange(1 - keys, max(queries, 1 - keys), device=device)    # every distance there is: (T + S − 1,)
    distance = ahead.abs() if bidirectional else (-ahead).clamp(min=0)
    # Where the formula gives a whole number, rounding must not take it below: hence 1e-9.
    steps = (distance.double() / exact).log() * ((n - exact) / math.log(max_distance / exact))
    coarse = exact + (steps + 1e-9).clamp(0, n - 1 - exact).long()
    bucket = torch.where(distance < exact, distance, coarse)
    bucket = bucket + n * (ahead > 0) if bidirectional else bucket
    if not queries or not keys:
        return bucket.new_empty(queries, keys)
    return bucket.unfold(0, keys, 1).flip(0)                           # a window of S; one step on is one query back
