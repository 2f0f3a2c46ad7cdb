"""The rope scaling of Llama 3.1 (Grattafiori et al. 2024, arXiv:2407.21783; the formula is that of Meta's published code)."""

import math

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least, demand, positive, size
from numpy_impl.positions.rotary import rotary_frequencies


def llama3_frequencies(
    width: int,
    *,
    factor: float,
    original_length: int,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    base: float = 10000.0,
) -> NDArray:
    """ω′ᵢ = kᵢ ωᵢ + (1 − kᵢ) ωᵢ / s,  with  kᵢ = clip((rᵢ − low) / (high − low), 0, 1)  and  rᵢ = T ωᵢ / 2π.

    rᵢ is how many turns pair i makes over the T = original_length tokens of the training; s is `factor`. Three bands:

    - rᵢ ≥ high: a wavelength no longer than T / high. Such a pair has been seen at every angle, many times over, and tells near tokens
      apart. It is kept.
    - rᵢ ≤ low: a wavelength of at least T / low. Such a pair has (for low = 1) not finished one turn, and beyond T it would meet angles
      it has never seen. It is interpolated: slowed by s, as in `interpolated_frequencies`.
    - between them the two are mixed, linearly in rᵢ, so that no pair jumps.

    This is YaRN's idea with the mixture taken over the number of turns (where `yarn_frequencies` takes it over the index i), narrower
    bands, and no change of the attention's temperature.

    Parameters
    ----------
    width : int                R, how many numbers of a head are turned; even
    factor : float             s ≥ 1, by how much slow pairs are slowed
    original_length : int      T, how many tokens the model was trained on
    low_freq_factor : float    > 0, in turns over T: pairs with fewer are interpolated
    high_freq_factor : float   > low_freq_factor, in turns over T: pairs with more are kept
    base : float               > 0, the base that the model was trained with (rope_theta)

    Returns
    -------
    frequencies : (R/2,) float64, in radians a token

    Raises
    ------
    ValueError   if width is odd, high_freq_factor is not above low_freq_factor, or another argument is out of its range

    Examples
    --------
    >>> scaled = llama3_frequencies(6, factor=8.0, original_length=300)
    >>> (rotary_frequencies(6) / scaled).round(2)             # of 47.7 turns, 2.2 and 0.1: kept, mixed, slowed by 8
    array([1.  , 2.08, 8.  ])
    """
    who = "llama3_frequencies"
    at_least(who, 1, factor=factor)
    size(who, original_length=original_length)
    positive(who, low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor)
    demand(who, low_freq_factor < high_freq_factor, "low_freq_factor < high_freq_factor",
           low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor)
    frequencies = rotary_frequencies(width, base=base)                                           # (R/2,)
    turns = original_length * frequencies / (2 * math.pi)
    kept = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return kept * frequencies + (1 - kept) * frequencies / factor
