"""The loss on text that is not trained on."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from numpy_impl.train.accumulate import count_tokens


def evaluate(model: Any, batches: Sequence[tuple[NDArray, NDArray]]) -> float:
    """Σᵢ Σₜ nllᵢₜ / N,  with N the tokens of all batches together: without dropout, and with nothing kept for a backward.

    Parameters
    ----------
    model     `loss(ids, targets, *, normalizer, run) -> (loss, None)`
    batches   [(ids (B, T), targets (B, T)), …], integers; a target of -100 is not counted

    Returns
    -------
    loss in nats a token

    Raises
    ------
    ValueError   if there is no token to judge by
    """
    tokens = count_tokens(batches)
    return sum(float(model.loss(ids, targets, normalizer=tokens, run="inference")[0]) for ids, targets in batches)
