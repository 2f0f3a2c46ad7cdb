"""Which of a draft's tokens are kept, so that the text is drawn from the target (Leviathan, Kalman & Matias 2023, "Fast inference from
transformers via speculative decoding", arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, exact_rank, floats, given, ids_below, of_dtype, same_shape
from byhand.noise import Noise, at
from numpy_impl.decode.gumbel import sample
from numpy_impl.ops.random_bits import random_bits

_MOST = 1 << 10  # drafted tokens; the numbers a row draws do not depend on how many there are


class Accepted(NamedTuple):
    """What becomes of each row's draft.

    count (B,) int64   how many of its tokens are kept, from the first on
    token (B,) int64   the token behind those
    """

    count: NDArray
    token: NDArray


def accept(draft: NDArray | None, target: NDArray, tokens: NDArray, *, noise: Noise, drafted: NDArray | None = None) -> Accepted:
    """Keep token x with probability min(1, p(x) / q(x)) if those before it were kept;  draw the one behind the last that is kept from
    max(0, p − q) / Σ max(0, p − q) where one was rejected, and from p where none was.

    Every token is then distributed as p says, whatever q is. That x comes and is kept has the probability q(x) · min(1, p(x) / q(x)) =
    min(q(x), p(x)); what is missing to p(x) is max(0, p(x) − q(x)). Summed over x, this is how often something is rejected: with just this
    probability the second draw is made, in proportion to what is missing.

    Parameters
    ----------
    draft : (B, G, V)       q: what each token was drawn from; None: nothing was drawn, each token had probability 1
    target : (B, G+1, V)    p: what the target says in the place of each token, and behind the last one
    tokens : (B, G) int64   the draft's
    noise : Noise           which stream
    drafted : (B,) int64    how many tokens of each row count, from the first on; None: all

    Returns
    -------
    accepted : Accepted   count (B,) of 0 … drafted, token (B,). With a target that is certain (temperature 0), those tokens are kept that
                          are the target's own, up to the first that is not

    Raises
    ------
    ValueError   if shapes or dtypes do not fit, an id is no token, a probability is negative, NaN or infinite, or nothing is probable

    Examples
    --------
    >>> q, p = np.array([[[0.5, 0.5, 0.0]]]), np.array([[[0.5, 0.1, 0.4], [0.0, 1.0, 0.0]]])
    >>> accept(q, p, np.array([[0]]), noise=Noise(seed=0))                     # as probable here as there: kept
    Accepted(count=array([1]), token=array([1]))
    >>> tokens = np.ones((10000, 1), int)                                      # five times as probable as it should be
    >>> count, token = accept(np.tile(q, (10000, 1, 1)), np.tile(p, (10000, 1, 1)), tokens, noise=Noise(seed=0))
    >>> float(count.mean().round(2)), np.unique(token[count == 0])
    (0.2, array([2]))
    """
    drafted = _check(draft, target, tokens, noise, drafted)
    b, g = tokens.shape
    p = np.take_along_axis(target[:, :g], tokens[..., None], -1)[..., 0]                                    # (B, G)
    q = 1.0 if draft is None else np.take_along_axis(draft, tokens[..., None], -1)[..., 0]
    u = random_bits(at(noise, "accept"), (b, _MOST), part=((0, b), (0, g))) * 2.0**-32 + 2.0**-33           # never 0 or 1
    kept = (u * q < p) & (np.arange(g) < drafted[:, None])                                                  # u < p / q, where q may be 0
    count = np.logical_and.accumulate(kept, 1).sum(1)

    rows = np.flatnonzero(count < drafted)                          # where a token was rejected
    wanted = target[np.arange(b), count]                            # (B, V)
    said = np.zeros_like(wanted)
    if draft is None:
        said[rows, tokens[rows, count[rows]]] = 1
    else:
        said[rows] = draft[rows, count[rows]]
    missing = np.maximum(wanted - said, 0)
    # Where p and q are equal but for rounding, a token may be rejected with nothing missing.
    missing = np.where((missing > 0).any(1, keepdims=True), missing, wanted)
    with np.errstate(divide="ignore"):
        return Accepted(count, sample(np.log(missing), noise=at(noise, "token")))       # which needs no sum: it adds noise to logarithms


def _check(draft: NDArray | None, target: NDArray, tokens: NDArray, noise: Noise, drafted: NDArray | None) -> NDArray:
    """How many tokens of each row count."""
    given("accept", target=target, tokens=tokens)
    floats("accept", target=target, draft=draft)
    of_dtype("accept", "int64", tokens=tokens)
    exact_rank("accept", 2, tokens=tokens)
    exact_rank("accept", 3, target=target)
    (b, g), v = tokens.shape, target.shape[-1]
    demand("accept", g <= _MOST, f"at most {_MOST} tokens in a draft", tokens=tokens)
    same_shape("accept", (b, g + 1, v), target=target)
    same_shape("accept", (b, g, v), draft=draft)
    ids_below("accept", v, tokens=tokens)
    for name, array in (("target", target), ("draft", draft)):
        if array is not None:
            demand("accept", bool((array >= 0).all()), "probabilities, none of them negative or NaN", **{name: array})
    demand("accept", isinstance(noise, Noise), "noise as a byhand.noise.Noise", noise=noise)
    if drafted is None:
        return np.full(b, g)
    same_shape("accept", (b,), drafted=drafted)
    ids_below("accept", g + 1, drafted=drafted)
    return drafted
