"""Sinkhorn routing: scores in which every expert gets as much as every other (Sinkhorn & Knopp 1967; for routing Clark et al. 2022,
arXiv:2202.01169)."""

import torch
from torch import Tensor

from byhand.checks import demand, exact_rank, floats, not_nan, size


def sinkhorn(logits: Tensor, *, iterations: int = 8) -> Tensor:
    """y_ne = exp(logits_ne + a_n + b_e),  with a and b such that rows sum to 1 and columns to N / E.

    Each of the rounds evens out first the columns, by b, and then the rows, by a. logits (N, E) -> (N, E). Logits in half
    precision are worked on in float32, and the result stays so.
    """
    floats("sinkhorn", logits=logits)
    exact_rank("sinkhorn", 2, logits=logits)
    demand("sinkhorn", logits.shape[1] > 0, "logits of at least one expert", logits=logits)
    size("sinkhorn", iterations=iterations)
    not_nan("sinkhorn", logits=logits)

    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    a = z.new_zeros(len(z), 1)
    for _ in range(iterations):
        b = -torch.logsumexp(z + a, 0)
        a = -torch.logsumexp(z + b, 1, keepdim=True)
    return torch.exp(z + a + b)
