"""Several adapters as one: a weighted sum of their updates, exact or of a smaller rank."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from byhand.checks import at_least_rank, choice, demand, fail, floats, in_range, same_shape, size
from torch_impl.finetune._adapted import Adapter, _Adapted
from torch_impl.finetune._svd import settled, truncated_svd

Kind = Literal["linear", "cat", "svd"]


class Factors(NamedTuple):
    """The two factors of an update B A: lora_A (R, ...) and lora_B (O, R, ...), to be used with a scaling of 1."""

    lora_A: Tensor
    lora_B: Tensor


@torch.no_grad()
def combine_factors(
    adapters: Sequence[tuple[Tensor, Tensor, float]], *, weights: Sequence[float], kind: Kind, r: int | None = None
) -> Factors:
    """B A = Σ_i c_i · B_i A_i,  c_i = weight_i · s_i:  exactly ("cat"), nearest of rank r ("svd"), or with mixed terms besides ("linear").

    adapters: (lora_A (R_i, I), lora_B (O, R_i), s_i) of each -> lora_A (R, I), lora_B (O, R), the scaling in them.
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
        finite = kind != "svd" or bool(lora_A.isfinite().all() and lora_B.isfinite().all())
        demand(who, finite, "finite factors for 'svd'", lora_A=lora_A, lora_B=lora_B)

    counts = [float(weight * scaling) for (_, _, scaling), weight in zip(adapters, weights, strict=True)]
    if kind == "linear":
        roots = [math.sqrt(abs(count)) for count in counts]
        signed = [math.copysign(root, count) for root, count in zip(roots, counts, strict=True)]
        return Factors(sum(root * lora_A for root, (lora_A, _, _) in zip(signed, adapters, strict=True)),
                       sum(root * lora_B for root, (_, lora_B, _) in zip(roots, adapters, strict=True)))
    all_A = torch.cat([count * lora_A for count, (lora_A, _, _) in zip(counts, adapters, strict=True)])
    all_B = torch.cat([lora_B for _, lora_B, _ in adapters], dim=1)
    if kind == "cat":
        return Factors(all_A, all_B)
    return _nearest(all_A, all_B, max(len(lora_A) for lora_A, _, _ in adapters) if r is None else r)


@torch.no_grad()
def combine_adapters(model: nn.Module, weights: Mapping[str, float], *, name: str, kind: Kind, r: int | None = None) -> list[str]:
    """Add the adapter `name` to every module that has one of those named in `weights`: their weighted sum, as `combine_factors` makes it.

    The new adapter does not run yet, and what ran goes on. Returns the names of the modules that have it.
    """
    who = "combine_adapters"
    found = {"": model} if isinstance(model, _Adapted) else {place: m for place, m in model.named_modules() if isinstance(m, _Adapted)}
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
        module.adapters[name].lora_A.copy_(lora_A)
        module.adapters[name].lora_B.copy_(lora_B)
        module._choose(active)
    return list(combined)


def _nearest(lora_A: Tensor, lora_B: Tensor, r: int) -> Factors:
    """The nearest product of rank r to B A, from the little matrix that QR leaves of both; computed in float32 at least."""
    wide = torch.promote_types(lora_A.dtype, torch.float32)
    flat_A, flat_B = lora_A.reshape(len(lora_A), math.prod(lora_A.shape[1:])).to(wide), lora_B.reshape(lora_B.shape[:2]).to(wide)
    q_B, upper_B = torch.linalg.qr(flat_B)
    q_A, upper_A = torch.linalg.qr(flat_A.mT)
    u, s, vt = truncated_svd(upper_B @ upper_A.mT, r)
    u, vt = settled(q_B @ u, vt @ q_A.mT)
    root = s.sqrt()
    new_A, new_B = (root[:, None] * vt).to(lora_A.dtype), (u * root).to(lora_B.dtype)
    return Factors(new_A.reshape(r, *lora_A.shape[1:]), new_B.reshape(len(lora_B), r, *lora_B.shape[2:]))


def _check_update(who: str, place: str, name: str, adapter: Adapter) -> None:
    """Fail unless the update is s · B A, on the base as it was."""
    where = f"{name!r} in {place}" if place else repr(name)
    if adapter.dora:
        fail(who, "adapters without magnitudes (DoRA)", where)
    if adapter.start is not None:
        fail(who, "adapters that left the base as it was", f"{where}, which started as {adapter.start[0]!r}")
