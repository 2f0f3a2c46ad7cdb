"""Cross-entropy of class ids against logits, with every option that training uses."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, choice, demand, floats, ids_below, in_range, integers, not_negative, positive, same_shape
from numpy_impl.ops._blocks import blocks


def cross_entropy(
    logits: NDArray,
    *,
    targets: NDArray,
    class_weights: NDArray | None = None,
    ignore_index: int = -100,
    reduction: Literal["mean", "sum", "none"] = "mean",
    normalizer: float | None = None,
    label_smoothing: float = 0.0,
    smoothing: Literal["all", "others"] = "all",
    z_loss: float = 0.0,
) -> tuple[NDArray, Callable]:
    """loss = −Σ_c q_c · w_c · log p_c + ζ · lse²,  with  log p = logits − lse,  lse = log Σ_c exp(logits_c),  for each token.

    q is the smoothed target: with ε = label_smoothing, and 1 − ε on the target t,

        smoothing="all":     ε / V more on every class, t among them
        smoothing="others":  ε / (V − 1) on every class but t

    Parameters
    ----------
    logits : (..., V)       float32 or float64
    targets : (...,)        class ids in [0, V), or ignore_index
    class_weights : (V,)    w, a weight for each class, or None for 1
    ignore_index : int      a target of this value does not count: no loss, no gradient
    reduction : str         "none": one loss a token, 0 where the token does not count; "sum": their sum;
                            "mean": their sum divided by Σ w_t over the tokens that count (their number, without class weights)
    normalizer : float      "mean" divides by this instead: the count of a whole batch, when only a part of it is at hand
    label_smoothing : float   ε in [0, 1]
    smoothing : str         "all" (Szegedy et al. 2016) or "others"
    z_loss : float          ζ ≥ 0, keeps lse near 0 so that logits do not drift (PaLM: 1e-4)

    Returns
    -------
    loss : () or, with "none", (...,); the mean over no tokens is NaN
    backward : dloss -> dlogits (..., V)

    Raises
    ------
    ValueError   if shapes do not fit, V is 0, a target is out of range, a number or a name is not among those above, a normalizer comes
                 without "mean", or a dtype differs

    References
    ----------
    Szegedy et al. 2016, arXiv:1512.00567, section 7 (label smoothing); Chowdhery et al. 2022, arXiv:2204.02311, section 5 (z-loss)

    Examples
    --------
    >>> loss, backward = cross_entropy(np.array([[0.0, 0.0], [0.0, np.log(3.0)]]), targets=np.array([0, 1]))
    >>> round(float(loss), 4)
    0.4904
    >>> backward(np.array(1.0))
    array([[-0.25 ,  0.25 ],
           [ 0.125, -0.125]])
    """
    floats("cross_entropy", logits=logits, class_weights=class_weights)
    at_least_rank("cross_entropy", 1, logits=logits)
    v = logits.shape[-1]
    demand("cross_entropy", v > 0, "logits of at least one class", logits=logits)
    integers("cross_entropy", targets=targets)
    same_shape("cross_entropy", logits.shape[:-1], targets=targets)
    same_shape("cross_entropy", (v,), class_weights=class_weights)
    counted = targets != ignore_index                                       # (...,)
    targets = np.where(counted, targets, 0)
    ids_below("cross_entropy", v, targets=targets)
    choice("cross_entropy", ("mean", "sum", "none"), reduction=reduction)
    in_range("cross_entropy", 0, 1, label_smoothing=label_smoothing)
    choice("cross_entropy", ("all", "others"), smoothing=smoothing)
    not_negative("cross_entropy", z_loss=z_loss)
    if normalizer is not None:
        positive("cross_entropy", normalizer=normalizer)
        demand("cross_entropy", reduction == "mean", "reduction='mean' beside a normalizer", reduction=reduction)

    shape, leading, n = logits.shape, targets.shape, targets.size
    logits, targets, counted = logits.reshape(n, v), targets.reshape(n), counted.reshape(n)
    w = np.ones(v, logits.dtype) if class_weights is None else class_weights
    wt = w[targets]                                                # (N,) the weight of each token's target

    # The smoothed target has two values: `share` on every class, and `sharp` more on the target.
    if smoothing == "all":
        share = label_smoothing / v
        sharp = 1 - label_smoothing
    else:
        share = label_smoothing / max(v - 1, 1)                    # one class alone has no others, but then log p = 0
        sharp = 1 - label_smoothing - share

    ones, each = np.ones((v, 1), logits.dtype), np.arange(n)
    p, lse, loss = np.empty_like(logits), np.empty_like(wt), np.empty_like(wt)
    for rows in blocks(n, v):                                      # as many as fit into the cache
        top = logits[rows].max(1, keepdims=True)                   # taken off, so that exp cannot overflow
        logp = logits[rows] - top
        np.exp(logp, out=p[rows])
        total = p[rows] @ ones                                     # (block, 1): the sum of each row, faster than .sum(1)
        p[rows] /= total
        logp -= np.log(total)
        lse[rows] = (top + np.log(total))[:, 0]
        loss[rows] = -sharp * wt[rows] * logp[each[: len(top)], targets[rows]]
        if label_smoothing:                                        # not at all, rather than 0 · log 0 of a class masked by −inf
            loss[rows] -= share * (logp @ w)
    if z_loss:
        loss += z_loss * lse * lse
    loss = np.where(counted, loss, 0)
    divisor = 1 if reduction != "mean" else normalizer or (wt * counted).sum()
    loss = loss.reshape(leading) if reduction == "none" else np.asarray(loss.sum() / divisor)

    def backward(dloss):
        # With g_c = q_c · w_c and ∂(log p_c)/∂(logits_j) = [c = j] − p_j, the first sum gives  p_j · Σ_c g_c − g_j;
        # ∂lse/∂logits_j = p_j, so the z-loss gives  2 ζ · lse · p_j.  Both have a term along p:
        dtoken = np.where(counted, dloss.reshape(-1) / divisor, 0)             # (N,)
        along_p = dtoken * (sharp * wt + share * w.sum() + 2 * z_loss * lse)   # (N,)
        dlogits = np.empty_like(p)
        for rows in blocks(n, v):
            np.multiply(p[rows], along_p[rows, None], out=dlogits[rows])
            if label_smoothing:
                dlogits[rows] -= dtoken[rows, None] * (share * w)
        dlogits[each, targets] -= dtoken * sharp * wt
        return dlogits.reshape(shape)

    return loss, backward
