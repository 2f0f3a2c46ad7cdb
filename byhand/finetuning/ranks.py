"""Ranks from a budget: of parameters, of bytes, or a share of the model; one for all layers, or one for each."""

import dataclasses
import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Literal

from byhand.checks import choice, demand, size
from byhand.configs.lora import LoRAConfig
from byhand.finetuning.sizes import Shape, Storage, adapter_parameters, check_shapes, largest_rank, rank_cost, trained_bytes

Allocation = Literal["uniform", "parameters", "energy"]


class BudgetError(ValueError):
    """A budget in which no adapter of rank 1 fits.

    smallest : int   parameters that the smallest plan needs
    """

    def __init__(self, message: str, *, smallest: int):
        super().__init__(message)
        self.smallest = smallest


@dataclasses.dataclass(frozen=True)
class RankPlan:
    """A rank for every weight.

    ranks : dict        by the module's name;  0: its adapter changes nothing
    parameters : int    of all adapters
    budget : int        what they were allowed
    """

    ranks: dict[str, int]
    parameters: int
    budget: int

    def config(self, config: LoRAConfig) -> LoRAConfig:
        """The config with these ranks: the most frequent one for all (the higher of two), the others by name. α stays as it is."""
        counts = Counter(self.ranks.values())
        usual = max(counts, key=lambda rank: (counts[rank], rank))
        others = {f"^{re.escape(name)}": rank for name, rank in self.ranks.items() if rank != usual}
        return dataclasses.replace(config, r=usual, rank_pattern=others)


def ranks_for_parameters(shapes: Mapping[str, Shape], budget: int, *, allocation: Allocation = "uniform", dora: bool = False,
                         spectra: Mapping[str, Sequence[float]] | None = None) -> RankPlan:
    """The highest ranks whose adapters have at most `budget` parameters together.

    Parameters
    ----------
    shapes : dict        of the weights that get an adapter, by name: (out, in), or a convolution's (out, in, …)
    budget : int         parameters of all adapters together
    allocation           "uniform": one rank for all, the highest that fits (a weight of lower rank has its own). What is left is less than
                         one more rank for all, and is not spent.
                         "parameters": equally many parameters for every weight, so that wide ones have lower ranks: each unit of rank goes
                         where it leaves the adapter smallest, the earlier of two equals, until no further unit fits anywhere.
                         "energy": each unit of rank goes where it catches most of the weights' energy a parameter, σ² / (in + out) of the
                         next singular value, until no further unit fits anywhere.
    dora : bool          whether every adapter also has its row lengths, whatever its rank
    spectra : dict       for "energy": the singular values of every weight, falling

    No rank is above that of its matrix. With "parameters" and "energy" some weights may get rank 0.

    Raises
    ------
    BudgetError   if the budget leaves every weight ("uniform": any weight) without a rank;  ValueError for what is out of range

    Examples
    --------
    >>> shapes = {"up_proj": (16, 4), "q_proj": (4, 4)}
    >>> ranks_for_parameters(shapes, 70).ranks, ranks_for_parameters(shapes, 70, allocation="parameters").ranks
    ({'up_proj': 2, 'q_proj': 2}, {'up_proj': 1, 'q_proj': 4})
    """
    who = "ranks_for_parameters"
    check_shapes(who, shapes)
    size(who, at_least=0, budget=budget)
    choice(who, ("uniform", "parameters", "energy"), allocation=allocation)
    if allocation == "energy":
        _check_spectra(who, shapes, spectra)
    costs, limits = {n: rank_cost(s) for n, s in shapes.items()}, {n: largest_rank(s) for n, s in shapes.items()}
    fixed = sum(adapter_parameters(shape, 0, dora=dora) for shape in shapes.values())
    ranks: dict[str, int]
    if allocation == "uniform":
        smallest = fixed + sum(costs.values())
        ranks = _uniform(costs, limits, budget - fixed)
    else:
        smallest = fixed + min(costs.values())

        def priority(name: str, r: int) -> float:
            if allocation == "parameters":
                return (r + 1) * costs[name]
            assert spectra is not None
            return -float(spectra[name][r]) ** 2 / costs[name]

        ranks = _spend(costs, limits, budget - fixed, priority)
    if not any(ranks.values()):
        raise BudgetError(f"{who} needs a budget of at least {smallest} parameters for rank 1; got {budget}", smallest=smallest)
    return RankPlan(ranks, fixed + sum(costs[name] * r for name, r in ranks.items()), budget)


