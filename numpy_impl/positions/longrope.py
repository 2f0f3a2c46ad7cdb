"""LongRoPE: a factor of its own for every pair (Ding et al. 2024, arXiv:2402.13753)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least, demand, positive, size
from numpy_impl.positions.rotary import rotary_frequencies


def longrope_frequencies(
    width: int,
    *,
    short_factor: Sequence[float],
    long_factor: Sequence[float],
    original_length: int,
    length: int | None = None,
    base: float = 10000.0,
) -> NDArray:
    """ω′ᵢ = ωᵢ / λᵢ,  with  λ = long_factor  where  length > T = original_length,  and  λ = short_factor  up to there.

    Interpolation, NTK and YaRN each prescribe by a formula how much slower every pair should turn. LongRoPE lets the model say: an
    evolutionary search over the λᵢ keeps those with which the perplexity on long texts is lowest, under the one condition that they do
    not fall with i (a slower pair is never slowed by less). The fast pairs stay near 1 and the slow ones come near s or beyond, as
    elsewhere; where and how steeply the factors rise in between is found, not prescribed.

    A second set serves short texts. What is stretched for long ones reads short ones worse, so that up to T tokens other factors, near
    1, take over. At T + 1 all frequencies jump: keys that were turned and cached before do not fit those after.

    Parameters
    ----------
    width : int             R, how many numbers of a head are turned; even
    short_factor : (R/2,)   λᵢ > 0 of texts up to T tokens
    long_factor : (R/2,)    λᵢ > 0 of longer texts
    original_length : int   T, how many tokens the model was trained on
    length : int            how many tokens the text has now; None: no more than T
    base : float            > 0, the base that the model was trained with (rope_theta)

    Returns
    -------
    frequencies : (R/2,) float64, in radians a token

    Raises
    ------
    ValueError   if there is not one positive factor for each pair, width is odd, a length is no count or base is not positive

    Examples
    --------
    >>> factors = dict(short_factor=[1.0, 1.0], long_factor=[1.0, 5.0])
    >>> longrope_frequencies(4, **factors, original_length=100, length=101)
    array([1.   , 0.002])
    """
    who = "longrope_frequencies"
    frequencies = rotary_frequencies(width, base=base)                                           # (R/2,)
    size(who, original_length=original_length)
    if length is not None:
        size(who, at_least=0, length=length)
    for name, factors in (("short_factor", short_factor), ("long_factor", long_factor)):
        demand(who, len(factors) == len(frequencies), f"{name} with a factor for each of {len(frequencies)} pairs", **{name: factors})
        for factor in factors:
            positive(who, **{name: factor})
    longer = length is not None and length > original_length
    return frequencies / np.array(long_factor if longer else short_factor)


def longrope_attention_factor(factor: float, *, original_length: int) -> float:
    """m = √(1 + ln s / ln T),  with  s = factor  and  T = original_length.

    The more keys a query sees, the flatter the softmax over them: over n keys with scores alike the entropy is ln n. Over s · T keys
    instead of T it grows from ln T to ln(s T), by 1 + ln s / ln T. To keep attention as sharp as it was, all scores are multiplied by
    that ratio. Cosine and sine are multiplied by m, queries and keys both carry them, and so scores carry m².

    Parameters
    ----------
    factor : float          s ≥ 1, how many times longer than in training a text may become
    original_length : int   T ≥ 2, how many tokens the model was trained on

    Returns
    -------
    attention_factor : float ≥ 1

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> round(longrope_attention_factor(32.0, original_length=4096), 4)       # Phi-3: 131,072 tokens from 4,096
    1.1902
    """
    at_least("longrope_attention_factor", 1, factor=factor)
    size("longrope_attention_factor", at_least=2, original_length=original_length)
    return math.sqrt(1 + math.log(factor) / math.log(original_length))
