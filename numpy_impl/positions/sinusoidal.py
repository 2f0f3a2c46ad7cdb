"""Sinusoidal positions (Vaswani et al. 2017, arXiv:1706.03762, section 3.5)."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import positive, size

_STEPS = 64  # positions between two that are computed from their angles


def sinusoidal(length: int, width: int, *, base: float = 10000.0, offset: int = 0, dtype: DTypeLike = np.float32) -> NDArray:
    """table[p, 2i] = sin(t · ω_i),  table[p, 2i + 1] = cos(t · ω_i),  with  t = p + offset  and  ω_i = base^(−2i / width).

    Each pair of columns is a point that moves around the unit circle, from 1 radian a token in the first pair to nearly 1 / base in the
    last; a shift by some tokens is a rotation of every pair, the same one at every position.

    Parameters
    ----------
    length : int    T, the number of positions
    width : int     D, the number of columns; an odd width ends in a sine without its cosine
    base : float    > 0, the ratio of the fastest frequency to the slowest
    offset : int    the position of the first row, in tokens
    dtype           of the table; the angles are computed in float64 whatever it is, and only the result is rounded

    Returns
    -------
    table : (T, D)   a constant: it has no gradient

    Raises
    ------
    ValueError   if length, width or offset is negative or no integer, or base is not positive

    Examples
    --------
    >>> sinusoidal(2, 4).round(4)
    array([[0.    , 1.    , 0.    , 1.    ],
           [0.8415, 0.5403, 0.01  , 1.    ]], dtype=float32)
    """
    size("sinusoidal", at_least=0, length=length, width=width, offset=offset)
    positive("sinusoidal", base=base)
    omega = base ** (-np.arange(0, width, 2) / width)                           # (⌈D/2⌉,), float64
    # With cos + √−1 · sin of an angle as one complex number, turning further is multiplying:
    #     exp(√−1 (s + r) ω) = exp(√−1 s ω) · exp(√−1 r ω).
    # So only every 64th position s and the steps r from 0 to 63 need sines and cosines, which cost more than anything else here.
    step = np.exp(1j * np.arange(_STEPS)[:, None] * omega)                      # (64, ⌈D/2⌉)
    start = np.exp(1j * np.arange(offset, offset + length, _STEPS)[:, None] * omega)   # (⌈T/64⌉, ⌈D/2⌉)
    points = (start[:, None] * step).reshape(len(start) * _STEPS, len(omega))[:length]   # (T, ⌈D/2⌉)
    table = np.empty((length, width), dtype=dtype)
    table[:, 0::2] = points.imag
    table[:, 1::2] = points.real[:, :width // 2]
    return table
