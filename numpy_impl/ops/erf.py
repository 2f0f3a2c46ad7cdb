"""The error function, by hand: no special-function library stands behind it."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import floats
from numpy_impl.ops._blocks import by_blocks

# float64, |x| ≤ 1: the Taylor series erf(x) = x · Σ 2/√π · (−1)ᵏ / (k! (2k + 1)) · x²ᵏ, of which 18 terms reach 2⁻⁵³. One x is taken out
# of the sum, erf(x) = x + x · (Σ − 1): what is left is small, and so is what its rounding can spoil.
_NEAR = [2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(18)]
_NEAR[0] = 0.1283791670955126  # 2/√π − 1, without the cancellation

# float64, |x| ≥ 1: erf(|x|) = 1 − exp(−x²) · R(s), s = 1 / (1 + |x|) in [1/7, 1/2]; beyond |x| = 6 erf is 1 in float64. R(s) is the smooth
# function exp(x²) · erfc(x); its polynomial is our own weighted minimax fit (Remez exchange in 50-digit arithmetic, error 1.6e-17 of erf).
_FAR = [
    -5.674774764928467e-06,
    0.5644277140165888,
    0.5596240666326926,
    0.33499670604787446,
    -0.6942764416875433,
    1.5616209386499582,
    -9.088879980020865,
    26.694107508348843,
    -45.38306748138557,
    49.1763442155494,
    -34.10685931890479,
    13.974333100737704,
    -2.5944797918337823,
]

# float32, every x: erf(x) = tanh(x + x · N(x²) / D(x²)). artanh(erf(x)) / x is a smooth, slowly growing function of x², so a quotient of
# two cubics holds erf to 3.3e-9, with no branch and no sign to mend, and tanh does the saturating. Our own minimax fit (Lawson's
# weighting in 60-digit arithmetic) on x² ≤ 16, beyond which erf is 1 in float32. All coefficients are positive: nothing cancels.
_NUMERATOR = [0.128379171, 0.122914393, 0.0189568095, 0.00185341502]   # of 1, x², x⁴, x⁶
_DENOMINATOR = [1.0, 0.156893678, 0.0236904528, 0.000324940272]
_FAR_OUT = 16  # both the bound of x² and, as a row of equal numbers, the constant term
_CUBICS = np.array([_NUMERATOR, _DENOMINATOR], np.float32) / np.array([_FAR_OUT, 1, 1, 1], np.float32)


def erf(x: NDArray) -> tuple[NDArray, Callable]:
    """y = erf(x) = 2/√π · ∫₀ˣ exp(−t²) dt.

    Parameters
    ----------
    x : any shape, float32 or float64

    Returns
    -------
    y : like x   within 1.3 units in the last place in float64, 2.4 in float32
    backward : dy -> dx

    Raises
    ------
    ValueError   if x is not float32 or float64

    Notes
    -----
    The coefficients and how they were found stand at the head of this file.

    Examples
    --------
    >>> y, backward = erf(np.array([0.0, 0.5, -3.0]))
    >>> y.round(8)
    array([ 0.        ,  0.52049988, -0.99997791])
    >>> backward(np.ones(3)).round(4)
    array([1.1284e+00, 8.7880e-01, 1.0000e-04])
    """
    floats("erf", x=x)
    y = by_blocks(_erf, x, scratch=6)

    def backward(dy):
        # The derivative of an integral by its upper end is the integrand there.
        def fill(dy, x, dx, scratch):
            slope = scratch[0]
            np.multiply(x, x, out=slope)
            np.negative(slope, out=slope)
            np.exp(slope, out=slope)
            slope *= 2 / math.sqrt(math.pi)
            np.multiply(dy, slope, out=dx)

        return by_blocks(fill, dy, x, scratch=1)

    return y, backward


def _erf(x: NDArray, y: NDArray, scratch: NDArray) -> None:
    """y = erf(x) for a piece (one axis) of an array, with six rows to work in."""
    if x.dtype == np.float32:
        _erf32(x, y, scratch)
    else:
        _erf64(x, y)


def _erf32(x: NDArray, y: NDArray, scratch: NDArray) -> None:
    powers, sums = scratch[:4], scratch[4:]
    far, x2, x4, x6 = powers
    far[:] = _FAR_OUT
    np.multiply(x, x, out=x2)
    np.minimum(x2, far, out=x2)                # keeps ∞ out of the quotient; NaN passes
    np.multiply(x2, x2, out=x4)
    np.multiply(x4, x2, out=x6)
    numerator, denominator = np.matmul(_CUBICS, powers, out=sums)  # both in one: NumPy would take a dozen passes over x
    z = numerator
    z /= denominator
    z *= x
    z += x
    np.tanh(z, out=y)


def _erf64(x: NDArray, y: NDArray) -> None:
    near = x + x * _polynomial(_NEAR, x * x)
    t = np.minimum(np.abs(x), 6)
    far = np.copysign(1 - np.exp(-t * t) * _polynomial(_FAR, 1 / (1 + t)), x)
    y[:] = np.where(t < 1, near, far)


def _polynomial(coefficients: list[float], x: NDArray) -> NDArray:
    """c₀ + c₁ x + c₂ x² + …, from the highest power down (Horner)."""
    y = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        y *= x
        y += c
    return y
