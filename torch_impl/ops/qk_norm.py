"""Query-key normalization (Henry et al. 2020, arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442)."""

from typing import NamedTuple

from torch import Tensor

from byhand.checks import at_least_rank, demand, floats, same_shape
from torch_impl.ops.rms_norm import rms_norm


class QKNorm(NamedTuple):
    """Normalised queries and keys."""

    query: Tensor
    key: Tensor


def qk_norm(
    query: Tensor, key: Tensor, query_weight: Tensor | None = None, key_weight: Tensor | None = None, *, eps: float = 1e-6
) -> QKNorm:
    """query ← rms_norm(query, query_weight),  key ← rms_norm(key, key_weight),  each over its head's width D.

    query (..., D), key (..., D), weights (D,) or None -> (query, key), shapes as given.
    """
    floats("qk_norm", query=query, key=key, query_weight=query_weight, key_weight=key_weight)
    at_least_rank("qk_norm", 1, query=query, key=key)
    demand("qk_norm", query.shape[-1] == key.shape[-1], "query and key of one width", query=query, key=key)
    same_shape("qk_norm", query.shape[-1:], query_weight=query_weight, key_weight=key_weight)
    return QKNorm(rms_norm(query, query_weight, eps=eps), rms_norm(key, key_weight, eps=eps))
