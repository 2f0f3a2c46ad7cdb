"""Products of 8-bit codes, summed exactly."""

import math

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, exact_rank, given, ids_below, of_dtype, same_shape

_EXACT = 1024   # products summed in float32 at a time
_OUTPUTS = 512  # rows of b at a time: what they touch stays in the processor's cache


def int8_matmul(a: NDArray, b: NDArray, *, a_zero_point: NDArray | None = None, b_zero_point: NDArray | None = None) -> NDArray:
    """y[n, o] = Σₖ (a[n, k] − a_zero_point[n]) (b[o, k] − b_zero_point[o]),  exact, in int32.

    Parameters
    ----------
    a : (..., K)   codes of activations, int8 or uint8
    b : (O, K)     codes of a weight, int8 or uint8, one row an output
    a_zero_point : () or (...)   integers, codes of a: the code of 0, for everything or for each row; None is 0
    b_zero_point : () or (O,)    the same for b

    Returns
    -------
    y : (..., O) int32

    With codes from −128 to 127 no sum exceeds 2¹⁴ K, and K may be 131,071; a difference from a zero point reaches 255, as an unsigned code
    does: with one on either side K may be 65,793, on both 33,025.

    Raises
    ------
    ValueError   if a or b is neither int8 nor uint8, their widths differ, a zero point is no code or of another shape, or K is so large
                 that a sum could overflow int32

    Examples
    --------
    >>> a, b = np.array([[100, -3]], dtype=np.int8), np.array([[127, 1], [-128, 0]], dtype=np.int8)
    >>> int8_matmul(a, b)
    array([[ 12697, -12800]], dtype=int32)
    >>> int8_matmul(a, b, a_zero_point=np.array(-3))
    array([[ 13081, -13184]], dtype=int32)
    """
    given("int8_matmul", a=a, b=b)
    of_dtype("int8_matmul", "int8", "uint8", a=a, b=b)
    at_least_rank("int8_matmul", 1, a=a)
    exact_rank("int8_matmul", 2, b=b)
    same_shape("int8_matmul", (b.shape[0], a.shape[-1]), b=b)
    largest = _largest("a", a, a_zero_point, a.shape[:-1]) * _largest("b", b, b_zero_point, b.shape[:1])
    most = int(np.iinfo(np.int32).max) // largest
    demand("int8_matmul", a.shape[-1] <= most, f"a width of at most {most}, beyond which a sum could overflow int32", a=a)

    lead, (outputs, width) = a.shape[:-1], b.shape
    a, p = _signed(a.reshape(math.prod(lead), width), a_zero_point)             # (N, K) int8, (N,) or (1,)
    b, q = _signed(b, b_zero_point)                                             # (O, K) int8, (O,) or (1,)

    # NumPy multiplies integer matrices without BLAS, ten times slower. But float32 holds every integer up to 2²⁴, and a product of two
    # codes is at most 2⁷·2⁷ in size: a sum of 2¹⁰ products is exact in float32, in whatever order BLAS adds them.
    y = np.zeros((len(a), outputs), np.int32)
    for start in range(0, width, _EXACT):
        part = slice(start, start + _EXACT)
        left = a[:, part].astype(np.float32)
        for first in range(0, outputs, _OUTPUTS):
            rows = slice(first, first + _OUTPUTS)
            y[:, rows] += (left @ b[rows, part].astype(np.float32).T).astype(np.int32)

    if p.any() or q.any():
        # Σ (a − p)(b − q) = Σ ab − p (Σ b − K q) − q Σ a, every sum over k. Terms may wrap around in int32: the result fits.
        y -= p[:, None] * (b.sum(1, dtype=np.int32) - width * q)
        y -= a.sum(1, dtype=np.int32)[:, None] * q
    return y.reshape(*lead, outputs)


def _largest(name: str, codes: NDArray, zero_point: NDArray | None, lead: tuple[int, ...]) -> int:
    """How far codes can be from their zero point, once both have been checked."""
    lowest = int(np.iinfo(codes.dtype).min)
    ids_below("int8_matmul", lowest + 256, at_least=lowest, **{f"{name}_zero_point": zero_point})
    demand("int8_matmul", zero_point is None or zero_point.shape in ((), lead), f"{name}_zero_point of shape () or {lead}",
           **{f"{name}_zero_point": zero_point})
    return 255 if lowest == 0 or zero_point is not None else 128


def _signed(codes: NDArray, zero_point: NDArray | None) -> tuple[NDArray, NDArray]:
    """Codes as int8, and their zero points as int32 on one axis: unsigned codes and their zero points move down by 128 together."""
    zero = np.zeros(1, np.int32) if zero_point is None else zero_point.reshape(-1).astype(np.int32)
    if codes.dtype == np.uint8:
        return (codes ^ 128).view(np.int8), zero - 128                          # the top bit, flipped, is a sign
    return codes, zero
