"""InfoNCE: each query must find its own key among those of the whole batch."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, exact_rank, floats, positive, same_shape
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy


def info_nce(query: NDArray, key: NDArray, *, temperature: float = 0.07, symmetric: bool = False) -> tuple[NDArray, Callable]:
    """loss = −(1/N) Σ_n log softmax(query_n · keysᵀ / τ)_n:  key n is query n's answer, the other keys are its negatives.

    Rows are compared by their inner product as they are given; for cosine similarity, `l2_normalize` them first.

    Parameters
    ----------
    query : (N, D)      float32 or float64
    key : (N, D)        row n belongs to query n
    temperature : float   τ > 0
    symmetric : bool    the mean of this loss and of the one in which each key must find its query (as CLIP does)

    Returns
    -------
    loss : ()
    backward : dloss () -> dquery (N, D), dkey (N, D)

    Raises
    ------
    ValueError   if query and key are not of one shape (N, D) with N ≥ 1, temperature is not positive, or a dtype differs

    References
    ----------
    van den Oord et al. 2018, arXiv:1807.03748; Radford et al. 2021, arXiv:2103.00020 (the symmetric form)

    Examples
    --------
    >>> loss, backward = info_nce(np.eye(2), np.eye(2), temperature=1.0)
    >>> round(float(loss), 4)
    0.3133
    """
    floats("info_nce", query=query, key=key)
    exact_rank("info_nce", 2, query=query)
    same_shape("info_nce", query.shape, key=key)
    demand("info_nce", len(query) > 0, "at least one row", query=query)
    positive("info_nce", temperature=temperature)

    own = np.arange(len(query))
    logits = query @ key.T / temperature                                     # (N, N)
    loss, query_backward = softmax_cross_entropy(logits, targets=own)
    if symmetric:
        key_loss, key_backward = softmax_cross_entropy(logits.T, targets=own)
        loss = np.asarray((loss + key_loss) / 2)

    def backward(dloss):
        if symmetric:
            dlogits = query_backward(dloss / 2) + key_backward(dloss / 2).T
        else:
            dlogits = query_backward(dloss)
        return dlogits @ key / temperature, dlogits.T @ query / temperature

    return loss, backward
