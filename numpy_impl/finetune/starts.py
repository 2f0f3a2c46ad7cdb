"""Where an adapter may start instead of at zero: from what matters most in the weight, or from what quantization loses of it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand, exact_rank, floats, not_negative, positive, size
from numpy_impl.finetune._svd import truncated_svd
from numpy_impl.quantize.four_bit import Kind, dequantize_4bit, quantize_4bit


class Start(NamedTuple):
    """An adapter's two factors, lora_A (r, in) and lora_B (out, r), and the weight (out, in) that takes the place of the base's."""

    lora_A: NDArray
    lora_B: NDArray
    weight: NDArray


def pissa(weight: NDArray, *, r: int, scaling: float) -> Start:
    """A = √(S/s) · Vᵀ,  B = U · √(S/s),  base = W − s · B · A,  from the r largest singular values of W = U · diag(S) · Vᵀ.

    The adapter trains what matters most in the weight, and the base keeps the rest; base + s · B · A is W, so nothing changes at first.

    Parameters
    ----------
    weight : (out, in)   W, finite
    r : int              rank of the adapter, 0 or more. Directions beyond the rank of W are zero in both factors, and so are their
                         gradients: they are there and do nothing.
    scaling : float      s, what the adapter's output is multiplied by; above 0 (r = 0 takes 0 too)

    Returns
    -------
    lora_A : (r, in), lora_B : (out, r), weight : (out, in)
        The largest entry of every column of B is positive (of several, the first): the sign of a pair of singular vectors is free.

    Raises
    ------
    ValueError   if weight is not a finite matrix of float32 or float64, r is negative, or scaling is not above 0

    Source: Meng, Wang & Zhang 2024, arXiv:2404.02948, equations 2 to 4.

    Examples
    --------
    >>> start = pissa(np.array([[5.0, 3.0], [3.0, 5.0]]), r=1, scaling=1.0)     # singular values 8 and 2
    >>> start.lora_A.round(6), start.lora_B.T.round(6)
    (array([[2., 2.]]), array([[2., 2.]]))
    >>> start.weight.round(6)
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    scaling = _check("pissa", weight, r, scaling)
    lora_A, lora_B = _balanced(weight, r, scaling)
    return Start(lora_A, lora_B, weight - scaling * (lora_B @ lora_A))


def olora(weight: NDArray, *, r: int, scaling: float) -> Start:
    """A = the first r rows of R,  B = the first r columns of Q,  base = W − s · B · A,  where W = Q · R.

    B starts with orthonormal columns. base + s · B · A is W, so nothing changes at first; with s = 1 the first r columns of base are 0.

    Parameters
    ----------
    weight, r, scaling : as in `pissa`

    Returns
    -------
    lora_A : (r, in), lora_B : (out, r), weight : (out, in)
        The diagonal of R is not negative, which settles the signs. Rows and columns beyond those of Q and R are zero in both factors.

    Raises
    ------
    ValueError   as `pissa`

    Source: Büyükakyüz 2024, arXiv:2406.01775, algorithm 1.

    Examples
    --------
    >>> start = olora(np.array([[3.0, 1.0], [4.0, 2.0]]), r=1, scaling=1.0)
    >>> start.lora_A.round(6), start.lora_B.T.round(6)
    (array([[5. , 2.2]]), array([[0.6, 0.8]]))
    """
    scaling = _check("olora", weight, r, scaling)
    q, upper = np.linalg.qr(weight)                                # (out, k), (k, in), k = min(out, in)
    negative = upper.diagonal() < 0
    q, upper = np.where(negative, -q, q), np.where(negative[:, None], -upper, upper)
    missing = (0, max(r - len(upper), 0))
    lora_A, lora_B = np.pad(upper[:r], (missing, (0, 0))), np.pad(q[:, :r], ((0, 0), missing))
    return Start(lora_A, lora_B, weight - scaling * (lora_B @ lora_A))


def loftq(weight: NDArray, *, r: int, scaling: float, kind: Kind = "nf4", block: int = 64, steps: int = 1) -> Start:
    """`steps` times:  Q = quantized(base),  s · B · A = the best approximation of W − Q of rank r,  base = W − s · B · A.

    Every step brings one half of Q + s · B · A as close to W as it can with the other half fixed. The base starts at W.

    Parameters
    ----------
    weight, r, scaling : as in `pissa`
    kind, block : the 4-bit numbers, "nf4" or "fp4", and how many share one scale
    steps : int   ≥ 1; the paper takes 5, 1 is the approximation of what quantizing W loses

    Returns
    -------
    lora_A : (r, in), lora_B : (out, r)   of the last step
    weight : (out, in)                    what the last step quantized, in full precision: quantize it the same way, and it becomes that Q

    Raises
    ------
    ValueError   as `pissa`, and if kind is unknown, or block or steps is below 1

    Source: Li, Yu, Liang, He, Karampatziakis, Chen & Zhao 2023, arXiv:2310.08659, algorithm 1.

    Examples
    --------
    >>> W = np.random.default_rng(0).standard_normal((8, 16))
    >>> lora_A, lora_B, base = loftq(W, r=2, scaling=1.0, steps=5)
    >>> def loss(base, adapter):
    ...     codes, absmax = quantize_4bit(base)
    ...     return np.linalg.norm(W - dequantize_4bit(codes, absmax=absmax, shape=W.shape, dtype=W.dtype) - adapter)
    >>> bool(loss(base, lora_B @ lora_A) < 0.7 * loss(W, 0))
    True
    """
    scaling = _check("loftq", weight, r, scaling)
    choice("loftq", ("nf4", "fp4"), kind=kind)
    size("loftq", block=block, steps=steps)
    lora_A, lora_B = np.zeros((r, weight.shape[1]), weight.dtype), np.zeros((len(weight), r), weight.dtype)
    for _ in range(steps):
        base = weight - scaling * (lora_B @ lora_A)
        codes, absmax = quantize_4bit(base, kind=kind, block=block)
        quantized = dequantize_4bit(codes, absmax=absmax, shape=base.shape, kind=kind, block=block, dtype=base.dtype)
        lora_A, lora_B = _balanced(weight - quantized, r, scaling)
    return Start(lora_A, lora_B, base)


def _balanced(matrix: NDArray, r: int, scaling: float) -> tuple[NDArray, NDArray]:
    """A (r, in) and B (out, r) with s · B · A the best approximation of matrix, each with one half of every singular value: √(S/s)."""
    u, s, vt = truncated_svd(matrix, r)
    root = np.sqrt(s / scaling)
    return root[:, None] * vt, u * root


def _check(who: str, weight: NDArray, r: int, scaling: float) -> float:
    """scaling as a Python number, if all is well: a NumPy scalar would widen what it multiplies."""
    floats(who, weight=weight)
    exact_rank(who, 2, weight=weight)
    demand(who, bool(np.isfinite(weight).all()), "a finite weight", weight=weight)
    size(who, at_least=0, r=r)
    (positive if r else not_negative)(who, scaling=scaling)
    return float(scaling)
