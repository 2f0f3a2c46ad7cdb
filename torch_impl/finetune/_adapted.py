"""What every adapted layer has in common: a frozen base, adapters by name, which of them run and which are merged into the base."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import choice, demand, in_range
from torch_impl.finetune.lora import lora_scaling


class Adapter(nn.Module):
    """One low-rank update s · B A: parameters lora_A, lora_B and, with DoRA, magnitude; they require gradients only while it runs.

    Those that a user has frozen stay so when it runs again.
    """

    magnitude: nn.Parameter | None

    def __init__(self, lora_A: Tensor, lora_B: Tensor, *, r: int, alpha: float, rslora: bool, dropout: float, detach_norm: bool):
        super().__init__()
        self.lora_A, self.lora_B = nn.Parameter(lora_A), nn.Parameter(lora_B)
        self.register_parameter("magnitude", None)
        self.r, self.alpha, self.rslora, self.dropout, self.detach_norm = r, alpha, rslora, dropout, detach_norm
        self.scaling = lora_scaling(r, alpha, rslora=rslora)
        self.start: tuple[str, Tensor, Tensor] | None = None     # the name, A and B of a start that took a part of the base with it
        self._runs = True
        self._trained: tuple[str, ...] = ()              # while it does not run: what required gradients when it last did

    def run(self, runs: bool) -> None:
        """Let it run, or let it rest."""
        if runs and not self._runs:
            for name in self._trained:
                self.get_parameter(name).requires_grad_(True)
        elif self._runs and not runs:
            self._trained = tuple(name for name, parameter in self.named_parameters() if parameter.requires_grad)
            self.requires_grad_(False)
        self._runs = runs

    @property
    def dora(self) -> bool:
        return self.magnitude is not None


class _Adapted(nn.Module):
    """y = base(x) + Σ Δ(x)  over the active adapters. The base is frozen when it is wrapped; see the NumPy side for what each method means.

    Whether an adapter's parameters require gradients changes whenever adapters are enabled, merged or taken out again.
    """

    base: Any
    adapters: Any                                        # an nn.ModuleDict of Adapter
    active: tuple[str, ...]
    merged: tuple[str, ...]
    _has_dora = True

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapters = nn.ModuleDict()
        self.active = self.merged = ()
        self._unmerged: tuple[nn.Module, ...] = ()       # the base as it was before anything was merged; a tuple registers nothing

    # What each kind of layer defines

    def _shapes(self, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of lora_A and lora_B."""
        raise TypeError(f"{type(self).__name__} defines no _shapes")

    def _update(self, adapter: Adapter) -> Tensor:
        """What `adapter` adds to the weight, in the weight's shape."""
        raise TypeError(f"{type(self).__name__} defines no _update")

    def _stand_in(self, weight: Tensor) -> nn.Module:
        """A plain layer that computes what the base does, with this weight."""
        raise TypeError(f"{type(self).__name__} defines no _stand_in")

    def _norms(self, adapter: Adapter) -> Tensor:
        """‖W + s · B A‖, where DoRA's magnitude starts."""
        raise TypeError(f"{type(self).__name__} defines no _norms")

    def _start(self, r: int, start: str, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Where lora_A and lora_B start: A random, B zero, so that the first output is the base's."""
        shape_A, shape_B = self._shapes(r)
        lora_A = self._like.new_empty(shape_A)
        if start == "gaussian":
            lora_A.normal_(std=1 / max(r, 1), generator=rng)
        else:
            bound = 1 / math.sqrt(math.prod(shape_A[1:]))
            lora_A.uniform_(-bound, bound, generator=rng)
        return lora_A, self._like.new_zeros(shape_B)

    # Adapters come and go

    @torch.no_grad()
    def add(self, name: str = "default", *, r: int, alpha: float, rslora: bool = False, dropout: float = 0.0, dora: bool = False,
            detach_norm: bool = True, start: str = "kaiming", rng: torch.Generator | None = None) -> None:
        """Add an adapter that changes nothing yet, and make it active beside those that are."""
        who = type(self).__name__
        demand(who, isinstance(name, str) and name != "" and "." not in name, "a name for the adapter, without a dot", name=name)
        demand(who, name not in self.adapters, f"a name other than {', '.join(self.adapters)}", name=name)
        lora_scaling(r, alpha)
        in_range(who, 0, 1, dropout=dropout)
        choice(who, ("kaiming", "gaussian"), start=start)
        demand(who, not dora or self._has_dora, "dora=False, as it has no magnitudes", dora=dora)
        lora_A, lora_B = self._start(r, start, rng)
        adapter = Adapter(lora_A, lora_B, r=r, alpha=alpha, rslora=rslora, dropout=dropout, detach_norm=detach_norm)
        if dora:
            adapter.magnitude = nn.Parameter(self._norms(adapter))
        self.adapters._modules[name] = adapter           # ModuleDict itself refuses "train", "type" and other names of its attributes
        self._choose((*self.active, name))

    def remove(self, name: str) -> None:
        """Forget an adapter that is not merged."""
        self._known("remove", (name,))
        self._demand_unmerged("remove", name in self.merged)
        del self.adapters[name]
        self._choose(tuple(other for other in self.active if other != name))

    def enable(self, *names: str) -> None:
        """Let exactly these adapters count (without names, all): the others neither contribute nor train."""
        self._known("enable", names)
        self._demand_unmerged("enable", self.merged != ())
        self._choose(names or tuple(self.adapters))

    def disable(self) -> None:
        """Let no adapter count: the layer computes what its base does."""
        self._demand_unmerged("disable", self.merged != ())
        self._choose(())

    # Into the base's weight and out again

    def merge(self, *names: str) -> None:
        """Add the deltas of these adapters (without names, of the active ones) into the weight of a plain layer in the base's place."""
        names = names or self.active
        demand(f"{type(self).__name__}.merge", names != (), "an active adapter, or the name of one", active=self.active)
        self._known("merge", names)
        twice = [name for i, name in enumerate(names) if name in self.merged + names[:i]]
        demand(f"{type(self).__name__}.merge", not twice, "adapters that are not merged yet", merged=twice)
        unmerged, self.base = self._unmerged or (self.base,), self.folded(*names)
        self._unmerged, self.merged = unmerged, self.merged + names
        self._choose(self.active + tuple(name for name in names if name not in self.active))

    def unmerge(self) -> None:
        """Put back the base as it was before anything was merged, bit by bit."""
        demand(f"{type(self).__name__}.unmerge", self.merged != (), "a merged adapter", merged=self.merged)
        (self.base,), self._unmerged, self.merged = self._unmerged, (), ()
        self._choose(self.active)

    @torch.no_grad()
    def folded(self, *names: str) -> nn.Module:
        """A plain layer: the base with the deltas of these adapters added to its weight; without names, with those that count."""
        self._known("folded", names)
        names = names or tuple(name for name, _ in self._running)
        if not names:
            return self.base
        weight = self.base.weight + self.delta(names[0])
        for name in names[1:]:
            weight += self.delta(name)
        return self._stand_in(weight)

    @torch.no_grad()
    def delta(self, name: str) -> Tensor:
        """How far an adapter moves the weight: an array of the weight's shape."""
        self._known("delta", (name,))
        return self._update(self.adapters[name])

    def scaling(self, name: str) -> float:
        """The factor s of an adapter's update."""
        self._known("scaling", (name,))
        return self.adapters[name].scaling

    # What the methods above share

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What `to`, `cuda`, `double` … stand on: the base that is kept aside goes along, though a tuple registers nothing."""
        for kept in self._unmerged:
            kept._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @property
    def _original(self) -> Any:
        """The base without what is merged."""
        return self._unmerged[0] if self._unmerged else self.base

    @property
    def _like(self) -> Tensor:
        """A tensor of the dtype and on the device that new adapters get."""
        return self.base.weight

    @property
    def _running(self) -> list[tuple[str, Adapter]]:
        """The adapters that a forward adds to the base."""
        return [(name, self.adapters[name]) for name in self.active if name not in self.merged]

    def _choose(self, active: tuple[str, ...]) -> None:
        self.active = active
        for name, adapter in self.adapters.items():
            adapter.run(name in active and name not in self.merged)

    def _known(self, method: str, names: tuple[str, ...]) -> None:
        for name in names:
            choice(f"{type(self).__name__}.{method}", self.adapters, adapter=name)

    def _demand_unmerged(self, method: str, merged: bool) -> None:
        demand(f"{type(self).__name__}.{method}", not merged, "what is merged to be unmerged first", merged=self.merged)
