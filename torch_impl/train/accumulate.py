"""Gradient accumulation: the gradient of one big batch, from micro-batches that fit into memory one at a time."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from byhand.checks import demand, positive
from byhand.noise import Noise
from torch_impl.layers.stack import Run

IGNORED = -100  # the target that counts neither in the loss nor among the tokens


class Accumulated(NamedTuple):
    """loss () the mean over all tokens; grads its gradients by dotted name; tokens how many there were."""

    loss: Tensor
    grads: dict[str, Tensor]
    tokens: int


def accumulate(
    model: nn.Module, micro_batches: Sequence[tuple[Tensor, Tensor]], *, noise: Noise | None = None, run: Run = "keep",
    loss_scale: float = 1.0,
) -> Accumulated:
    """loss = Σᵢ Σₜ nllᵢₜ / N,  with N the tokens of all micro-batches together; grads = Σᵢ dlossᵢ.

    micro_batches [(ids (B, T), targets (B, T)), …] -> Accumulated. Each graph is freed before the next forward.
    """
    tokens = count_tokens(micro_batches)
    positive("accumulate", loss_scale=loss_scale)
    names, params = zip(*((name, param) for name, param in model.named_parameters() if param.requires_grad), strict=True)
    total_loss: Tensor | None = None
    total: Sequence[Tensor] | None = None
    for i, (ids, targets) in enumerate(micro_batches):
        stream = None if noise is None else dataclasses.replace(noise, step=noise.step + i)
        loss = model.loss(ids, targets, normalizer=tokens, noise=stream, run=run)
        found = torch.autograd.grad(loss * loss_scale, params, allow_unused=True)  # an adapter that is switched off is not used
        grads = [torch.zeros_like(param) if grad is None else grad for param, grad in zip(params, found, strict=True)]
        total_loss = loss.detach() if total_loss is None else total_loss + loss.detach()
        total = grads if total is None else [have + grad for have, grad in zip(total, grads, strict=True)]
    if loss_scale != 1:
        total = [grad / loss_scale for grad in total]
    return Accumulated(total_loss, dict(zip(names, total, strict=True)), tokens)


def count_tokens(batches: Sequence[tuple[Tensor, Tensor]]) -> int:
    """N = Σᵢ Σₜ [targetᵢₜ ≠ −100]: how many targets count, over all the batches."""
    tokens = sum(int((targets != IGNORED).sum()) for _, targets in batches)
    demand("training", tokens > 0, "at least one token to learn from", tokens=tokens)
    return tokens
