"""Query-key normalization: what attention compares has a fixed length, so that its logits cannot grow without bound.

Henry et al. 2020 (arXiv:2010.04245) normalise queries and keys to unit length; Dehghani et al. 2023 (arXiv:2302.05442) use a layer norm
with a learned scale over each head's width. This is the form of today's language models: an RMS norm over each head's width.
"""

from collections.abc import Callable
from typing import NamedTuple

from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, same_shape
from numpy_impl.ops.rms_norm import rms_norm


class QKNorm(NamedTuple):
    """Normalised queries and keys."""

    query: NDArray
    key: NDArray


def qk_norm(
    query: NDArray, key: NDArray, query_weight: NDArray | None = None, key_weight: NDArray | None = None, *, eps: float = 1e-6
) -> tuple[QKNorm, Callable]:
    """query ← rms_norm(query, query_weight),  key ← rms_norm(key, key_weight),  each over its head's width D.

    Parameters
    ----------
    query : (..., D)      queries, one row a head and position: (B, H, T, D), say
    key : (..., D)        keys; their leading axes may differ: (B, K, S, D), say
    query_weight : (D,)   scale of the queries, shared by all heads, or None for 1
    key_weight : (D,)     scale of the keys, or None for 1
    eps : float           ε ≥ 0, added to the mean square inside the root

    Returns
    -------
    (query, key) : as given
    backward : dquery, dkey of the results -> dquery, dkey, dquery_weight or None, dkey_weight or None

    Raises
    ------
    ValueError   if the widths differ or are 0, a weight is not of shape (D,), eps < 0, or an array is not float32 or float64

    Examples
    --------
    >>> import numpy as np
    >>> (query, key), backward = qk_norm(np.array([[3.0, 4.0]]), np.array([[0.6, 0.8]]), eps=0.0)
    >>> query.round(4), key.round(4)
    (array([[0.8485, 1.1314]]), array([[0.8485, 1.1314]]))
    """
    floats("qk_norm", query=query, key=key, query_weight=query_weight, key_weight=key_weight)
    at_least_rank("qk_norm", 1, query=query, key=key)
    demand("qk_norm", query.shape[-1] == key.shape[-1], "query and key of one width", query=query, key=key)
    same_shape("qk_norm", query.shape[-1:], query_weight=query_weight, key_weight=key_weight)

    q, query_backward = rms_norm(query, query_weight, eps=eps)
    k, key_backward = rms_norm(key, key_weight, eps=eps)

    def backward(dquery, dkey):
        dquery, dquery_weight = query_backward(dquery)
        dkey, dkey_weight = key_backward(dkey)
        return dquery, dkey, dquery_weight, dkey_weight

    return QKNorm(q, k), backward
