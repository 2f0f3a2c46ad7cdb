"""InfoNCE: each query must find its own key among those of the whole batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import demand, exact_rank, floats, positive, same_shape


def info_nce(query: Tensor, key: Tensor, *, temperature: float = 0.07, symmetric: bool = False) -> Tensor:
    """loss = −(1/N) Σ_n log softmax(query_n · keysᵀ / τ)_n, or the mean of it in both directions.  query (N, D), key (N, D) -> ()."""
    floats("info_nce", query=query, key=key)
    exact_rank("info_nce", 2, query=query)
    same_shape("info_nce", query.shape, key=key)
    demand("info_nce", len(query) > 0, "at least one row", query=query)
    positive("info_nce", temperature=temperature)
    own = torch.arange(len(query), device=query.device)
    logits = query @ key.T / temperature
    if not symmetric:
        return F.cross_entropy(logits, own)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
