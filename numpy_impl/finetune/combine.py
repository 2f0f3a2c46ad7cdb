"""Several adapters as one: a weighted sum of their updates, exact or of a smaller rank."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, choice, demand, fail, floats, in_range, same_shape, size
from numpy_impl.finetune._adapted import Adapter, _Adapted
from numpy_impl.finetune._svd import settled, truncated_svd
from numpy_impl.layers.module import Module

Kind = Literal["linear", "cat", "svd"]


class Factors(NamedTuple):
    """The two factors of an update B A: lora_A (R, ...) and lora_B (O, R, ...), to be used with a scaling of 1."""

    lora_A: NDArray
    lora_B: NDArray


def combine_factors(
    adapters: Sequence[tuple[NDArray, NDArray, float]], *, weights: Sequence[float], kind: Kind, r: int | None = None
) -> Factors:
    """B A = Σ_i c_i · B_i A_i,  c_i = weight_i · s_i,  in one of three ways:

    - "cat": A = [c_1 A_1; c_2 A_2; …], B = [B_1, B_2, …]. Exact; the rank is the sum of the ranks.
    - "svd": the nearest matrix of rank r, one half of every singular value in A and one in B. Exact if r is at least the sum of the ranks.
    - "linear": A = Σ ±√|c_i| A_i, B = Σ √|c_i| B_i, the sign of c_i being A's. The rank stays, but B A has B_i A_j of different adapters
      besides: cheap, and right for one adapter alone, or where the others' factors share no directions.

    Parameters
    ----------
    adapters : list of (A_i (R_i, I), B_i (O, R_i), s_i)   factors and scaling of each, of one dtype; a convolution's have further axes
    weights : list of float                                one for each; a negative one subtracts the update, in each of the ways
    kind : str
    r : int                                                the rank of "svd", 0 or more; the largest R_i by default

    Returns
    -------
    lora_A : (R, I, ...), lora_B : (O, R, ...)   the scaling is in them

    Raises
    ------
    ValueError   if there is no adapter, a weight is missing, a weight or scaling is not finite (or a factor, for "svd"), shapes do not fit,
                 kind is unknown, or r is given for another kind; a convolution in groups, whose B holds a part of R for each, can only be
                 combined as "linear"

    Examples
    --------
    >>> one = np.array([[1.0, 2.0]]), np.array([[1.0], [0.0]]), 2.0
    >>> other = np.array([[0.0, 1.0]]), np.array([[0.0], [1.0]]), 4.0
    >>> lora_A, lora_B = combine_factors([one, other], weights=[0.5, -0.25], kind="cat")
    >>> lora_B @ lora_A                               # 1 · B_1 A_1 − 1 · B_2 A_2
    array([[ 1.,  2.],
           [ 0., -1.]])
    >>> lora_A, lora_B = combine_factors([one, other], weights=[0.5, -0.25], kind="linear")
    >>> lora_B @ lora_A                               # and B_2 A_1 − B_1 A_2 besides
    array([[1., 1.],
           [1., 1.]])
    """
    who = "combine_factors"
    choice(who, ("linear", "cat", "svd"), kind=kind)
    demand(who, len(weights) == len(adapters) > 0, "adapters, and a weight for each", adapters=len(adapters), weights=len(weights))
    demand(who, r is None or kind == "svd", "a rank for 'svd' alone: it follows from the adapters elsewhere", r=r, kind=kind)
    if r is not None:
        size(who, at_least=0, r=r)
    first_A, first_B, _ = adapters[0]
    for (lora_A, lora_B, scaling), weight in zip(adapters, weights, strict=True):
        floats(who, first_A=first_A, lora_A=lora_A, lora_B=lora_B)
        at_least_rank(who, 2, lora_A=lora_A, lora_B=lora_B)
        rank = first_A.shape[0] if kind == "linear" else lora_A.shape[0]
        same_shape(who, (rank, *first_A.shape[1:]), lora_A=lora_A)
        same_shape(who, first_B.shape if kind == "linear" else (first_B.shape[0], rank, *first_B.shape[2:]), lora_B=lora_B)
        in_range(who, -1e30, 1e30, scaling=scaling, weight=weight)
        finite = kind != "svd" or bool(np.isfinite(lora_A).all() and np.isfinite(lora_B).all())
        demand(who, finite, "finite factors for 'svd'", lora_A=lora_A, lora_B=lora_B)

    counts = [float(weight * scaling) for (_, _, scaling), weight in zip(adapters, weights, strict=True)]
    if kind == "linear":
        roots = [math.sqrt(abs(count)) for count in counts]
        signed = [math.copysign(root, count) for root, count in zip(roots, counts, strict=True)]
        return Factors(sum(root * lora_A for root, (lora_A, _, _) in zip(signed, adapters, strict=True)),
                       sum(root * lora_B for root, (_, lora_B, _) in zip(roots, adapters, strict=True)))
    all_A = np.concatenate([count * lora_A for count, (lora_A, _, _) in zip(counts, adapters, strict=True)])
    all_B = np.concatenate([lora_B for _, lora_B, _ in adapters], axis=1)
    if kind == "cat":
        return Factors(all_A, all_B)
    return _nearest(all_A, all_B, max(len(lora_A) for lora_A, _, _ in adapters) if r is None else r)


def combine_adapters(model: Module, weights: Mapping[str, float], *, name: str, kind: Kind, r: int | None = None) -> list[str]:
    """Add the adapter `name` to every module that has one of those named in `weights`: their weighted sum, as `combine_factors` makes it.

    A module that has only some of them sums those. The new adapter does not run yet, and what ran goes on: `enable` it instead.

    Parameters
    ----------
    model : Module          with adapters below it, or an adapted layer itself
    weights : dict          the weight of each adapter, by name
    name : str              of the new adapter: α = r, so that its scaling is 1
    kind, r : as in `combine_factors`; with "linear" the adapters of a module have one rank

    Returns
    -------
    names : list of str     the modules that have the new adapter ("" for an adapted layer itself)

    Raises
    ------
    ValueError   as `combine_factors`, and if the model has no adapter of a name, one is a DoRA (its update has not the rank of its factors)
                 or started from what it took out of the base, or `name` is taken; then nothing has been changed

    Source: the three ways are those of Hugging Face's PEFT, `add_weighted_adapter`.

    Examples
    --------
    >>> from numpy_impl.finetune.lora_linear import LoRALinear
    >>> from numpy_impl.layers.linear import Linear
    >>> layer = LoRALinear(Linear(3, 4), r=2, alpha=4)
    >>> layer.add("other", r=1, alpha=1)
    >>> combine_adapters(layer, {"default": 0.5, "other": 2.0}, name="both", kind="cat")
    ['']
    >>> layer.adapters["both"].r, layer.scaling("both"), layer.active
    (3, 1.0, ('default', 'other'))
    """
    who = "combine_adapters"
    found = {"": model} if isinstance(model, _Adapted) else {place: m for place, m in model.modules() if isinstance(m, _Adapted)}
    demand(who, len(weights) > 0, "the weight of one adapter at least", weights=weights)
    known = dict.fromkeys(one for module in found.values() for one in module.adapters)
    demand(who, len(known) > 0, "a model with adapters", model=type(model).__name__)
    for adapter in weights:
        choice(who, known, adapter=adapter)
    demand(who, isinstance(name, str) and name != "" and "." not in name, "a name for the new adapter, without a dot", name=name)
    demand(who, name not in known, f"a name other than {', '.join(known)}", name=name)

    combined = {}
    for place, module in found.items():
        own = {adapter: module.adapters[adapter] for adapter in weights if adapter in module.adapters}
        for adapter, held in own.items():
            _check_update(who, place, adapter, held)
        if own:
            factors = [(held.lora_A, held.lora_B, held.scaling) for held in own.values()]
            combined[place] = combine_factors(factors, weights=[weights[adapter] for adapter in own], kind=kind, r=r)
    for place, (lora_A, lora_B) in combined.items():
        module, active = found[place], found[place].active
        module.add(name, r=len(lora_A), alpha=float(len(lora_A)))
        module.adapters[name].lora_A[...], module.adapters[name].lora_B[...] = lora_A, lora_B
        module._choose(active)
    return list(combined)


def _nearest(lora_A: NDArray, lora_B: NDArray, r: int) -> Factors:
    """The nearest product of rank r to B A, which is never formed."""
    # B = Q_B R_B and Aᵀ = Q_A R_A have orthonormal Qs, so that the singular values of B A = Q_B (R_B R_Aᵀ) Q_Aᵀ are those of the little
    # matrix in the middle, at most R by R, and its singular vectors only have to be turned by the Qs.
    flat_A, flat_B = lora_A.reshape(len(lora_A), math.prod(lora_A.shape[1:])), lora_B.reshape(lora_B.shape[:2])   # (R, I), (O, R)
    q_B, upper_B = np.linalg.qr(flat_B)
    q_A, upper_A = np.linalg.qr(flat_A.T)
    u, s, vt = truncated_svd(upper_B @ upper_A.T, r)
    u, vt = settled(q_B @ u, vt @ q_A.T)
    root = np.sqrt(s)
    return Factors((root[:, None] * vt).reshape(r, *lora_A.shape[1:]), (u * root).reshape(len(lora_B), r, *lora_B.shape[2:]))


def _check_update(who: str, place: str, name: str, adapter: Adapter) -> None:
    """Fail unless the update is s · B A, on the base as it was."""
    where = f"{name!r} in {place}" if place else repr(name)
    if adapter.dora:
        fail(who, "adapters without magnitudes (DoRA)", where)
    if adapter.start is not None:
        fail(who, "adapters that left the base as it was", f"{where}, which started as {adapter.start[0]!r}")
