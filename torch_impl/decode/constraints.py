"""What must not come, and what must: banned words, suppressed tokens, a forced one."""

import torch
from torch import Tensor

from byhand.checks import at_least_rank, demand, floats, size
from torch_impl.decode._history import behind_padding, history_of, seen


@torch.no_grad()
def ban_words(logits: Tensor, *, history: Tensor, words: tuple[tuple[int, ...], ...], real: Tensor | None = None) -> Tensor:
    """yᵢ = −∞ if i is the last token of a word whose others are the history's last,  logitsᵢ elsewhere.

    logits (N, V), history (N, L) int64, real (N, L) booleans, False for padding -> y (N, V).
    """
    history = history_of("ban_words", logits, history, real)
    demand("ban_words", isinstance(words, (tuple, list)) and all(words), "words as a tuple of tuples of ids, none empty", words=words)
    words = tuple(_inside("ban_words", logits.shape[1], words=word) for word in words)
    history = behind_padding(history, logits)
    y = logits.clone()
    for length in sorted({len(word) for word in words}):
        if length - 1 <= history.shape[1]:
            group = torch.tensor([word for word in words if len(word) == length], device=history.device)    # (W, length)
            begun = (history[:, None, history.shape[1] - (length - 1):] == group[:, :-1]).all(-1)           # (N, W); padding is no id
            y.masked_fill_(seen(torch.where(begun, group[:, -1], logits.shape[1]), logits), -torch.inf)
    return y


@torch.no_grad()
def force_token(logits: Tensor, *, token: int) -> Tensor:
    """yᵢ = 0 for the token,  −∞ for all others:  the logarithm of a certainty, whatever the logits were.

    logits (..., V) -> y (..., V).
    """
    floats("force_token", logits=logits)
    at_least_rank("force_token", 1, logits=logits)
    (token,) = _inside("force_token", logits.shape[-1], token=(token,))
    y = torch.full_like(logits, -torch.inf)
    y[..., token] = 0
    return y


@torch.no_grad()
def suppress(logits: Tensor, *, tokens: tuple[int, ...]) -> Tensor:
    """yᵢ = −∞ for each of the tokens,  logitsᵢ elsewhere.

    logits (..., V) -> y (..., V).
    """
    floats("suppress", logits=logits)
    at_least_rank("suppress", 1, logits=logits)
    tokens = _inside("suppress", logits.shape[-1], tokens=tokens)
    y = logits.clone()
    y[..., list(tokens)] = -torch.inf
    return y


def _inside(function: str, vocabulary: int, **ids: tuple[int, ...]) -> tuple[int, ...]:
    """The one value as a tuple of ids of the vocabulary."""
    ((name, tokens),) = ids.items()
    demand(function, isinstance(tokens, (tuple, list)), f"{name} as a tuple of ids", **{name: tokens})
    for token in tokens:
        size(function, at_least=0, **{name: token})
        demand(function, int(token) < vocabulary, f"{name} below the vocabulary of {vocabulary}", **{name: token})
    return tuple(int(token) for token in tokens)
