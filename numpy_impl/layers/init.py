"""Initial values of weights: Kaiming, Xavier, truncated normal, orthogonal.

A weight of shape (O, I, ...) has I inputs and O outputs; what follows is the receptive field of a convolution, which multiplies both:
fan_in = I · field is how many numbers are summed into one output, fan_out = O · field how many outputs one input goes to.
"""

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, demand, floats, in_range, not_negative, positive, size

Mode = Literal["fan_in", "fan_out"]
Nonlinearity = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]


def kaiming_uniform(
    shape: tuple[int, ...],
    *,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> NDArray:
    """w ~ U(−b, b),  b = √3 · std,  with the standard deviation of `kaiming_normal`.

    Parameters
    ----------
    shape : (O, I, ...)   two axes or more
    a : float             slope of leaky_relu below zero
    mode : str            fan_in keeps the variance of activations from layer to layer, fan_out that of gradients
    nonlinearity : str    what comes after the weight
    dtype                 float32 or float64
    rng                   np.random.Generator; a fresh one by default

    Returns
    -------
    w : of `shape`

    Raises
    ------
    ValueError   if the shape has fewer than two axes or a negative one, or an option is unknown or not finite

    Source: He, Zhang, Ren & Sun 2015, arXiv:1502.01852, section 2.2.

    Examples
    --------
    >>> w = kaiming_uniform((64, 48), nonlinearity="relu", rng=np.random.default_rng(0))
    >>> bool(abs(w).max() <= math.sqrt(3 * 2 / 48))
    True
    """
    # U(−b, b) has the variance b² / 3.
    return _uniform(shape, math.sqrt(3) * _kaiming_std("kaiming_uniform", shape, a, mode, nonlinearity, dtype), dtype, rng)


def kaiming_normal(
    shape: tuple[int, ...],
    *,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> NDArray:
    """w ~ N(0, std²),  std = gain / √fan,  where gain² makes up for the share of the variance that the nonlinearity takes.

    gain is 1 for linear and sigmoid, 5/3 for tanh, √2 for relu (which drops half), √(2 / (1 + a²)) for leaky_relu, 3/4 for selu.

    Parameters
    ----------
    shape : (O, I, ...)   two axes or more
    a : float             slope of leaky_relu below zero
    mode : str            fan_in keeps the variance of activations from layer to layer, fan_out that of gradients
    nonlinearity : str    what comes after the weight
    dtype                 float32 or float64
    rng                   np.random.Generator; a fresh one by default

    Returns
    -------
    w : of `shape`

    Raises
    ------
    ValueError   if the shape has fewer than two axes or a negative one, or an option is unknown or not finite

    Source: He, Zhang, Ren & Sun 2015, arXiv:1502.01852, section 2.2.

    Examples
    --------
    >>> w = kaiming_normal((200, 50), nonlinearity="relu", rng=np.random.default_rng(0))
    >>> round(float(w.std()), 2)                       # √(2 / 50) = 0.2
    0.2
    """
    return _normal(shape, _kaiming_std("kaiming_normal", shape, a, mode, nonlinearity, dtype), dtype, rng)


def xavier_uniform(
    shape: tuple[int, ...], *, gain: float = 1.0, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None
) -> NDArray:
    """w ~ U(−b, b),  b = √3 · std,  with the standard deviation of `xavier_normal`.

    Parameters
    ----------
    shape : (O, I, ...)   two axes or more
    gain : float          ≥ 0
    dtype                 float32 or float64
    rng                   np.random.Generator; a fresh one by default

    Returns
    -------
    w : of `shape`

    Raises
    ------
    ValueError   if the shape has fewer than two axes or a negative one, or gain is negative

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", equation 16.

    Examples
    --------
    >>> w = xavier_uniform((64, 32), rng=np.random.default_rng(0))
    >>> bool(abs(w).max() <= math.sqrt(6 / 96))
    True
    """
    return _uniform(shape, math.sqrt(3) * _xavier_std("xavier_uniform", shape, gain, dtype), dtype, rng)


def xavier_normal(
    shape: tuple[int, ...], *, gain: float = 1.0, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None
) -> NDArray:
    """w ~ N(0, std²),  std = gain · √(2 / (fan_in + fan_out)): between what activations need and what gradients need.

    Parameters
    ----------
    shape : (O, I, ...)   two axes or more
    gain : float          ≥ 0
    dtype                 float32 or float64
    rng                   np.random.Generator; a fresh one by default

    Returns
    -------
    w : of `shape`

    Raises
    ------
    ValueError   if the shape has fewer than two axes or a negative one, or gain is negative

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", equation 12.

    Examples
    --------
    >>> w = xavier_normal((150, 50), rng=np.random.default_rng(0))
    >>> round(float(w.std()), 2)                       # √(2 / 200) = 0.1
    0.1
    """
    return _normal(shape, _xavier_std("xavier_normal", shape, gain, dtype), dtype, rng)


def truncated_normal(
    shape: tuple[int, ...],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    dtype: DTypeLike = np.float32,
    rng: np.random.Generator | None = None,
) -> NDArray:
    """w ~ N(mean, std²) given low ≤ w ≤ high.

    By rejection, which is exact: what falls outside is drawn again.

    Parameters
    ----------
    shape : tuple of int   any
    mean, std : float      of the normal before it is cut; std > 0
    low, high : float      the ends, as values and not in standard deviations
    dtype                  float32 or float64
    rng                    np.random.Generator; a fresh one by default

    Returns
    -------
    w : of `shape`

    Raises
    ------
    ValueError   if an argument is not finite, std ≤ 0, low ≥ high, or less than a hundredth of the normal lies between them

    Examples
    --------
    >>> w = truncated_normal((1000,), std=0.02, low=-0.04, high=0.04, rng=np.random.default_rng(0))
    >>> round(float(w.std()), 3)                       # 0.88 of the uncut one
    0.018
    """
    who = "truncated_normal"
    _check(who, shape, 0, dtype)
    positive(who, std=std)
    in_range(who, -1e30, 1e30, mean=mean, low=low, high=high)
    uncut = NormalDist(mean, std)
    demand(who, uncut.cdf(high) - uncut.cdf(low) >= 0.01, "low < high with a hundredth of the normal between them",
           low=low, high=high, mean=mean, std=std)

    rng = rng or np.random.default_rng()
    w = np.empty(math.prod(shape), dtype)
    outside = np.arange(w.size)                                                     # the entries still to be drawn
    while outside.size:
        w[outside] = mean + std * rng.standard_normal(outside.size, dtype=w.dtype)
        outside = outside[(w[outside] < low) | (w[outside] > high)]
    return w.reshape(shape)


def orthogonal(
    shape: tuple[int, ...], *, gain: float = 1.0, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None
) -> NDArray:
    """w = gain · Q,  Q uniform among the matrices (O, I · field) with orthonormal rows, or columns where there are fewer of them.

    Q is the first factor of G = Q · R for a normal G. The factorisation is unique once the diagonal of R is positive, and only then
    is Q uniform (distributed by the Haar measure): turning G by any rotation turns Q along, and G's distribution is the same after it.

    Parameters
    ----------
    shape : (O, I, ...)   two axes or more
    gain : float          ≥ 0
    dtype                 float32 or float64
    rng                   np.random.Generator; a fresh one by default

    Returns
    -------
    w : of `shape`

    Raises
    ------
    ValueError   if the shape has fewer than two axes or a negative one, or gain is negative

    Source: Saxe, McClelland & Ganguli 2014, arXiv:1312.6120; Mezzadri 2007, arXiv:math-ph/0609050, on the signs.

    Examples
    --------
    >>> w = orthogonal((3, 5), rng=np.random.default_rng(0))
    >>> np.allclose(w @ w.T, np.eye(3), atol=1e-6)
    True
    """
    _check("orthogonal", shape, 2, dtype)
    not_negative("orthogonal", gain=gain)
    if 0 in shape:
        return np.empty(shape, dtype)
    rows, columns = shape[0], math.prod(shape[1:])
    tall = max(rows, columns), min(rows, columns)
    q, r = np.linalg.qr((rng or np.random.default_rng()).standard_normal(tall, dtype=np.dtype(dtype)))
    q *= np.copysign(gain, np.diagonal(r))
    return (q if rows >= columns else q.T).reshape(shape)


def _kaiming_std(who: str, shape: tuple[int, ...], a: float, mode: Mode, nonlinearity: Nonlinearity, dtype: DTypeLike) -> float:
    _check(who, shape, 2, dtype)
    in_range(who, -1e30, 1e30, a=a)
    choice(who, ("fan_in", "fan_out"), mode=mode)
    choice(who, ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"), nonlinearity=nonlinearity)
    fan_in, fan_out = _fans(shape)
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + a * a)), "selu": 3 / 4}
    return gains[nonlinearity] / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def _xavier_std(who: str, shape: tuple[int, ...], gain: float, dtype: DTypeLike) -> float:
    _check(who, shape, 2, dtype)
    not_negative(who, gain=gain)
    fan_in, fan_out = _fans(shape)
    return gain * math.sqrt(2 / (fan_in + fan_out))


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out); of an empty weight, which has nothing to fill, at least 1."""
    field = math.prod(shape[2:])
    return max(shape[1] * field, 1), max(shape[0] * field, 1)


def _uniform(shape: tuple[int, ...], bound: float, dtype: DTypeLike, rng: np.random.Generator | None) -> NDArray:
    w = (rng or np.random.default_rng()).random(shape, dtype=np.dtype(dtype))       # in [0, 1)
    w *= 2 * bound
    w -= bound
    return w


def _normal(shape: tuple[int, ...], std: float, dtype: DTypeLike, rng: np.random.Generator | None) -> NDArray:
    w = (rng or np.random.default_rng()).standard_normal(shape, dtype=np.dtype(dtype))
    w *= std
    return w


def _check(who: str, shape: tuple[int, ...], rank: int, dtype: DTypeLike) -> None:
    sizes = isinstance(shape, (tuple, list)) and len(shape) >= rank
    demand(who, sizes, f"shape as a tuple of at least {rank} sizes", shape=shape)
    for n in shape:
        size(who, at_least=0, shape=n)
    floats(who, values=np.empty(0, dtype))
