"""Clipping gradients: by their global norm (Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063), and entry by entry."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, floats, positive

_PIECE = 32768  # entries summed in the array's own precision; the sums of pieces are added in double
_LOW = 1e-30    # above it a sum of float32 squares has lost nothing to underflow


class Clipped(NamedTuple):
    """grads : dict of name -> array;  norm : () the global norm before clipping"""

    grads: dict[str, NDArray]
    norm: NDArray


def global_norm(grads: Mapping[str, NDArray]) -> NDArray:
    """‖g‖ = √(Σ g²)  over all entries of all arrays, as if they were one vector.

    Parameters
    ----------
    grads : dict of name -> array, float32 or float64

    Returns
    -------
    norm : ()   0 for no arrays; NaN or infinite if an entry is. Squares that float32 cannot hold do no harm (they do in torch).

    Raises
    ------
    ValueError   if an array is not float32 or float64

    Examples
    --------
    >>> global_norm({"w": np.array([[3.0]]), "b": np.array([4.0, 12.0])})
    array(13.)
    """
    _check("global_norm", grads)
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # the norm itself tells
        for grad in grads.values():
            flat = grad.reshape(-1)
            for i in range(0, flat.size, _PIECE):
                piece = flat[i : i + _PIECE]
                squares = float(np.dot(piece, piece))
                if not _LOW < squares < math.inf:
                    wide = piece.astype(np.float64)
                    squares = float(np.dot(wide, wide))
                total += squares
    return np.asarray(math.sqrt(total), dtype=np.result_type(np.float32, *grads.values()))


def clip_by_norm(grads: Mapping[str, NDArray], *, max_norm: float) -> Clipped:
    """g · min(1, max_norm / (‖g‖ + 10⁻⁶)): shorter, never turned.

    The 10⁻⁶ is torch's; it keeps a tree of zeros from dividing by zero.

    Parameters
    ----------
    grads : dict of name -> array, float32 or float64; not changed
    max_norm : float   the length that is allowed, > 0

    Returns
    -------
    grads : dict of name -> array   the given arrays themselves where nothing is clipped. If the norm is NaN or infinite nothing is: no
            factor repairs such a gradient, and the norm tells the training loop to stop.
    norm : ()   the global norm before clipping

    Raises
    ------
    ValueError   if an array is not float32 or float64, or max_norm is not positive and finite

    Examples
    --------
    >>> clipped = clip_by_norm({"w": np.array([3.0, 4.0])}, max_norm=1.0)
    >>> clipped.grads["w"].round(4), clipped.norm
    (array([0.6, 0.8]), array(5.))
    """
    positive("clip_by_norm", max_norm=max_norm)
    _check("clip_by_norm", grads)
    norm = global_norm(grads)
    scale = max_norm / (float(norm) + 1e-6)
    if scale >= 1 or not math.isfinite(norm):
        return Clipped(dict(grads), norm)
    return Clipped({name: np.multiply(grad, scale, out=np.empty_like(grad)) for name, grad in grads.items()}, norm)


def clip_by_value(grads: Mapping[str, NDArray], *, limit: float) -> dict[str, NDArray]:
    """min(max(g, −limit), limit), entry by entry: this turns the gradient, unlike `clip_by_norm`.

    Parameters
    ----------
    grads : dict of name -> array, float32 or float64; not changed
    limit : float   the largest |entry| that is allowed, > 0

    Returns
    -------
    grads : dict of name -> array   new arrays; NaN stays NaN

    Raises
    ------
    ValueError   if an array is not float32 or float64, or limit is not positive and finite

    Examples
    --------
    >>> clip_by_value({"w": np.array([0.5, -3.0])}, limit=1.0)
    {'w': array([ 0.5, -1. ])}
    """
    positive("clip_by_value", limit=limit)
    _check("clip_by_value", grads)
    return {name: np.clip(grad, -limit, limit, out=np.empty_like(grad)) for name, grad in grads.items()}


def _check(function: str, grads: Mapping[str, NDArray]) -> None:
    demand(function, isinstance(grads, Mapping), "grads as a dict of arrays by name", grads=grads)
    for name, grad in grads.items():
        floats(function, **{f"grads[{name!r}]": grad})
