"""Softmax, its logarithm, and the log-sum-exp they share: along any axis, with a mask, softmax and its logarithm at any temperature."""

import torch
from torch import Tensor

from byhand.checks import at_least_rank, axis_of, booleans, broadcastable, floats, positive


def softmax(x: Tensor, *, axis: int = -1, mask: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """yᵢ = exp(zᵢ) / Σⱼ exp(zⱼ)  along an axis,  with  z = x / temperature  where the mask keeps and −∞ where it drops.

    x any shape, mask boolean and broadcasting to x -> y like x. Where the mask drops everything along the axis, y and its gradient are 0.
    """
    axis = _checked("softmax", x, axis, mask)
    positive("softmax", temperature=temperature)
    z = x if temperature == 1 else x / temperature
    if mask is None:
        return torch.softmax(z, axis)
    z, _ = _masked(z, mask, axis)
    return torch.softmax(z, axis).masked_fill(~mask, 0)


def log_softmax(x: Tensor, *, axis: int = -1, mask: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """yᵢ = zᵢ − log Σⱼ exp(zⱼ)  along an axis,  with  z = x / temperature  where the mask keeps and −∞ where it drops.

    x any shape, mask boolean and broadcasting to x -> y like x. Where the mask drops, y is the constant −∞, without gradient.
    """
    axis = _checked("log_softmax", x, axis, mask)
    positive("log_softmax", temperature=temperature)
    z = x if temperature == 1 else x / temperature
    if mask is None:
        return torch.log_softmax(z, axis)
    z, _ = _masked(z, mask, axis)
    return torch.log_softmax(z, axis).masked_fill(~mask, -torch.inf)


def logsumexp(x: Tensor, *, axis: int = -1, mask: Tensor | None = None, keepdims: bool = False) -> Tensor:
    """y = log Σⱼ exp(xⱼ)  along an axis, over the entries that the mask keeps.

    x any shape, mask boolean and broadcasting to x -> x's shape without the axis. −∞, without gradient, where nothing is kept.
    """
    axis = _checked("logsumexp", x, axis, mask)
    if mask is None:
        return torch.logsumexp(x, axis, keepdim=keepdims)
    z, nothing = _masked(x, mask, axis)
    return torch.logsumexp(z, axis, keepdim=keepdims).masked_fill(nothing if keepdims else nothing.squeeze(axis), -torch.inf)


def _checked(name: str, x: Tensor, axis: int, mask: Tensor | None) -> int:
    floats(name, x=x)
    at_least_rank(name, 1, x=x)
    axis = axis_of(name, x.ndim, axis)
    booleans(name, mask=mask)
    broadcastable(name, x.shape, mask=mask)
    return axis


def _masked(z: Tensor, mask: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """z with −∞ where the mask drops, and where along the axis nothing is kept; there z becomes 0, so that no NaN enters the gradient."""
    nothing = ~mask.expand(z.shape).any(axis, keepdim=True)
    return z.masked_fill(~mask, -torch.inf).masked_fill(nothing, 0), nothing
