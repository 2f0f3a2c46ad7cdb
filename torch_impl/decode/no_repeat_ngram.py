"""No n-gram twice (Paulus, Xiong & Socher 2017, arXiv:1705.04304)."""

import torch
from torch import Tensor

from byhand.checks import size as size_of
from torch_impl.decode._history import behind_padding, history_of, seen


@torch.no_grad()
def no_repeat_ngram(logits: Tensor, *, history: Tensor, size: int, real: Tensor | None = None) -> Tensor:
    """yᵢ = −∞ if the history's last size − 1 tokens and i make a run of tokens that stands in the history,  logitsᵢ elsewhere.

    logits (N, V), history (N, L) int64, real (N, L) booleans, False for padding -> y (N, V).
    """
    size_of("no_repeat_ngram", size=size)
    size = int(size)
    history = behind_padding(history_of("no_repeat_ngram", logits, history, real), logits)
    vocabulary, length = logits.shape[1], history.shape[1]
    if length < size:
        return logits.clone()
    runs = history.unfold(1, size, 1)                                            # (N, L − n + 1, n)
    again = (runs[..., :-1] == history[:, None, length - size + 1:]).all(-1) & (runs[..., 0] < vocabulary)
    return logits.masked_fill(seen(runs[..., -1].masked_fill(~again, vocabulary), logits), -torch.inf)
