"""The router of a mixture of experts: which experts see a token, and how much each one counts."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, choice, demand, floats, not_nan, positive, same_shape, size
from numpy_impl.moe.top_k import top_k
from numpy_impl.ops.sigmoid import sigmoid
from numpy_impl.ops.softmax import softmax

_TINY = 1e-20   # keeps the sum of scores that have all underflowed from being 0


class Routes(NamedTuple):
    """Where each token goes.

    weights : (..., k)     what the outputs of the chosen experts are multiplied by
    scores : (..., E)      the score of every expert
    ids : (..., k) int64   the chosen experts, best first
    """

    weights: NDArray
    scores: NDArray
    ids: NDArray


def router(
    logits: NDArray,
    *,
    k: int,
    score: Literal["softmax", "sigmoid"] = "softmax",
    before: bool = True,
    renormalise: bool = False,
    scale: float = 1.0,
    by: NDArray | None = None,
    bias: NDArray | None = None,
    groups: int = 1,
    top_groups: int | None = None,
    group_score: Literal["max", "top2"] = "max",
) -> tuple[Routes, Callable]:
    """weightsⱼ = scale · s[idsⱼ] / Σᵢ s[idsᵢ],  with  s = score(logits)  and  ids = the k experts with the largest s + bias.

    The sum is there with `renormalise` alone. Without `before` the score is taken of the k chosen logits only, which for the softmax
    makes the weights sum to 1 as well; `scores` are over all experts either way.

    Parameters
    ----------
    logits : (..., E)   float32 or float64, one an expert; −∞ is a score of 0
    k : int             experts a token, in [1, E]
    score : str         "softmax" over the experts, or "sigmoid" of each
    before : bool       score all experts and choose then (True), or choose first and score the chosen ones alone
    renormalise : bool  divide the chosen scores by their sum
    scale : float > 0   multiplies the weights last
    by : (..., E)       what to choose by in place of the scores: those that `sinkhorn` has evened out, say
    bias : (E,)         added to what is chosen by, and to nothing else (see `balance_bias`)
    groups : int        the experts stand in this many groups of equal size, neighbours together; it divides E
    top_groups : int    a token chooses among the experts of its so many best groups; all by default
    group_score : str   a group is as good as its best expert, "max", or as the sum of its two best, "top2"

    Returns
    -------
    Routes   weights (..., k), scores (..., E), ids (..., k): of equal experts (and groups) the lower one comes first
    backward : dweights (..., k), dscores (..., E) -> dlogits (..., E)   none of it through the choice, which is constant between jumps

    Raises
    ------
    ValueError   if k is above E or above what the best groups hold, groups do not divide E, an option is
                 none, or there is NaN: among logits, bias or by, or among the scores, from a logit of ∞

    References
    ----------
    Shazeer et al. 2017, arXiv:1701.06538; Jiang et al. 2024 (Mixtral), arXiv:2401.04088; groups and bias: DeepSeek-V3 2024,
    arXiv:2412.19437, section 2.1.2

    Examples
    --------
    >>> routes, backward = router(np.log([[1.0, 4.0, 2.0, 1.0]]), k=2, renormalise=True)
    >>> routes.ids, routes.weights.round(4), routes.scores
    (array([[1, 2]]), array([[0.6667, 0.3333]]), array([[0.125, 0.5  , 0.25 , 0.125]]))
    >>> backward(np.array([[1.0, 0.0]]), np.zeros((1, 4))).round(4) + 0.0
    array([[ 0.    ,  0.2222, -0.2222,  0.    ]])
    """
    floats("router", logits=logits)
    floats("router", by=by, bias=bias)
    at_least_rank("router", 1, logits=logits)
    e = logits.shape[-1]
    same_shape("router", logits.shape, by=by)
    same_shape("router", (e,), bias=bias)
    choice("router", ("softmax", "sigmoid"), score=score)
    choice("router", ("max", "top2"), group_score=group_score)
    positive("router", scale=scale)
    size("router", k=k, groups=groups)
    demand("router", e % groups == 0, "groups that divide the number of experts", groups=groups, logits=logits)
    top_groups = groups if top_groups is None else top_groups
    size("router", top_groups=top_groups)
    demand("router", top_groups <= groups, "top_groups of at most groups", top_groups=top_groups, groups=groups)
    demand("router", k <= top_groups * (e // groups), "k of at most the number of experts to choose from", k=k, logits=logits,
           top_groups=top_groups, groups=groups)
    not_nan("router", logits=logits, by=by, bias=bias)

    score_of = softmax if score == "softmax" else sigmoid
    scores, scores_backward = score_of(logits)                               # (..., E)
    not_nan("router", scores=scores)                                         # from a logit of ∞, or from nothing but −∞
    # Scores rise with their logits, so where nothing is added to them the logits make the same choice, and rounding makes no ties there.
    if by is None:
        by = logits if bias is None and (groups == 1 or group_score == "max") else scores
    by = by if bias is None else by + bias                                   # (..., E)
    if top_groups < groups:
        by = _confined(by, groups, top_groups, best=1 if group_score == "max" else 2)
    ids = top_k(by, k=k)                                                     # (..., k)

    if before:
        chosen = np.take_along_axis(scores, ids, -1)                         # (..., k)
    else:
        chosen, chosen_backward = score_of(np.take_along_axis(logits, ids, -1))
    total = chosen.sum(-1, keepdims=True) + _TINY if renormalise else 1      # (..., 1)
    shares = chosen / total

    def backward(dweights, dscores):
        dchosen = dweights * scale
        if renormalise:
            # shareᵢ = cᵢ / t with t = Σ c, so ∂shareᵢ/∂cⱼ = (δᵢⱼ − shareᵢ) / t: the mean of dshare, weighed by the shares, comes off.
            dchosen = (dchosen - (dchosen * shares).sum(-1, keepdims=True)) / total
        if before:
            return scores_backward(dscores + _placed(dchosen, ids, e))
        return scores_backward(dscores) + _placed(chosen_backward(dchosen), ids, e)

    return Routes(shares * scale, scores, ids), backward


def _confined(by: NDArray, groups: int, top_groups: int, best: int) -> NDArray:
    """`by` with −∞ in all groups but the top ones, those whose `best` largest entries sum to most."""
    grouped = by.reshape(*by.shape[:-1], groups, by.shape[-1] // groups)                # (..., groups, E / groups)
    stays = np.zeros(grouped.shape[:-1], bool)
    np.put_along_axis(stays, top_k(np.sort(grouped, -1)[..., -best:].sum(-1), k=top_groups), True, -1)
    # What is −∞ inside a top group is raised above what is outside, so that no choice leaves the group.
    return np.where(stays[..., None], np.maximum(grouped, np.finfo(by.dtype).min), -np.inf).reshape(by.shape)


def _placed(values: NDArray, ids: NDArray, e: int) -> NDArray:
    """(..., E): values at ids, 0 elsewhere. The ids of a token are distinct, so nothing is overwritten."""
    out = np.zeros((*ids.shape[:-1], e), values.dtype)
    np.put_along_axis(out, ids, values, -1)
    return out
