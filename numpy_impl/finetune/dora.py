"""Weight-decomposed low-rank adaptation (DoRA; Liu et al. 2024, arXiv:2402.09353): a row's length is trained apart from its direction.

    W'_o = m_o · V_o / ‖V_o‖   with   V = W + s · B A,   row by row,

so that LoRA turns the rows of W and the magnitude m alone says how long they are. m starts at ‖W_o‖, and B at zero: W' starts as W.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, exact_rank, floats, in_range, same_shape
from numpy_impl.ops._blocks import blocks

Strips = Callable[[], Iterable[tuple[slice, NDArray]]]


def dora_norm(lora_A: NDArray, lora_B: NDArray, *, weight: NDArray | Strips, scaling: float) -> tuple[NDArray, Callable]:
    """n_o = ‖V_o‖ = √(Σ_i V_oi²),  with  V = W + s · B A:  the length of every row of the moved weight.

    V is formed strip by strip, in the forward and again in the backward. (n² = ‖W‖² + 2s (W Aᵀ) ∘ B + s² B (A Aᵀ) Bᵀ, row sums
    understood, would spare V; but where B A nearly cancels W, the three terms cancel too, and in float32 nothing is left of n.)

    Parameters
    ----------
    lora_A : (R, I)     A
    lora_B : (O, R)     B
    weight : (O, I)     W, a constant; or, for a W that is not there as a whole, a function that goes through it: each call yields
                        (rows, W[rows]), from the first row to the last
    scaling : float     s, of `lora_scaling`

    Returns
    -------
    n : (O,)
    backward : dn (O,) -> dA (R, I), dB (O, R); a row of zeros has no direction and gets no gradient

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ or are not float32 or float64, or scaling is not finite

    Examples
    --------
    >>> norm, backward = dora_norm(np.array([[1.0, 0.0]]), np.array([[1.0], [0.0]]), weight=np.array([[1.0, 4.0], [6.0, 8.0]]), scaling=2.0)
    >>> norm
    array([ 5., 10.])
    >>> dA, dB = backward(np.array([1.0, 0.0]))
    >>> dA, dB.ravel()
    (array([[1.2, 1.6]]), array([1.2, 0. ]))
    """
    whole = None if callable(weight) else weight
    floats("dora_norm", lora_A=lora_A, lora_B=lora_B, weight=whole)
    exact_rank("dora_norm", 2, lora_A=lora_A, lora_B=lora_B, weight=whole)
    same_shape("dora_norm", (lora_B.shape[0], lora_A.shape[0]), lora_B=lora_B)
    same_shape("dora_norm", (lora_B.shape[0], lora_A.shape[1]), weight=whole)
    in_range("dora_norm", -1e30, 1e30, scaling=scaling)

    scaled = lora_A * float(scaling)                                    # (R, I)

    def moved():
        for rows, part in _strips(weight):
            v = lora_B[rows] @ scaled                                   # (strip, I)
            v += part
            yield rows, v

    norm = np.empty(len(lora_B), lora_B.dtype)
    for rows, v in moved():
        np.sqrt(np.vecdot(v, v), out=norm[rows])

    def backward(dn):
        # n_o = √(V_o · V_o), so dV_o = dn_o · V_o / n_o: the direction of the row. From there as for any product:
        # dA = s Bᵀ dV,  dB = s dV Aᵀ,  summed over the strips of O, each of which has rows of dB of its own.
        dlora_A, dlora_B = np.zeros_like(lora_A), np.empty_like(lora_B)
        along = _over(dn, norm)
        for rows, dv in moved():
            dv *= along[rows, None]
            dlora_A += lora_B[rows].T @ dv
            np.matmul(dv, scaled.T, out=dlora_B[rows])
        dlora_A *= scaling
        return dlora_A, dlora_B

    return norm, backward


def dora_delta(plain: NDArray, low_rank: NDArray, magnitude: NDArray, norm: NDArray) -> tuple[NDArray, Callable]:
    """Δ = g ∘ (u + v) − u,  with  g = m / n:  what DoRA adds to the output of a frozen layer.

    u = x Wᵀ and v = s · x Aᵀ Bᵀ make u + v = x Vᵀ, and g ∘ x Vᵀ is x W'ᵀ: scaling the outputs is scaling the rows.

    Parameters
    ----------
    plain : (..., O)      u, the frozen layer's output without its bias
    low_rank : (..., O)   v, of `lora_delta`
    magnitude : (O,)      m
    norm : (O,)           n, of `dora_norm`; where it is 0 there is no direction, and g is 0

    Returns
    -------
    Δ : (..., O)
    backward : dy (..., O) -> du (..., O), dv (..., O), dm (O,), dn (O,). Whoever takes n for a constant, as the paper proposes
               (section 4.3, to spare memory at no cost in accuracy), leaves dn aside.

    Raises
    ------
    ValueError   if shapes do not fit, or dtypes differ or are not float32 or float64

    Examples
    --------
    >>> delta, backward = dora_delta(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]), np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    >>> delta
    array([[5., 0.]])
    >>> backward(np.ones((1, 2)))
    (array([[2., 0.]]), array([[3., 1.]]), array([2., 1.]), array([-6., -1.]))
    """
    floats("dora_delta", plain=plain, low_rank=low_rank, magnitude=magnitude, norm=norm)
    at_least_rank("dora_delta", 1, plain=plain)
    same_shape("dora_delta", plain.shape, low_rank=low_rank)
    same_shape("dora_delta", plain.shape[-1:], magnitude=magnitude, norm=norm)

    shape, size = plain.shape, (math.prod(plain.shape[:-1]), plain.shape[-1])
    u, v = plain.reshape(size), low_rank.reshape(size)                  # (N, O)
    factor = _over(magnitude, norm)                                     # (O,), g
    total, delta = np.empty(size, u.dtype), np.empty(size, u.dtype)
    for rows in blocks(*size):
        np.add(u[rows], v[rows], out=total[rows])
        np.multiply(total[rows], factor, out=delta[rows])
        delta[rows] -= u[rows]

    def backward(dy):
        # Δ = g ∘ (u + v) − u:  dv = g ∘ dy,  du = dv − dy,  dg = Σ_n dy ∘ (u + v).
        # g = m / n:  dm = dg / n,  dn = −dg · m / n² = −dm · g.
        dy = dy.reshape(size)
        du, dv, dfactor = np.empty_like(total), np.empty_like(total), np.zeros_like(factor)
        for rows in blocks(*size):
            np.multiply(dy[rows], factor, out=dv[rows])
            np.subtract(dv[rows], dy[rows], out=du[rows])
            dfactor += (dy[rows] * total[rows]).sum(0)
        dmagnitude = _over(dfactor, norm)
        return du.reshape(shape), dv.reshape(shape), dmagnitude, -dmagnitude * factor

    return delta.reshape(shape), backward


def _strips(weight: NDArray | Strips) -> Iterable[tuple[slice, NDArray]]:
    return weight() if callable(weight) else ((rows, weight[rows]) for rows in blocks(*weight.shape))


def _over(a: NDArray, norm: NDArray) -> NDArray:
    """a / norm, and 0 where the norm is."""
    return np.divide(a, norm, out=np.zeros_like(norm), where=norm != 0)
