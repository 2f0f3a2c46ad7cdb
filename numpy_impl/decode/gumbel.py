"""Sampling by the Gumbel-max trick: noise is added, and the largest sum wins (Gumbel 1954, "Statistical theory of extreme values";
Maddison, Tarlow & Minka 2014, arXiv:1411.0030)."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import demand
from byhand.noise import Noise
from numpy_impl.decode._rows import largest
from numpy_impl.ops.random_bits import _words, random_bits

# The noise lies between −log(33 log 2) = −3.130, at u = 2⁻³³, and 33 log 2 = 22.874, at u = 1 − 2⁻³³: so wide, and a little for rounding.
_REACH = 26.1


def gumbel(shape: tuple[int, ...], *, noise: Noise, dtype: DTypeLike = np.float64) -> NDArray:
    """g = −log(−log u),  u = (bits + ½) / 2³²  with the 32 random bits of each entry: never 0 or 1.

    Parameters
    ----------
    shape : tuple of int   any shape of at most 2³⁴ entries
    noise : Noise          which stream
    dtype                  of the result; it is computed in float64, whose u are all distinct

    Returns
    -------
    g : of `shape`   independent, P(g ≤ x) = exp(−exp(−x)), between −3.13 and 22.87

    Raises
    ------
    ValueError   if noise is not a Noise, or the shape is none

    Examples
    --------
    >>> gumbel((3,), noise=Noise(seed=0)).round(4)
    array([0.0848, 2.0617, 1.1812])
    """
    return _gumbel(random_bits(noise, shape)).astype(dtype, copy=False)


def sample(logits: NDArray, *, noise: Noise | None = None) -> NDArray:
    """argmaxᵢ (logitsᵢ + gᵢ)  with Gumbel noise g, which draws i with probability softmax(logits)ᵢ;  argmax logits without noise.

    Why: exp(−(gᵢ + lᵢ)) is an exponential variable of rate exp(lᵢ), and among such clocks each rings first with a probability in proportion
    to its rate. The noise of an entry depends on its place alone, so what others are excluded does not change it.

    Parameters
    ----------
    logits : (..., V)   float32 or float64, −∞ for what cannot be drawn
    noise : Noise       which stream; None is greedy, of equal logits the lowest id

    Returns
    -------
    ids : (...) int64

    Raises
    ------
    ValueError   if a row of logits has NaN, +∞ or nothing but −∞, or noise is neither None nor a Noise

    Examples
    --------
    >>> sample(np.array([[0.0, 2.0, 2.0]]))
    array([1])
    >>> draws = sample(np.tile(np.log([0.2, 0.8]), (10000, 1)), noise=Noise(seed=0))
    >>> float(draws.mean().round(2))
    0.8
    """
    demand("sample", noise is None or isinstance(noise, Noise), "noise as a byhand.noise.Noise or None", noise=noise)
    top = largest("sample", logits)
    if noise is None:
        return np.asarray(logits.argmax(-1))
    # No noise lifts a token over one that leads by the whole width of its range: only the others' bits are needed, and after top-k or
    # top-p they are few. One counter makes four words, so a token on its own costs what four in a row do.
    flat = np.flatnonzero(logits >= top - _REACH)      # of large logits top − 26.1 is top
    if 4 * len(flat) >= logits.size:
        return np.asarray((logits + gumbel(logits.shape, noise=noise)).argmax(-1))
    scores = np.full(logits.shape, -np.inf)
    scores.reshape(-1)[flat] = logits.reshape(-1)[flat] + _gumbel(_words(noise, flat, 1)[:, 0])
    return np.asarray(scores.argmax(-1))


def _gumbel(bits: NDArray) -> NDArray:
    u = np.asarray((bits + 0.5) * 2.0**-32)
    np.log(u, out=u)
    np.negative(u, out=u)
    np.log(u, out=u)
    return np.negative(u, out=u)
