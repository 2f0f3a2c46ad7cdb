"""NTK-aware scaling: a larger base instead of smaller positions (Peng et al. 2023, arXiv:2309.00071, sections 3.1 and 3.3)."""

from numpy.typing import NDArray

from byhand.checks import at_least, positive, size
from numpy_impl.positions.rotary import rotary_frequencies


def ntk_frequencies(width: int, *, factor: float, base: float = 10000.0) -> NDArray:
    """ω′ᵢ = base′^(−2i / R),  with  base′ = base · s^(R / (R − 2))  and  s = factor.

    Position interpolation slows every pair alike and blurs the fast ones, which tell neighbours apart; a network learns fine detail from
    high frequencies (the theory of the neural tangent kernel, which gave the scheme its name) and misses them. So spread the pressure:
    changing the base slows pair i by s^(2i / (R − 2)). The exponent is chosen so that the fastest pair, i = 0, stays as it is, and the
    slowest, i = R/2 − 1, becomes exactly s times slower, as in interpolation:

        base′^(−(R − 2) / R) = base^(−(R − 2) / R) / s.

    No pair in between is slowed by as much as s, so that some still meet angles that training did not show: a model that is not adapted
    bears this better than interpolation, but reaches less far than s · T tokens.

    Parameters
    ----------
    width : int      R ≥ 4, how many numbers of a head are turned; even
    factor : float   s ≥ 1, by how much the slowest pair is slowed
    base : float     > 0, the base that the model was trained with (rope_theta)

    Returns
    -------
    frequencies : (R/2,) float64, in radians a token

    Raises
    ------
    ValueError   if width is odd or below 4 (a single pair cannot be both kept and slowed), or base or factor is out of its range

    Examples
    --------
    >>> ntk_frequencies(4, factor=2.0)                   # 1 is kept, 0.01 halved
    array([1.   , 0.005])
    """
    size("ntk_frequencies", at_least=4, width=width)
    at_least("ntk_frequencies", 1, factor=factor)
    positive("ntk_frequencies", base=base)
    return rotary_frequencies(width, base=base * factor ** (width / (width - 2)))


def dynamic_ntk_frequencies(
    width: int, *, factor: float, original_length: int, length: int | None = None, base: float = 10000.0
) -> NDArray:
    """ω′ᵢ = base′^(−2i / R),  with  base′ = base · (1 + s (L / T − 1))^(R / (R − 2)),  L = max(length, T).

    `ntk_frequencies` slows a model even where it reads no more than it was trained on, and so gets worse at what it knew. Here the
    scaling grows with the text: up to T = original_length tokens nothing changes; at L tokens the slowest pair is slowed by
    1 + s (L / T − 1), which rises by s for every further T. With s = 1 it is slowed by L / T, which keeps its angle at the last token
    what it was at T; a larger s slows it sooner than the text needs, because the pairs in between are slowed by less.

    The frequencies of a longer text are other frequencies: keys that were turned and cached when the text was shorter do not fit them.

    Parameters
    ----------
    width : int             R ≥ 4, how many numbers of a head are turned; even
    factor : float          s ≥ 1
    original_length : int   T, how many tokens the model was trained on
    length : int            how many tokens the text has now; None: no more than T
    base : float            > 0, the base that the model was trained with (rope_theta)

    Returns
    -------
    frequencies : (R/2,) float64, in radians a token

    Raises
    ------
    ValueError   if width is odd or below 4, a length is no count, or base or factor is out of its range

    Examples
    --------
    >>> dynamic_ntk_frequencies(4, factor=2.0, original_length=100, length=200).round(6)     # 0.01 / 3
    array([1.      , 0.003333])
    """
    who = "dynamic_ntk_frequencies"
    size(who, original_length=original_length)
    if length is not None:
        size(who, at_least=0, length=length)
    at_least(who, 1, factor=factor)
    longest = original_length if length is None else max(length, original_length)
    return ntk_frequencies(width, factor=1 + factor * (longest / original_length - 1), base=base)
