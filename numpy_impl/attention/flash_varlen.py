"""Flash attention over packed sequences: documents of any length end to end, none of which sees another (Dao 2023, arXiv:2307.08691).

A batch of documents padded to the longest one spends its time on padding. Packed, they lie one behind the other in one long sequence, and a
list says where each begins. To attention this means one thing: a query sees the keys between two bounds, which are now its document's. By
such bounds flash_attention works already (`low` and `high` in its file, where the derivation stands); here they are made, and a tile that
would lie between two documents is never looked at.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import cumulative, demand
from byhand.noise import Noise
from numpy_impl.attention.flash import Window, _attend, _checked, _sight


def flash_attention_varlen(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    *,
    cu_seqlens_q: NDArray,
    cu_seqlens_k: NDArray | None = None,
    causal: bool = False,
    window: Window = (None, None),
    scale: float | None = None,
    soft_cap: float | None = None,
    alibi_slopes: NDArray | None = None,
    dropout: float = 0.0,
    noise: Noise | None = None,
    tile: int | tuple[int, int] | None = None,
) -> tuple[NDArray, Callable]:
    """y = flash_attention of each document's queries, keys and values, the documents lying end to end.

    Document d holds the queries cu_seqlens_q[d] ≤ i < cu_seqlens_q[d + 1] and the keys cu_seqlens_k[d] ≤ j < cu_seqlens_k[d + 1].

    Parameters
    ----------
    query : (..., T, E)         float32 or float64; T queries of all documents together
    key : (..., S, E)           the same leading axes as query; S keys of all documents together
    value : (..., S, W)         the same leading axes, and a width of its own
    cu_seqlens_q : (D + 1,)     integers: how many queries the first 0, 1, … D documents hold; from 0 to T, never falling
    cu_seqlens_k : (D + 1,)     the same for keys, from 0 to S; that of the queries by default
    causal, window, alibi_slopes    as in flash_attention, within the document: its last query stands beside its last key
    scale, soft_cap, tile       as in flash_attention
    dropout, noise              as in flash_attention, with one word of bits per entry of (..., T, S), between documents too

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue

    A query that sees nothing, as in a document without keys, gives y = 0 and passes no gradient.

    Raises
    ------
    ValueError   as flash_attention does, and if the cumulative lengths do not begin with 0, fall, do not end with T and S, or speak of
                 different numbers of documents

    Examples
    --------
    >>> x, lengths = np.eye(3), np.array([0, 1, 3])            # a document of one token, and one of two
    >>> y, backward = flash_attention_varlen(x, x, x, cu_seqlens_q=lengths, scale=0.0)
    >>> y
    array([[1. , 0. , 0. ],
           [0. , 0.5, 0.5],
           [0. , 0.5, 0.5]])
    """
    who = "flash_attention_varlen"
    scale, tile = _checked(who, query, key, value, window, scale, soft_cap, alibi_slopes, dropout, tile)
    cu_seqlens_k = cu_seqlens_q if cu_seqlens_k is None else cu_seqlens_k
    cumulative(who, query.shape[-2], cu_seqlens_q=cu_seqlens_q)
    cumulative(who, key.shape[-2], cu_seqlens_k=cu_seqlens_k)
    demand(who, len(cu_seqlens_q) == len(cu_seqlens_k), "as many documents of queries as of keys",
           cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)

    lengths = np.diff(cu_seqlens_q)
    start, stop, end = (np.repeat(bound, lengths) for bound in (cu_seqlens_k[:-1], cu_seqlens_k[1:], cu_seqlens_q[1:]))     # (T,)
    place = np.arange(query.shape[-2]) + (stop - end)          # the document's last query, end − 1, stands at its last key, stop − 1
    low, high = _sight(place, start, stop, causal, window)
    return _attend(query, key, value, place, low, high, scale, soft_cap, alibi_slopes, dropout, noise, tile)
