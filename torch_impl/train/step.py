"""One update of the weights: accumulate, look whether all is finite, clip, step."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from byhand.checks import finite
from byhand.noise import Noise
from torch_impl.layers.stack import Run
from torch_impl.optim.clip import clip_by_norm, global_norm
from torch_impl.train.accumulate import accumulate


class StepMetrics(NamedTuple):
    """What one update was like: loss (nats a token, before it), lr, grad_norm (before clipping), param_norm (after it),
    loss_scale, tokens, seconds."""

    loss: float
    lr: float
    grad_norm: float
    param_norm: float
    loss_scale: float
    tokens: int
    seconds: float


def train_step(
    model: nn.Module,
    optimizer: Any,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    *,
    lr: float | None = None,
    max_norm: float | None = None,
    noise: Noise | None = None,
    run: Run = "keep",
    step: int = 0,
    loss_scale: float = 1.0,
) -> StepMetrics:
    """w ← optimizer(w, g · min(1, max_norm / ‖g‖)),  with g the gradient of the mean loss over all tokens.

    Raises NonFiniteError, before anything is updated, if the loss or a gradient is NaN or infinite.
    """
    start = time.perf_counter()
    loss, grads, tokens = accumulate(model, micro_batches, noise=noise, run=run, loss_scale=loss_scale)
    finite("train_step", step, "the loss", math.isfinite(loss))
    healthy = torch.stack([grad.isfinite().all() for grad in grads.values()]).tolist()  # one transfer from the device for all of them
    for name, holds in zip(grads, healthy, strict=True):
        finite("train_step", step, f"the gradient of {name}", holds)
    grads, grad_norm = (grads, global_norm(grads)) if max_norm is None else clip_by_norm(grads, max_norm=max_norm)
    finite("train_step", step, "the norm of all gradients together", math.isfinite(grad_norm))
    optimizer.step(grads, lr=lr)
    with torch.no_grad():
        param_norm = global_norm({name: param for name, param in model.named_parameters() if param.requires_grad})
    return StepMetrics(
        loss=float(loss), lr=optimizer.lr if lr is None else lr, grad_norm=float(grad_norm), param_norm=float(param_norm),
        loss_scale=loss_scale, tokens=tokens, seconds=time.perf_counter() - start,
    )
