"""Low-rank adaptation (LoRA; Hu et al. 2021, arXiv:2106.09685): a frozen weight moves by a product of two thin matrices."""

import math
from collections.abc import Callable

from numpy.typing import NDArray

from byhand.checks import at_least_rank, exact_rank, floats, in_range, same_shape, size
from byhand.noise import Noise
from numpy_impl.ops.dropout import dropout as drop


def lora_scaling(r: int, alpha: float, *, rslora: bool = False) -> float:
    """s = α / r,  or  s = α / √r  with rank stabilization;  0 for r = 0.

    The r products that an entry of B A x sums have independent signs, so that their sum grows like √r. α/√r keeps its size whatever the
    rank; α/r shrinks it with growing rank, which leaves high ranks learning no more than low ones.

    Parameters
    ----------
    r : int          the rank of the update, at least 0; with 0 there is no update
    alpha : float    α, how strongly the update counts; a number in [0, 1e30]
    rslora : bool    whether the root of the rank divides (rsLoRA; Kalajdzievski 2023, arXiv:2312.03732)

    Returns
    -------
    s : float    no gradient

    Raises
    ------
    ValueError   if r is not an integer ≥ 0, or alpha no number in [0, 1e30]

    Examples
    --------
    >>> lora_scaling(16, 32), lora_scaling(16, 32, rslora=True), lora_scaling(0, 32)
    (2.0, 8.0, 0.0)
    """
    size("lora_scaling", at_least=0, r=r)
    in_range("lora_scaling", 0, 1e30, alpha=alpha)
    if r == 0:
        return 0.0
    return float(alpha) / (math.sqrt(r) if rslora else int(r))      # a NumPy scalar would turn float32 into float64


def lora_delta(x: NDArray, lora_A: NDArray, lora_B: NDArray, *, scaling: float, dropout: float = 0.0,
               noise: Noise | None = None) -> tuple[NDArray, Callable]:
    """Δ = s · drop(x) Aᵀ Bᵀ:  what an adapter adds to a frozen x Wᵀ, as if W were W + s · B A.

    The product B A, as large as W, is never formed: x is squeezed to R numbers first, and N·R·(I + O) multiplications do what
    would take N·I·O.

    Parameters
    ----------
    x : (..., I)        inputs, float32 or float64
    lora_A : (R, I)     A, which squeezes; R may be 0 (Δ is then 0) and may exceed I and O
    lora_B : (O, R)     B, which widens again
    scaling : float     s, of `lora_scaling`
    dropout : float     the probability in [0, 1] with which an entry of x is dropped, for the adapter only
    noise : Noise       the stream of the dropout mask; None drops nothing (inference)

    Returns
    -------
    Δ : (..., O)
    backward : dy (..., O) -> dx (..., I), dA (R, I), dB (O, R)

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ or are not float32 or float64, scaling is not finite, dropout is outside [0, 1]

    Examples
    --------
    >>> import numpy as np
    >>> delta, backward = lora_delta(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([[1.0], [0.0], [2.0]]), scaling=0.5)
    >>> delta
    array([[ 5.5,  0. , 11. ]])
    >>> dx, dA, dB = backward(np.ones((1, 3)))
    >>> dA, dB.ravel()
    (array([[1.5, 3. ]]), array([5.5, 5.5, 5.5]))
    """
    floats("lora_delta", x=x, lora_A=lora_A, lora_B=lora_B)
    at_least_rank("lora_delta", 1, x=x)
    exact_rank("lora_delta", 2, lora_A=lora_A, lora_B=lora_B)
    same_shape("lora_delta", (lora_A.shape[0], x.shape[-1]), lora_A=lora_A)
    same_shape("lora_delta", (lora_B.shape[0], lora_A.shape[0]), lora_B=lora_B)
    in_range("lora_delta", -1e30, 1e30, scaling=scaling)

    shape, rows = x.shape, math.prod(x.shape[:-1])
    dropped, drop_backward = drop(x, p=dropout, noise=noise)
    flat = dropped.reshape(rows, shape[-1])             # (N, I)
    thin = flat @ lora_A.T                              # (N, R)
    thin *= scaling                                     # here, where there are the fewest numbers to multiply
    delta = thin @ lora_B.T                             # (N, O)

    def backward(dy):
        # Two linear maps, t = s · x̃ Aᵀ and Δ = t Bᵀ, walked backwards; s returns where it came in, at the R thin columns.
        dflat = dy.reshape(rows, lora_B.shape[0])
        dlora_B = dflat.T @ thin                        # (O, R)
        dthin = dflat @ lora_B                          # (N, R)
        dthin *= scaling
        return drop_backward((dthin @ lora_A).reshape(shape)), dthin.T @ flat, dlora_B

    return delta.reshape(*shape[:-1], lora_B.shape[0]), backward
