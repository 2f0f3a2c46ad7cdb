"""Expert choice (Zhou et al. 2022, arXiv:2202.09368): experts choose tokens, so that all of them are equally busy."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import booleans, choice, demand, exact_rank, floats, not_nan, same_shape, size
from numpy_impl.ops.sigmoid import sigmoid
from numpy_impl.ops.softmax import softmax


class Choice(NamedTuple):
    """What each expert takes.

    weights : (E, C)     what the expert's output for the token is multiplied by
    scores : (N, E)      the score of every expert for every token
    ids : (E, C) int64   the chosen tokens, best first
    """

    weights: NDArray
    scores: NDArray
    ids: NDArray


def expert_choice(
    logits: NDArray, *, limit: int, score: Literal["softmax", "sigmoid"] = "softmax", mask: NDArray | None = None
) -> tuple[Choice, Callable]:
    """weights_ec = s[ids_ec, e],  with  s = score(logits)  and  ids_e = the C tokens with the largest s in column e.

    Every expert takes exactly C tokens, so there is nothing to balance; a token may be taken by several experts, or by none. A choice looks
    at all tokens, later ones too: it suits encoders, and in a causal model it lets the future in.

    Parameters
    ----------
    logits : (N, E)   float32 or float64, N tokens by E experts
    limit : int       tokens an expert takes, ≥ 1: C = min(limit, N)
    score : str       "softmax" over the experts of a token, or "sigmoid" of each
    mask : (N,)       booleans, False where a token is padding: it is taken last, with weight 0; None: there is none

    Returns
    -------
    Choice   weights (E, C), scores (N, E), ids (E, C): of equal tokens the lower one comes first
    backward : dweights (E, C), dscores (N, E) -> dlogits (N, E)   none of it through the choice, which is constant between jumps

    Raises
    ------
    ValueError   if logits is not (N, E) of at least one expert, holds NaN or +∞, limit is below 1, or mask is not boolean of shape (N,)

    Examples
    --------
    >>> chosen, backward = expert_choice(np.log([[1.0, 3.0], [1.0, 1.0], [3.0, 1.0]]), limit=2)
    >>> chosen.ids, chosen.weights
    (array([[2, 1],
           [0, 1]]), array([[0.75, 0.5 ],
           [0.75, 0.5 ]]))
    """
    floats("expert_choice", logits=logits)
    exact_rank("expert_choice", 2, logits=logits)
    n, e = logits.shape
    demand("expert_choice", e > 0, "logits of at least one expert", logits=logits)
    size("expert_choice", limit=limit)
    choice("expert_choice", ("softmax", "sigmoid"), score=score)
    booleans("expert_choice", mask=mask)
    same_shape("expert_choice", (n,), mask=mask)
    not_nan("expert_choice", logits=logits)

    scores, scores_backward = (softmax if score == "softmax" else sigmoid)(logits)       # (N, E)
    not_nan("expert_choice", scores=scores)                                              # from a logit of ∞, or from nothing but −∞
    # A sigmoid ranks tokens as the logit does, which knows no ties by rounding; a softmax does not: its sum differs from token to token.
    by = scores if score == "softmax" else logits
    real = np.ones(n, bool) if mask is None else mask
    by = np.where(real, np.maximum(by, np.finfo(by.dtype).min).T, -np.inf)               # (E, N): no real token is as low as padding
    ids = np.argsort(-by, 1, kind="stable")[:, :limit]                                  # (E, C)
    counts = real[ids]                                                                   # (E, C)
    weights = np.where(counts, np.take_along_axis(scores.T, ids, 1), 0)

    def backward(dweights, dscores):
        placed = np.zeros((e, n), dscores.dtype)
        np.put_along_axis(placed, ids, np.where(counts, dweights, 0), 1)     # an expert's tokens are distinct: nothing is overwritten
        return scores_backward(dscores + placed.T)

    return Choice(weights, scores, ids), backward
