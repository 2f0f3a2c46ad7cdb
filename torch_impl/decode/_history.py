"""The tokens that stand before the next one, as the rules that look back need them."""

import torch
from torch import Tensor

from byhand.checks import booleans, exact_rank, floats, given, ids_below, of_dtype, same_shape


def history_of(function: str, logits: Tensor, history: Tensor, real: Tensor | None) -> Tensor:
    """Check logits (N, V), history (N, L) and real (N, L); return the history with V, an id that is none, for what is padding."""
    given(function, logits=logits, history=history)
    floats(function, logits=logits)
    exact_rank(function, 2, logits=logits, history=history)
    of_dtype(function, "int64", history=history)
    same_shape(function, (logits.shape[0], history.shape[1]), history=history)
    booleans(function, real=real)
    same_shape(function, tuple(history.shape), real=real)
    vocabulary = logits.shape[-1]
    if history.device.type == "cpu":
        ids_below(function, vocabulary, history=history if real is None else history[real])
    return history if real is None else history.masked_fill(~real, vocabulary)


def seen(history: Tensor, logits: Tensor) -> Tensor:
    """(N, V): which tokens stand in each row of a history of `history_of`."""
    n, vocabulary = logits.shape
    return torch.zeros(n, vocabulary + 1, dtype=torch.bool, device=logits.device).scatter_(1, history, True)[:, :vocabulary]


def behind_padding(history: Tensor, logits: Tensor) -> Tensor:
    """The history with every row's padding in front: what follows one another stands side by side, and the newest is the last."""
    return history.gather(1, (history < logits.shape[1]).int().sort(dim=1, stable=True).indices)
