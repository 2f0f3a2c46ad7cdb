"""Position interpolation for longer contexts (Chen et al. 2023, arXiv:2306.15595)."""

from numpy.typing import NDArray

from byhand.checks import at_least
from numpy_impl.positions.rotary import rotary_frequencies


def interpolated_frequencies(width: int, *, factor: float, base: float = 10000.0) -> NDArray:
    """ω′ᵢ = ωᵢ / s,  with  ωᵢ = base^(−2i / R)  and  s = factor.

    Trained on T tokens, a model has seen pair i turn through angles up to T · ωᵢ. The fast pairs went round many times and know every
    angle; the slow ones did not finish one turn, and beyond T they stand at angles that no training ever showed: scores there are
    arbitrary, and perplexity explodes.

    An angle is position times frequency, so dividing every frequency by s is dividing every position by s: a text of s · T tokens is
    squeezed into the T positions that are known, and no pair meets a new angle. The price is paid by the fast pairs, which told
    neighbours apart: two adjacent tokens now differ by 1/s of the angle that the model learned to read as "adjacent". That needs a short
    adaptation; the schemes in the other files try to spare the fast pairs.

    Parameters
    ----------
    width : int      R, how many numbers of a head are turned; even
    factor : float   s ≥ 1, how many times longer than in training a text may become
    base : float     > 0, the base that the model was trained with (rope_theta)

    Returns
    -------
    frequencies : (R/2,) float64, in radians a token

    Raises
    ------
    ValueError   if width is odd, or base or factor is out of its range

    Examples
    --------
    >>> interpolated_frequencies(4, factor=2.0)          # 1 and 0.01, halved
    array([0.5  , 0.005])
    """
    at_least("interpolated_frequencies", 1, factor=factor)
    return rotary_frequencies(width, base=base) / factor
