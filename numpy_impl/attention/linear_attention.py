"""Linear attention (Katharopoulos, Vyas, Pappas & Fleuret 2020, arXiv:2006.16236): without softmax, keys and values sum up to a state."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, floats, positive, same_shape

_CHUNK = 64  # queries that are taken together: their products are matrices, and the squares between them stay small


def linear_attention(
    query: NDArray, key: NDArray, value: NDArray, *, causal: bool = False, eps: float = 1e-6
) -> tuple[NDArray, Callable]:
    """y_t = φ(q_t) · Σ_s φ(k_s) v_sᵀ / (φ(q_t) · Σ_s φ(k_s) + ε)  over the keys s that query t may see,  with  φ(x) = elu(x) + 1.

    The weight of a key is a plain product, φ(q_t) · φ(k_s), so the sums over s do not depend on the query: they are a state of E × (W + 1)
    numbers, which a causal query finds as it is after the keys up to its own. Time and memory are linear in T and S.

    Parameters
    ----------
    query : (..., T, E)   float32 or float64
    key : (..., S, E)     the same leading axes as query
    value : (..., S, W)   the same leading axes, and a width of its own
    causal : bool         query t sees keys up to t + S − T: the last query stands beside the last key
    eps : float           ε > 0, added to the sum of a query's weights

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue

    A query that sees nothing gives y = 0 and passes no gradient.

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ or eps is not positive

    Examples
    --------
    >>> query, key, value = np.zeros((3, 1)), np.zeros((3, 1)), np.array([[1.0], [3.0], [8.0]])
    >>> linear_attention(query, key, value, causal=True)[0].round(4).ravel()    # equal weights: the mean of what was seen
    array([1., 2., 4.])
    """
    who = "linear_attention"
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    positive(who, eps=eps)

    phi_q, slope_q = _phi(query)
    phi_k, slope_k = _phi(key)
    # A column of ones beside the values: the same products that sum the weighted values then sum the weights.
    values = np.concatenate([value, np.ones_like(value, shape=(*lead, s, 1))], -1)                   # (..., S, W + 1)

    # A causal query knows three kinds of keys: those before its chunk, which are in the state; those of its chunk up to its own; and
    # those it may not see. Where t ≠ s, the last n of both stand side by side. Without causal nothing does: all keys are "before".
    n = min(t, s) if causal else 0
    first_rows, first_keys = slice(0, t - n), slice(0, s - n)

    state = phi_k[..., first_keys, :].swapaxes(-1, -2) @ values[..., first_keys, :]                  # (..., E, W + 1)
    sums = np.empty_like(values, shape=(*lead, t, w + 1))
    sums[..., first_rows, :] = phi_q[..., first_rows, :] @ state
    for rows, near in _chunks(t, s, n):
        weights = np.tril(phi_q[..., rows, :] @ phi_k[..., near, :].swapaxes(-1, -2))                # (..., chunk, chunk)
        sums[..., rows, :] = phi_q[..., rows, :] @ state + weights @ values[..., near, :]
        state += phi_k[..., near, :].swapaxes(-1, -2) @ values[..., near, :]
    total = sums[..., w:] + eps                                                                      # (..., T, 1)
    y = sums[..., :w] / total

    def backward(dy):
        # y = a / (b + ε), where sums = (a, b):  da = dy / (b + ε),  db = −Σ dy · y / (b + ε).
        dsums = np.concatenate([dy, -np.vecdot(dy, y)[..., None]], -1)                               # (..., T, W + 1)
        dsums /= total
        # sums_t = Σ_s (φ(q_t) · φ(k_s)) values_s. With the weights' own gradients, dweight_ts = dsums_t · values_s:
        #     dφ(q_t) = Σ_s dweight_ts φ(k_s) = (Σ_s φ(k_s) values_sᵀ) dsums_t,      a sum over the keys before t: the state again;
        #     dφ(k_s) = Σ_t dweight_ts φ(q_t) = (Σ_t φ(q_t) dsums_tᵀ) values_s,      a sum over the queries after s: a state that
        #     dvalues_s = Σ_t weight_ts dsums_t = (Σ_t φ(q_t) dsums_tᵀ)ᵀ φ(k_s),     runs backwards, from the last chunk to the first.
        dphi_q, dphi_k, dvalue = np.empty_like(phi_q), np.empty_like(phi_k), np.empty_like(value)
        state = phi_k[..., first_keys, :].swapaxes(-1, -2) @ values[..., first_keys, :]
        dphi_q[..., first_rows, :] = dsums[..., first_rows, :] @ state.swapaxes(-1, -2)
        for rows, near in _chunks(t, s, n):
            weights = np.tril(phi_q[..., rows, :] @ phi_k[..., near, :].swapaxes(-1, -2))            # (..., chunk, chunk)
            dweights = np.tril(dsums[..., rows, :] @ values[..., near, :].swapaxes(-1, -2))
            dphi_q[..., rows, :] = dsums[..., rows, :] @ state.swapaxes(-1, -2) + dweights @ phi_k[..., near, :]
            dphi_k[..., near, :] = dweights.swapaxes(-1, -2) @ phi_q[..., rows, :]
            dvalue[..., near, :] = weights.swapaxes(-1, -2) @ dsums[..., rows, :w]
            state += phi_k[..., near, :].swapaxes(-1, -2) @ values[..., near, :]

        later = np.zeros_like(state)                                                                 # (..., E, W + 1): Σ_t φ(q_t) dsums_tᵀ
        for rows, near in reversed(_chunks(t, s, n)):
            dphi_k[..., near, :] += values[..., near, :] @ later.swapaxes(-1, -2)
            dvalue[..., near, :] += phi_k[..., near, :] @ later[..., :w]
            later += phi_q[..., rows, :].swapaxes(-1, -2) @ dsums[..., rows, :]
        later += phi_q[..., first_rows, :].swapaxes(-1, -2) @ dsums[..., first_rows, :]
        dphi_k[..., first_keys, :] = values[..., first_keys, :] @ later.swapaxes(-1, -2)
        dvalue[..., first_keys, :] = phi_k[..., first_keys, :] @ later[..., :w]
        dphi_q *= slope_q
        dphi_k *= slope_k
        return dphi_q, dphi_k, dvalue

    return y, backward


def _phi(x: NDArray) -> tuple[NDArray, NDArray]:
    """φ(x) = elu(x) + 1, which is eˣ below 0 and x + 1 above, and its slope, eˣ below and 1 above."""
    slope = np.exp(np.minimum(x, 0))
    return slope + np.maximum(x, 0), slope


def _chunks(t: int, s: int, n: int) -> list[tuple[slice, slice]]:
    """(queries, keys) of every chunk: squares along the diagonal on which the last n of both stand."""
    return [(slice(i, i + _CHUNK), slice(i + s - t, i + s - t + _CHUNK)) for i in range(t - n, t, _CHUNK)]
