"""Rotary frequencies scaled for long contexts: one call for every scheme."""

from typing import NamedTuple

from numpy.typing import NDArray

from byhand.checks import demand, size
from byhand.configs.rope import RopeConfig
from numpy_impl.positions.interpolation import interpolated_frequencies
from numpy_impl.positions.llama3 import llama3_frequencies
from numpy_impl.positions.longrope import longrope_attention_factor, longrope_frequencies
from numpy_impl.positions.ntk import dynamic_ntk_frequencies, ntk_frequencies
from numpy_impl.positions.rotary import rotary_frequencies
from numpy_impl.positions.yarn import yarn_attention_factor, yarn_frequencies


class RopeFrequencies(NamedTuple):
    """frequencies (R/2,) float64, in radians a token; attention_factor, what cosine and sine are multiplied by."""

    frequencies: NDArray
    attention_factor: float


def rope_frequencies(config: RopeConfig, *, length: int | None = None) -> RopeFrequencies:
    """ω′ and m of the scheme that config.type names; scores become  m² · Σᵢ |qᵢ| |kᵢ| cos((t_q − t_k) ω′ᵢ + φᵢ).

    The schemes differ in what they do to a pair by how fast it turns. A fast pair has gone round many times within the trained length T
    and tells neighbours apart; a slow one has not finished one turn, tells far tokens apart, and beyond T meets angles it has never seen.

    ==========  ======================================  ==================================================  =================
    type        fast pairs                              slow pairs                                          attention factor
    ==========  ======================================  ==================================================  =================
    default     kept                                    kept; new angles beyond T                           1
    linear      slowed by s, neighbours are blurred     slowed by s                                         1
    ntk         kept, ever less so towards the slow     slowed by s                                         1
    dynamic     as ntk, from T on                       as ntk with a factor that grows with the text       1
    yarn        kept above β_fast turns over T          slowed by s below β_slow turns, a ramp between      0.1 ln s + 1
    llama3      kept above high_freq_factor turns       slowed by s below low_freq_factor, a ramp between   1
    longrope    slowed by searched factors              slowed by searched factors                          √(1 + ln s / ln T)
    ==========  ======================================  ==================================================  =================

    Parameters
    ----------
    config : RopeConfig
    length : int   how many tokens the text has, cached ones included; only "dynamic" and "longrope" look at it. None: at most T

    Returns
    -------
    RopeFrequencies   a constant: it has no gradient. `rotary_table` makes the table of cosines and sines of it

    Raises
    ------
    ValueError   if config is no RopeConfig or length no count

    Examples
    --------
    >>> config = RopeConfig(width=4, type="yarn", factor=4.0, original_length=100)
    >>> frequencies, attention_factor = rope_frequencies(config)
    >>> frequencies, round(attention_factor, 4)                  # 15.9 turns within T, and 0.16
    (array([1.    , 0.0025]), 1.1386)
    """
    demand("rope_frequencies", isinstance(config, RopeConfig), "config as a RopeConfig", config=config)
    if length is not None:
        size("rope_frequencies", at_least=0, length=length)
    return RopeFrequencies(_frequencies(config, length), _attention_factor(config))


def _frequencies(c: RopeConfig, length: int | None) -> NDArray:
    made = dict(base=c.base)
    match c.type:
        case "linear":
            return interpolated_frequencies(c.width, factor=c.factor, **made)
        case "ntk":
            return ntk_frequencies(c.width, factor=c.factor, **made)
        case "dynamic":
            return dynamic_ntk_frequencies(c.width, factor=c.factor, original_length=c.original_length, length=length, **made)
        case "yarn":
            ramp = dict(beta_fast=c.beta_fast, beta_slow=c.beta_slow, truncate=c.truncate)
            return yarn_frequencies(c.width, factor=c.factor, original_length=c.original_length, **ramp, **made)
        case "llama3":
            bands = dict(low_freq_factor=c.low_freq_factor, high_freq_factor=c.high_freq_factor)
            return llama3_frequencies(c.width, factor=c.factor, original_length=c.original_length, **bands, **made)
        case "longrope":
            factors = dict(short_factor=c.short_factor, long_factor=c.long_factor)
            return longrope_frequencies(c.width, **factors, original_length=c.original_length, length=length, **made)
        case _:
            return rotary_frequencies(c.width, **made)


def _attention_factor(c: RopeConfig) -> float:
    match c.type:
        case "yarn" | "longrope" if c.attention_factor is not None:
            return c.attention_factor
        case "yarn" if c.mscale is not None:
            return yarn_attention_factor(c.factor, mscale=c.mscale, mscale_all_dim=c.mscale_all_dim)
        case "yarn":
            return yarn_attention_factor(c.factor)
        case "longrope":
            return longrope_attention_factor(c.factor, original_length=c.original_length)
        case _:
            return 1.0
