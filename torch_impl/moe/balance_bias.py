"""Balance without a loss (Wang et al. 2024, arXiv:2408.15664): a bias on each expert, moved by a fixed step towards even use."""

import torch
from torch import Tensor

from byhand.checks import exact_rank, floats, given, integers, not_negative, same_shape


@torch.no_grad()
def balance_bias(bias: Tensor, *, counts: Tensor, rate: float) -> Tensor:
    """bias + rate · sign(mean(counts) − counts):  what was chosen less than the mean is raised, what was chosen more is lowered.

    bias (E,), counts (E,) integers -> (E,), a new tensor without gradient.
    """
    floats("balance_bias", bias=bias)
    exact_rank("balance_bias", 1, bias=bias)
    given("balance_bias", counts=counts)
    integers("balance_bias", counts=counts)
    same_shape("balance_bias", bias.shape, counts=counts)
    not_negative("balance_bias", rate=rate)
    n = counts.long()
    return bias + rate * (n.sum() - len(n) * n).sign().to(bias.dtype)
