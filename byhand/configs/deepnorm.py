"""DeepNorm's two numbers, which let post-norm transformers grow to a thousand layers (Wang et al. 2022, arXiv:2203.00555, figure 2)."""

from typing import NamedTuple

from byhand.checks import size


class DeepNorm(NamedTuple):
    """y = norm(α · x + branch(x)),  weights of the branch starting smaller by β: what `Block` and `CrossBlock` take with order "post"."""

    alpha: float
    beta: float


def deepnorm(layers: int) -> DeepNorm:
    """α = (2 N)^¼,  β = (8 N)^−¼  of an encoder or a decoder that stands alone, with N layers.

    One step of training then changes the model's output by an amount that does not grow with N.

    Raises
    ------
    ValueError   if `layers` is no positive integer

    Examples
    --------
    >>> deepnorm(8)
    DeepNorm(alpha=2.0, beta=0.3535533905932738)
    """
    size("deepnorm", layers=layers)
    return DeepNorm((2 * layers) ** 0.25, (8 * layers) ** -0.25)


def deepnorm_pair(encoder: int, decoder: int) -> tuple[DeepNorm, DeepNorm]:
    """Of an encoder with N layers and the decoder with M layers that reads it:

        encoder   α = 0.81 (N⁴ M)^(1/16),   β = 0.87 (N⁴ M)^(−1/16)
        decoder   α = (3 M)^¼,              β = (12 M)^−¼

    Raises
    ------
    ValueError   if a number of layers is no positive integer

    Examples
    --------
    >>> [(round(one.alpha, 3), round(one.beta, 3)) for one in deepnorm_pair(6, 6)]
    [(1.418, 0.497), (2.06, 0.343)]
    """
    size("deepnorm_pair", encoder=encoder, decoder=decoder)
    both = (encoder**4 * decoder) ** (1 / 16)
    return DeepNorm(0.81 * both, 0.87 / both), DeepNorm((3 * decoder) ** 0.25, (12 * decoder) ** -0.25)
