"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864): a position is an angle, and a head's numbers are turned by it in pairs.

The numbers (a, b) of a pair are one complex number z = a + √−1 b. At position m, pair i is turned by the angle m ωᵢ:

    z ↦ z · exp(√−1 m ωᵢ),     that is     a ↦ a cos − b sin,   b ↦ b cos + a sin.

A score is the sum over the pairs of Re(q · conj(k)), and there the angles of a query at m and a key at n subtract to (m − n) ωᵢ: what
attention sees of two positions is their distance alone.

Two layouts say which numbers form a pair. *Half-split* (Llama, GPT-NeoX, nearly all models in transformers): number i with number
i + R/2. *Interleaved* (the paper, GPT-J, Meta's own Llama files): number 2i with number 2i + 1. They differ by a permutation of a head's
numbers, which queries and keys share, so that scores do not change when it is applied to the rows of both projections: `to_interleaved`,
`to_half_split`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, broadcastable, demand, exact_rank, floats, numbers, positive, same_shape, size
from numpy_impl.ops._blocks import blocks


class RotaryTable(NamedTuple):
    """Cosines and sines of the angles, (..., T, R/2) each."""

    cos: NDArray
    sin: NDArray


def rotary(x: NDArray, *, cos: NDArray, sin: NDArray, interleaved: bool = False) -> tuple[NDArray, Callable]:
    """yₐ = xₐ · cos − x_b · sin,  y_b = x_b · cos + xₐ · sin  for the two numbers of every pair; what is beyond R passes as it is.

    Parameters
    ----------
    x : (..., T, E)            queries or keys, float32 or float64
    cos : (..., T, R/2)        of the angles, from `rotary_table`; its leading axes may broadcast to those of x: (B, 1, T, R/2) where every
                               sequence has positions of its own. R ≤ E: the first R numbers are turned (partial rotary: GPT-J, NeoX, Phi)
    sin : (..., T, R/2)        of the angles, shaped like cos
    interleaved : bool         pairs (2i, 2i + 1); by default pairs (i, i + R/2)

    Returns
    -------
    y : (..., T, E)
    backward : dy (..., T, E) -> dx (..., T, E)

    Cosine and sine are constants of the positions and get no gradient.

    Raises
    ------
    ValueError   if shapes do not fit, R exceeds E, or an array is not float32 or float64

    Examples
    --------
    >>> cos, sin = rotary_table(np.arange(2), frequencies=np.array([np.pi / 2]), dtype=np.float64)
    >>> y, backward = rotary(np.array([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]]), cos=cos, sin=sin)     # a quarter turn at position 1
    >>> y
    array([[ 1.,  2.,  9.],
           [-2.,  1.,  9.]])
    """
    floats("rotary", x=x, cos=cos, sin=sin)
    at_least_rank("rotary", 2, x=x, cos=cos)
    same_shape("rotary", cos.shape, sin=sin)
    t, e = x.shape[-2:]
    half = cos.shape[-1]
    demand("rotary", 2 * half <= e, "x at least twice as wide as cos and sin", x=x, cos=cos)
    demand("rotary", cos.shape[-2] == t, "as many positions in cos and sin as in x", x=x, cos=cos)
    broadcastable("rotary", (*x.shape[:-1], half), cos=cos)

    turn = _complex(cos, sin)                                                    # (..., T, R/2): exp(√−1 m ωᵢ)

    def backward(dy):
        # For a pair the op is the matrix [[cos, −sin], [sin, cos]], and a pullback multiplies by its transpose. Transposing only swaps the
        # signs of the sines: it turns by the opposite angle. In complex numbers: y = w x has the pullback dx = conj(w) dy.
        # (With an attention factor c, |w| = c: the conjugate is then still the transpose, but no longer the inverse.)
        return _turned(dy, turn.conj(), interleaved)

    return _turned(x, turn, interleaved), backward


def _turned(x: NDArray, turn: NDArray, interleaved: bool) -> NDArray:
    """x with its pairs multiplied by the complex numbers `turn`, laid out as x is."""
    t, half = turn.shape[-2:]
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half), slice(half, 2 * half))
    y = np.empty_like(x)
    for rows in blocks(t, x.size // max(t, 1)):
        z = _complex(x[..., rows, first], x[..., rows, second])                  # (..., rows, R/2)
        z *= turn[..., rows, :]
        y[..., rows, first], y[..., rows, second] = z.real, z.imag
    y[..., 2 * half:] = x[..., 2 * half:]
    return y


def _complex(real: NDArray, imag: NDArray) -> NDArray:
    z = np.empty(real.shape, np.result_type(real, np.complex64))                 # complex64 of float32, complex128 of float64
    z.real, z.imag = real, imag
    return z


def rotary_frequencies(width: int, *, base: float = 10000.0) -> NDArray:
    """ωᵢ = base^(−2i / width)  for the pairs i = 0 … width/2 − 1.

    The first pair turns by 1 radian a token, the last by nearly 1 / base.

    Parameters
    ----------
    width : int    R, how many numbers of a head are turned; even
    base : float   > 0 (rope_theta)

    Returns
    -------
    frequencies : (R/2,) float64, in radians a token

    Raises
    ------
    ValueError   if width is negative, odd or no integer, or base is not positive

    Examples
    --------
    >>> rotary_frequencies(6, base=1000.0)
    array([1.  , 0.1 , 0.01])
    """
    size("rotary_frequencies", at_least=0, width=width)
    demand("rotary_frequencies", width % 2 == 0, "an even width", width=width)
    positive("rotary_frequencies", base=base)
    return base ** (-np.arange(0, width, 2) / max(width, 1))


def rotary_table(
    positions: NDArray, *, frequencies: NDArray, attention_factor: float = 1.0, dtype: DTypeLike = np.float32
) -> RotaryTable:
    """cos = c · cos(m ωᵢ),  sin = c · sin(m ωᵢ)  for every position m and frequency ωᵢ, with c = attention_factor.

    Parameters
    ----------
    positions : (..., T)       integers or floats, in tokens: np.arange(T) for a text, np.arange(n, n + T) for what follows n tokens
    frequencies : (R/2,)       in radians a token: from `rotary_frequencies`, or from `rope_frequencies` for a longer context
    attention_factor : float   c > 0; queries and keys both carry it, and so scores carry c²
    dtype                      of the table; the angles are computed in float64 whatever it is (at position 100,000 an angle in float32
                               is off by up to 0.004 radians), and only the result is rounded

    Returns
    -------
    (cos, sin) : (..., T, R/2) each; constants: they have no gradient

    Raises
    ------
    ValueError   if positions are no array of numbers, frequencies no vector of floats, or attention_factor is not positive

    Examples
    --------
    >>> cos, sin = rotary_table(np.arange(3), frequencies=np.array([1.0, 0.1]))
    >>> cos.round(3)
    array([[ 1.   ,  1.   ],
           [ 0.54 ,  0.995],
           [-0.416,  0.98 ]], dtype=float32)
    """
    numbers("rotary_table", positions=positions)
    floats("rotary_table", frequencies=frequencies)
    exact_rank("rotary_table", 1, frequencies=frequencies)
    positive("rotary_table", attention_factor=attention_factor)
    angles = positions.astype(np.float64)[..., None] * frequencies.astype(np.float64)       # (..., T, R/2)
    return RotaryTable((attention_factor * np.cos(angles)).astype(dtype), (attention_factor * np.sin(angles)).astype(dtype))


def to_interleaved(weight: NDArray, *, heads: int, width: int | None = None) -> NDArray:
    """Rows of a query or key projection from the half-split layout to the interleaved one: in every head (a…, b…) -> (a, b, a, b, …).

    Parameters
    ----------
    weight : (heads · E, ...)   a weight, or a bias, of any dtype
    heads : int                 how many heads the rows are divided into: the key/value heads for a key projection
    width : int                 R ≤ E, even: how many rows of a head are turned; E by default. The others stay where they are

    Returns
    -------
    weight : as given, in an array of its own; a permutation at load time, which has no gradient

    Raises
    ------
    ValueError   if the rows cannot be divided into heads, or width is odd or more than a head has

    Examples
    --------
    >>> to_interleaved(np.array([0, 1, 2, 3, 4, 5, 6, 7]), heads=2)
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    heads_of, width = _heads("to_interleaved", weight, heads, width)                         # (heads, E, ...)
    pairs = heads_of[:, :width].reshape(heads, 2, width // 2, *weight.shape[1:]).swapaxes(1, 2)
    return np.concatenate([pairs.reshape(heads, width, *weight.shape[1:]), heads_of[:, width:]], 1).reshape(weight.shape)


def to_half_split(weight: NDArray, *, heads: int, width: int | None = None) -> NDArray:
    """Rows of a query or key projection from the interleaved layout to the half-split one: in every head (a, b, a, b, …) -> (a…, b…).

    The inverse of `to_interleaved`, with the same parameters.

    Parameters
    ----------
    weight : (heads · E, ...)   a weight, or a bias, of any dtype
    heads : int                 how many heads the rows are divided into: the key/value heads for a key projection
    width : int                 R ≤ E, even: how many rows of a head are turned; E by default. The others stay where they are

    Returns
    -------
    weight : as given, in an array of its own; a permutation at load time, which has no gradient

    Raises
    ------
    ValueError   if the rows cannot be divided into heads, or width is odd or more than a head has

    Examples
    --------
    >>> to_half_split(np.array([0, 1, 2, 3, 4, 5, 6, 7]), heads=2)
    array([0, 2, 1, 3, 4, 6, 5, 7])
    """
    heads_of, width = _heads("to_half_split", weight, heads, width)                          # (heads, E, ...)
    pairs = heads_of[:, :width].reshape(heads, width // 2, 2, *weight.shape[1:]).swapaxes(1, 2)
    return np.concatenate([pairs.reshape(heads, width, *weight.shape[1:]), heads_of[:, width:]], 1).reshape(weight.shape)


def _heads(who: str, weight: NDArray, heads: int, width: int | None) -> tuple[NDArray, int]:
    """(weight as (heads, E, ...), how many rows of a head are turned), or the error."""
    at_least_rank(who, 1, weight=weight)
    size(who, heads=heads)
    demand(who, weight.shape[0] % heads == 0, "rows that divide into heads", weight=weight, heads=heads)
    e = weight.shape[0] // heads
    width = e if width is None else width
    size(who, at_least=0, width=width)
    demand(who, width % 2 == 0 and width <= e, f"an even width of at most {e}", width=width)
    return weight.reshape(heads, e, *weight.shape[1:]), width
