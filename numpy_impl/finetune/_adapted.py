"""What every adapted layer has in common: a frozen base, adapters by name, which of them run and which are merged into the base."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand, in_range
from numpy_impl.finetune.lora import lora_scaling
from numpy_impl.layers.module import Module


class Adapter(Module):
    """One low-rank update s · B A: arrays lora_A, lora_B and, with DoRA, magnitude; and the numbers it was added with.

    It trains only while it runs: what does not contribute to the output has no gradient, and weight decay must not wear it away.
    """

    runs: bool

    def __init__(self, lora_A: NDArray, lora_B: NDArray, *, r: int, alpha: float, rslora: bool, dropout: float, detach_norm: bool):
        self.lora_A, self.lora_B = lora_A, lora_B
        self.magnitude: NDArray | None = None
        self.r, self.alpha, self.rslora, self.dropout, self.detach_norm = r, alpha, rslora, dropout, detach_norm
        self.scaling = lora_scaling(r, alpha, rslora=rslora)
        self.start: tuple[str, NDArray, NDArray] | None = None     # the name, A and B of a start that took a part of the base with it

    @property
    def dora(self) -> bool:
        return self.magnitude is not None

    def trains(self, name: str) -> bool:
        return self.runs and super().trains(name)


class _Adapted(Module):
    """y = base(x) + Σ Δ(x)  over the active adapters: the deltas add, whatever their order.

    base : Module              what this layer stands in for, frozen when it is wrapped (its bias too)
    adapters : dict            the Adapter of each name
    active : tuple of names    those that count, beside the base or merged into it
    merged : tuple of names    those of them that stand in the base's weight at the moment

    `unfreeze` thaws the base's bias only for a pattern that names the base, such as ``"*.base.bias"``, and its weight never: merging and
    unmerging would undo what it learned.

    A layer of its own says what an update looks like: `_shapes` of lora_A and lora_B, `_update`, how far an adapter moves the weight,
    `_stand_in`, a plain layer with another weight; and, where `_has_dora`, the `_norms` of a weight that an adapter has moved.
    """

    base: Any
    adapters: dict[str, Adapter]
    active: tuple[str, ...]
    merged: tuple[str, ...]
    _has_dora = True

    def __init__(self, base: Module):
        self.base = base.freeze()
        self.adapters = {}
        self.active = self.merged = ()
        self._unmerged: tuple[Module, ...] = ()      # the base as it was before anything was merged; a tuple holds no children

    # What each kind of layer defines

    def _shapes(self, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of lora_A and lora_B."""
        raise TypeError(f"{type(self).__name__} defines no _shapes")

    def _update(self, adapter: Adapter) -> NDArray:
        """What `adapter` adds to the weight, in the weight's shape."""
        raise TypeError(f"{type(self).__name__} defines no _update")

    def _stand_in(self, weight: NDArray) -> Module:
        """A plain layer that computes what the base does, with this weight."""
        raise TypeError(f"{type(self).__name__} defines no _stand_in")

    def _norms(self, adapter: Adapter) -> NDArray:
        """‖W + s · B A‖, where DoRA's magnitude starts."""
        raise TypeError(f"{type(self).__name__} defines no _norms")

    def _start(self, r: int, start: str, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Where lora_A and lora_B start: A random, B zero, so that the first output is the base's."""
        shape_A, shape_B = self._shapes(r)
        if start == "gaussian":
            lora_A = rng.standard_normal(shape_A) / r
        else:
            bound = 1 / math.sqrt(math.prod(shape_A[1:]))    # Kaiming's √(6 / ((1 + a²) · fan_in)) with a = √5
            lora_A = rng.uniform(-bound, bound, shape_A)
        return lora_A, np.zeros(shape_B)

    # Adapters come and go

    def add(self, name: str = "default", *, r: int, alpha: float, rslora: bool = False, dropout: float = 0.0, dora: bool = False,
            detach_norm: bool = True, start: str = "kaiming", rng: np.random.Generator | None = None) -> None:
        """Add an adapter that changes nothing yet, and make it active beside those that are.

        Parameters
        ----------
        name : str           new here, not empty and without a dot
        r : int              the rank; 0 has no effect, and nothing forbids more than the weight's own
        alpha : float        the update counts α/r, or α/√r
        rslora : bool        whether it is α/√r
        dropout : float      probability in [0, 1] for an entry of the input, on the adapter's path only; its stream bears its name
        dora : bool          whether a magnitude is trained beside it (DoRA)
        detach_norm : bool   with DoRA: whether the gradient takes the norm for a constant, as the paper proposes
        start : str          of A: "kaiming", uniform in ±1/√fan_in, or "gaussian", normal with deviation 1/r; B starts at zero
        rng                  np.random.Generator of the start

        Raises
        ------
        ValueError   if a value is out of range or the name is taken; then nothing has been changed
        """
        who = type(self).__name__
        demand(who, isinstance(name, str) and name != "" and "." not in name, "a name for the adapter, without a dot", name=name)
        demand(who, name not in self.adapters, f"a name other than {', '.join(self.adapters)}", name=name)
        lora_scaling(r, alpha)
        in_range(who, 0, 1, dropout=dropout)
        choice(who, ("kaiming", "gaussian"), start=start)
        demand(who, not dora or self._has_dora, "dora=False, as it has no magnitudes", dora=dora)
        dtype = self._dtype
        lora_A, lora_B = (array.astype(dtype) for array in self._start(r, start, rng or np.random.default_rng()))
        adapter = Adapter(lora_A, lora_B, r=r, alpha=alpha, rslora=rslora, dropout=dropout, detach_norm=detach_norm)
        if dora:
            adapter.magnitude = self._norms(adapter)
        self.adapters[name] = adapter
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
        """Add the deltas of these adapters (without names, of the active ones) into the base's weight.

        A plain layer with the new weight takes the base's place; the base itself is kept aside, so `unmerge` returns it as it was, bit by
        bit. A quantized base is replaced by a plain layer in full precision. A merged adapter counts as active; it does not train.

        Raises
        ------
        ValueError   if there is nothing to merge, or an adapter is unknown or merged already; then nothing has been changed
        """
        names = names or self.active
        demand(f"{type(self).__name__}.merge", names != (), "an active adapter, or the name of one", active=self.active)
        self._known("merge", names)
        twice = [name for i, name in enumerate(names) if name in self.merged + names[:i]]
        demand(f"{type(self).__name__}.merge", not twice, "adapters that are not merged yet", merged=twice)
        unmerged, self.base = self._unmerged or (self.base,), self.folded(*names)
        self._unmerged, self.merged = unmerged, self.merged + names
        self._choose(self.active + tuple(name for name in names if name not in self.active))

    def unmerge(self) -> None:
        """Put back the base as it was before anything was merged, bit by bit; its bias trains if that of the merged layer does."""
        demand(f"{type(self).__name__}.unmerge", self.merged != (), "a merged adapter", merged=self.merged)
        (base,) = self._unmerged
        (base.unfreeze if self.base.trains("bias") else base.freeze)("bias")
        self.base, self._unmerged, self.merged = base, (), ()
        self._choose(self.active)

    def folded(self, *names: str) -> Module:
        """A plain layer: the base with the deltas of these adapters added to its weight; without names, with those that count.

        This layer is left as it is. Where there is nothing to add, its base itself is returned.
        """
        self._known("folded", names)
        names = names or tuple(name for name, _ in self._running)
        if not names:
            return self.base
        weight = self.base.weight + self.delta(names[0])
        for name in names[1:]:
            weight += self.delta(name)
        return self._stand_in(weight)

    def delta(self, name: str) -> NDArray:
        """How far an adapter moves the weight: an array of the weight's shape."""
        self._known("delta", (name,))
        return self._update(self.adapters[name])

    def scaling(self, name: str) -> float:
        """The factor s of an adapter's update."""
        self._known("scaling", (name,))
        return self.adapters[name].scaling

    # What the methods above share

    @property
    def _original(self) -> Any:
        """The base without what is merged."""
        return self._unmerged[0] if self._unmerged else self.base

    @property
    def _dtype(self) -> np.dtype:
        return self.base.weight.dtype

    @property
    def _running(self) -> list[tuple[str, Adapter]]:
        """The adapters that a forward adds to the base."""
        return [(name, self.adapters[name]) for name in self.active if name not in self.merged]

    def _choose(self, active: tuple[str, ...]) -> None:
        self.active = active
        for name, adapter in self.adapters.items():
            adapter.runs = name in active and name not in self.merged

    def _known(self, method: str, names: tuple[str, ...]) -> None:
        for name in names:
            choice(f"{type(self).__name__}.{method}", self.adapters, adapter=name)

    def _demand_unmerged(self, method: str, merged: bool) -> None:
        demand(f"{type(self).__name__}.{method}", not merged, "what is merged to be unmerged first", merged=self.merged)

    def _set_frozen(self, patterns: tuple[str, ...], frozen: bool, prefix: str) -> Module:
        for name, child in self.children():
            heard = patterns if frozen or name != "base" else tuple(pattern for pattern in patterns if "base" in pattern)
            child._set_frozen(heard, frozen, f"{prefix}{name}.")
        self.base.freeze("weight")
        return self