def ranks_for_memory(shapes: Mapping[str, Shape], budget: int, *, storage: Storage = "float32", states: int = 2,
                     allocation: Allocation = "uniform", dora: bool = False,
                     spectra: Mapping[str, Sequence[float]] | None = None) -> RankPlan:
    """The highest ranks whose adapters, their gradients and the optimizer's float32 states take at most `budget` bytes.

    storage : "float32" or "bfloat16", of adapters and gradients;  states : int, arrays the optimizer keeps for each (AdamW 2, SGD 0).
    The other arguments are those of `ranks_for_parameters`; the plan's budget is in parameters.

    Examples
    --------
    >>> ranks_for_memory({"q_proj": (64, 64)}, 8 * 128 * 16).ranks
    {'q_proj': 8}
    """
    size("ranks_for_memory", at_least=0, budget=budget)
    parameters = budget // trained_bytes(storage, states=states)
    return ranks_for_parameters(shapes, parameters, allocation=allocation, dora=dora, spectra=spectra)


def ranks_for_share(shapes: Mapping[str, Shape], share: float, *, total: int, allocation: Allocation = "uniform", dora: bool = False,
                    spectra: Mapping[str, Sequence[float]] | None = None) -> RankPlan:
    """The highest ranks whose adapters have at most `share` of the `total` parameters of the model (0.01: one per cent).

    The other arguments are those of `ranks_for_parameters`.

    Examples
    --------
    >>> ranks_for_share({"q_proj": (64, 64)}, 0.25, total=64 * 64).parameters
    1024
    """
    who = "ranks_for_share"
    size(who, total=total)
    fits = isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share < math.inf
    demand(who, fits, "share > 0 and finite", share=share)
    budget = math.floor(Fraction(str(share)) * total)  # as it is written: 0.29 of 100 is 29, which floats make 28.999…
    return ranks_for_parameters(shapes, budget, allocation=allocation, dora=dora, spectra=spectra)


def _uniform(costs: Mapping[str, int], limits: Mapping[str, int], budget: int) -> dict[str, int]:
    """The same rank everywhere, up to each limit: the highest that fits, by bisection."""
    def needs(r: int) -> int:
        return sum(cost * min(r, limits[name]) for name, cost in costs.items())

    fits, too_many = 0, max(limits.values()) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if needs(middle) <= budget else (fits, middle)
    return {name: min(fits, limit) for name, limit in limits.items()}


def _spend(costs: Mapping[str, int], limits: Mapping[str, int], budget: int, priority: Callable[[str, int], float]) -> dict[str, int]:
    """One unit of rank at a time to the name of the lowest priority(name, its rank), ties in order, while it fits."""
    ranks, names = dict.fromkeys(costs, 0), list(costs)
    waiting = [(priority(name, 0), i) for i, name in enumerate(names)]
    heapq.heapify(waiting)
    while waiting:
        _, i = heapq.heappop(waiting)
        name = names[i]
        if costs[name] > budget:
            continue                    # and never again: the budget only shrinks
        ranks[name] += 1
        budget -= costs[name]
        if ranks[name] < limits[name]:
            heapq.heappush(waiting, (priority(name, ranks[name]), i))
    return ranks


def _check_spectra(who: str, shapes: Mapping[str, Shape], spectra: Mapping[str, Sequence[float]] | None) -> None:
    known = isinstance(spectra, Mapping) and spectra.keys() >= shapes.keys()
    demand(who, known, "spectra, the singular values of every weight, for the allocation 'energy'",
           missing=sorted(shapes.keys() - (spectra if isinstance(spectra, Mapping) else {}).keys()))
    assert spectra is not None
    for name, shape in shapes.items():
        values = [float(value) for value in spectra[name]]
        fits = all(0 <= value < math.inf for value in values) and values == sorted(values, reverse=True)
        demand(who, fits and len(values) == largest_rank(shape),
               f"spectra[{name!r}] as {largest_rank(shape)} falling, finite singular values", values=values)
