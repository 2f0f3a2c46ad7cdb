"""One update of the weights: accumulate, look whether all is finite, clip, step."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import finite
from byhand.noise import Noise
from numpy_impl.layers.stack import Run
from numpy_impl.optim.clip import clip_by_norm, global_norm
from numpy_impl.train.accumulate import accumulate


class StepMetrics(NamedTuple):
    """What one update was like.

    loss        nats a token, before the update
    lr          the learning rate it took
    grad_norm   √Σ g² over all gradients, before clipping
    param_norm  √Σ w² over all trained parameters, after the update
    loss_scale  what the loss was multiplied by before the backward, and the gradients divided by after it
    tokens      targets that counted
    seconds     wall time
    """

    loss: float
    lr: float
    grad_norm: float
    param_norm: float
    loss_scale: float
    tokens: int
    seconds: float


def train_step(
    model: Any,
    optimizer: Any,
    micro_batches: Sequence[tuple[NDArray, NDArray]],
    *,
    lr: float | None = None,
    max_norm: float | None = None,
    noise: Noise | None = None,
    run: Run = "keep",
    step: int = 0,
    loss_scale: float = 1.0,
) -> StepMetrics:
    """w ← optimizer(w, g · min(1, max_norm / ‖g‖)),  with g the gradient of the mean loss over all tokens.

    Parameters
    ----------
    model, micro_batches, noise, run, loss_scale   as `accumulate` takes them
    optimizer                          over `model.parameters()`
    lr                                 this step's learning rate; None: the optimizer's own
    max_norm                           gradients of a larger global norm are scaled down to it; None: never
    step                               this step's number, for the error

    Returns
    -------
    StepMetrics

    Raises
    ------
    NonFiniteError   if the loss or a gradient is NaN or infinite; then nothing has been updated
    """
    start = time.perf_counter()
    with np.errstate(all="ignore"):  # what overflows is found below, and named
        loss, grads, tokens = accumulate(model, micro_batches, noise=noise, run=run, loss_scale=loss_scale)
    finite("train_step", step, "the loss", math.isfinite(loss))
    for name, grad in grads.items():
        finite("train_step", step, f"the gradient of {name}", bool(np.isfinite(grad).all()))
    grads, grad_norm = (grads, global_norm(grads)) if max_norm is None else clip_by_norm(grads, max_norm=max_norm)
    finite("train_step", step, "the norm of all gradients together", math.isfinite(grad_norm))
    optimizer.step(grads, lr=lr)
    param_norm = global_norm(model.parameters())
    return StepMetrics(
        loss=float(loss), lr=optimizer.lr if lr is None else lr, grad_norm=float(grad_norm), param_norm=float(param_norm),
        loss_scale=loss_scale, tokens=tokens, seconds=time.perf_counter() - start,
    )
