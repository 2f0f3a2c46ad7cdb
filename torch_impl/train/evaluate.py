"""The loss on text that is not trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torch_impl.train.accumulate import count_tokens


@torch.no_grad()
def evaluate(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Σᵢ Σₜ nllᵢₜ / N,  with N the tokens of all batches together: without dropout, and with nothing kept for a backward."""
    tokens = count_tokens(batches)
    return sum((float(model.loss(ids, targets, normalizer=tokens, run="inference")) for ids, targets in batches), 0.0)
