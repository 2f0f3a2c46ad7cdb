"""YaRN: slow pairs interpolated, fast ones kept, attention sharpened (Peng et al. 2023, arXiv:2309.00071, sections 3.2 and 3.4)."""

import math

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least, demand, not_negative, positive, size
from numpy_impl.positions.rotary import rotary_frequencies


def yarn_frequencies(
    width: int,
    *,
    factor: float,
    original_length: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
    base: float = 10000.0,
) -> NDArray:
    """ω′ᵢ = (1 − γᵢ) ωᵢ + γᵢ ωᵢ / s,  with  γᵢ = clip((i − i_fast) / (i_slow − i_fast), 0, 1)  and  s = factor.

    What a pair can bear depends on how many turns rᵢ = T ωᵢ / 2π it made over the T = original_length tokens of the training.

    - A fast pair, of β_fast turns and more, has been seen at every angle many times. A longer text shows it nothing new, while slowing
      it would blur which tokens are neighbours. It is kept: γ = 0.
    - A slow pair, of β_slow turns and fewer, has not been seen all round (for β_slow = 1). It tells where in the text a token stands, and
      beyond T it would meet angles it has never seen. It is interpolated, slowed by s: γ = 1.
    - Between them γ rises from 0 to 1.

    Solved for i, the number of turns β stands at the pair

        i_β = R · ln(T / (2π β)) / (2 ln base),     from  T · base^(−2i / R) = 2π β.

    The ramp is linear in i, between i_fast rounded down and i_slow rounded up: so do the authors' code and the models that were adapted
    with it, where the paper's equation is linear in rᵢ. Both ends are kept in [0, R − 1].

    Parameters
    ----------
    width : int             R, how many numbers of a head are turned; even
    factor : float          s ≥ 1, how many times longer than in training a text may become
    original_length : int   T, how many tokens the model was trained on
    beta_fast : float       β_fast ≥ β_slow, in turns over T: pairs with more are kept
    beta_slow : float       β_slow > 0, in turns over T: pairs with fewer are interpolated
    truncate : bool         round the ends of the ramp to whole pairs
    base : float            > 1, the base that the model was trained with (rope_theta)

    Returns
    -------
    frequencies : (R/2,) float64, in radians a token

    Raises
    ------
    ValueError   if width is odd, beta_fast is below beta_slow, or another argument is out of its range

    Examples
    --------
    >>> scaled = yarn_frequencies(8, factor=4.0, original_length=2000)
    >>> (rotary_frequencies(8) / scaled).round(2)             # 32 turns at pair 0.998, 1 turn at pair 2.5: a ramp from 0 to 3
    array([1.  , 1.33, 2.  , 4.  ])
    """
    who = "yarn_frequencies"
    frequencies = rotary_frequencies(width, base=base)                                           # (R/2,)
    demand(who, base > 1, "base > 1", base=base)
    at_least(who, 1, factor=factor)
    size(who, original_length=original_length)
    positive(who, beta_fast=beta_fast, beta_slow=beta_slow)
    demand(who, beta_slow <= beta_fast, "beta_slow <= beta_fast", beta_slow=beta_slow, beta_fast=beta_fast)

    fast, slow = (width * math.log(original_length / (2 * math.pi * beta)) / (2 * math.log(base)) for beta in (beta_fast, beta_slow))
    if truncate:
        fast, slow = math.floor(fast), math.ceil(slow)
    fast, slow = (min(max(end, 0), width - 1) for end in (fast, slow))
    pair = np.arange(width // 2)
    ramp = np.clip((pair - fast) / (slow - fast), 0, 1) if fast < slow else np.where(pair > fast, 1.0, 0.0)
    return (1 - ramp) * frequencies + ramp * frequencies / factor


def yarn_attention_factor(factor: float, *, mscale: float = 1.0, mscale_all_dim: float = 0.0) -> float:
    """m = (0.1 · mscale · ln s + 1) / (0.1 · mscale_all_dim · ln s + 1),  with  s = factor;  by default  0.1 ln s + 1.

    Over a longer text a query meets more keys, and the softmax over them grows flatter. The authors measured by how much scores should be
    multiplied to undo that, and found √(1/t) = 0.1 ln s + 1 for the temperature t, nearly the same for every token and model. Cosine and
    sine are multiplied by m = √(1/t); queries and keys both carry them, and so scores carry m² = 1/t.

    Rotary halves of a head carry the factor this way, the unturned rest of it does not. Models with decoupled rotary parts (DeepSeek's)
    therefore multiply the scale of attention itself by (0.1 · mscale_all_dim · ln s + 1)², which reaches all dimensions, and leave to
    cosine and sine what remains: the ratio. With mscale = mscale_all_dim that is 1.

    Parameters
    ----------
    factor : float           s ≥ 1, how many times longer than in training a text may become
    mscale : float           ≥ 0
    mscale_all_dim : float   ≥ 0

    Returns
    -------
    attention_factor : float

    Raises
    ------
    ValueError   if an argument is out of its range

    Examples
    --------
    >>> round(yarn_attention_factor(4.0), 4)
    1.1386
    >>> yarn_attention_factor(40.0, mscale=0.707, mscale_all_dim=0.707)                  # DeepSeek-V2-Lite
    1.0
    """
    at_least("yarn_attention_factor", 1, factor=factor)
    not_negative("yarn_attention_factor", mscale=mscale, mscale_all_dim=mscale_all_dim)
    rise = 0.1 * math.log(factor)
    return (mscale * rise + 1) / (mscale_all_dim * rise + 1)
