"""Penalties for tokens that have come before: repetition (Keskar et al. 2019, arXiv:1909.05858), frequency and presence (as OpenAI's
completions API defines them)."""

import torch
from torch import Tensor

from byhand.checks import at_least, positive
from torch_impl.decode._history import history_of, seen
from torch_impl.decode._rows import widened


@torch.no_grad()
def repetition_penalty(logits: Tensor, *, history: Tensor, penalty: float, real: Tensor | None = None) -> Tensor:
    """yᵢ = logitsᵢ / θ where positive,  logitsᵢ · θ elsewhere,  if token i stands in the history;  logitsᵢ if not.

    logits (N, V), history (N, L) int64, real (N, L) booleans, False for padding -> y (N, V).
    """
    positive("repetition_penalty", penalty=penalty)
    history = history_of("repetition_penalty", logits, history, real)
    return torch.where(seen(history, logits), torch.where(logits > 0, logits / penalty, logits * penalty), logits)


@torch.no_grad()
def frequency_penalty(logits: Tensor, *, history: Tensor, penalty: float, real: Tensor | None = None) -> Tensor:
    """yᵢ = logitsᵢ − α · (how often token i stands in the history).

    logits (N, V), history (N, L) int64, the tokens generated so far, real (N, L) booleans, False for padding -> y (N, V).
    """
    at_least("frequency_penalty", -1e30, penalty=penalty)
    history = history_of("frequency_penalty", logits, history, real)
    n, vocabulary = logits.shape
    counts = widened(logits.new_zeros(n, vocabulary + 1))  # bfloat16 cannot count beyond 256
    counts.scatter_add_(1, history, counts.new_ones(()).expand(history.shape))
    return (logits - penalty * counts[:, :vocabulary]).to(logits.dtype)


@torch.no_grad()
def presence_penalty(logits: Tensor, *, history: Tensor, penalty: float, real: Tensor | None = None) -> Tensor:
    """yᵢ = logitsᵢ − α if token i stands in the history,  however often;  logitsᵢ if not.

    logits (N, V), history (N, L) int64, the tokens generated so far, real (N, L) booleans, False for padding -> y (N, V).
    """
    at_least("presence_penalty", -1e30, penalty=penalty)
    history = history_of("presence_penalty", logits, history, real)
    return torch.where(seen(history, logits), logits - penalty, logits)
