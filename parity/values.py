"""What examples are made of: structure that is drawn, and values that are filled in afterwards.

A case draws *structure* (ranks, sizes, flags, omissions) through a `Draw`, which either a seeded census or hypothesis drives. Arrays are
only described while drawing. `fill` turns the descriptions into numbers, keyed by (example, argument name), so that two arguments never
share their values and a shrinking example keeps them. In an example that is not *ordinary*, one argument is made hostile.
"""

import dataclasses
import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.noise import Noise


class Spec:
    """Something a case can draw."""

    def resolve(self, draw: "Draw") -> Any:
        """The drawn value; arrays resolve to themselves and are filled later."""
        return self


class Draw:
    """The one interface through which cases draw; drivers supply `pick`.

    ordinary : bool   no hostile values, widths of at least 3
    edges : bool      sizes are 0 or 1 wherever the case allows it
    """

    def __init__(self, *, ordinary: bool, edges: bool = False):
        self.ordinary, self.edges = ordinary, edges

    def pick(self, count: int) -> int:
        """An index in [0, count); 0 is the simplest choice, towards which hypothesis shrinks."""
        raise TypeError(f"{type(self).__name__} defines no pick")

    def __call__(self, spec: Any) -> Any:
        return spec.resolve(self) if isinstance(spec, Spec) else spec


class Census(Draw):
    """A seeded, diverse stream of choices: what the report and the mutants run on."""

    def __init__(self, key: str, *, ordinary: bool, edges: bool = False):
        super().__init__(ordinary=ordinary, edges=edges)
        self._random = random.Random(key)

    def pick(self, count: int) -> int:
        return self._random.randrange(count)


class Hypothesis(Draw):
    """Choices that hypothesis makes, and shrinks when a law fails."""

    def __init__(self, draw: Callable[[Any], Any], *, ordinary: bool, edges: bool = False):
        from hypothesis import strategies

        super().__init__(ordinary=ordinary, edges=edges)
        self._draw, self._strategies = draw, strategies

    def pick(self, count: int) -> int:
        return self._draw(self._strategies.integers(0, count - 1))


class Large(Draw):
    """The simplest choices at the size of real work: what benchmarks run on."""

    shape = (4096, 768)

    def __init__(self) -> None:
        super().__init__(ordinary=True)

    def pick(self, count: int) -> int:
        return 0


# --- structure ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Size(Spec):
    low: int
    high: int

    def resolve(self, draw: Draw) -> int:
        if draw.edges:
            return self.low
        low = max(self.low, min(3, self.high)) if draw.ordinary else self.low
        return low + draw.pick(self.high - low + 1)


@dataclasses.dataclass(frozen=True)
class _Dims(Spec):
    min_rank: int
    max_rank: int
    min_last: int

    def resolve(self, draw: Draw) -> tuple[int, ...]:
        if isinstance(draw, Large):
            rank = max(self.min_rank, min(2, self.max_rank))
            return (*(1,) * (rank - 2), *draw.shape)[-rank:] if rank else ()
        rank = self.min_rank + draw.pick(self.max_rank - self.min_rank + 1)
        if draw.edges:
            sizes = [(1, 0)[draw.pick(2)] for _ in range(rank)]
        elif draw.ordinary:
            sizes = [1 + draw.pick(3) for _ in range(rank - 1)] + [3 + draw.pick(6)] * (rank > 0)
        else:
            sizes = [(1, 2, 3, 4, 5, 7, 0)[draw.pick(7)] for _ in range(rank)]
        if rank:
            sizes[-1] = max(sizes[-1], self.min_last)
        return tuple(sizes)


@dataclasses.dataclass(frozen=True)
class _Number(Spec):
    low: float
    high: float
    whole: bool

    def resolve(self, draw: Draw) -> float:
        if self.whole:
            return int(self.low) + draw.pick(int(self.high) - int(self.low) + 1)
        return self.low + (self.high - self.low) * draw.pick(1001) / 1000


@dataclasses.dataclass(frozen=True)
class _OneOf(Spec):
    options: tuple[Any, ...]

    def resolve(self, draw: Draw) -> Any:
        return draw(self.options[draw.pick(len(self.options))])


LEFT_OUT = object()


def size(low: int = 1, high: int = 6) -> Spec:
    """An int in [low, high]; in ordinary examples at least min(3, high)."""
    return _Size(low, high)


def dims(min_rank: int = 1, max_rank: int = 4, min_last: int = 0) -> Spec:
    """A shape of small sizes, 0 and 1 among them; the last is at least `min_last`."""
    return _Dims(min_rank, max_rank, min_last)


def integer(low: int, high: int) -> Spec:
    """An int in [low, high]."""
    return _Number(low, high, True)


def number(low: float, high: float) -> Spec:
    """A float in [low, high], in a thousand steps."""
    return _Number(low, high, False)


def one_of(*options: Any) -> Spec:
    """One of the options, each of which may be a spec itself."""
    return _OneOf(options)


def flag() -> Spec:
    """False or True."""
    return _OneOf((False, True))


def maybe(spec: Any) -> Spec:
    """The spec, or (one time in three) None."""
    return _OneOf((spec, None, spec))


def left_out(spec: Any) -> Spec:
    """The spec, or (one time in three) nothing: the argument is not passed, and its default is what is tested."""
    return _OneOf((LEFT_OUT, spec, spec))


# --- arrays ------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Filled(Spec):
    """A description whose value depends on the example and on the argument's name."""

    shape: tuple[int, ...]

    def make(self, rng: np.random.Generator, hostility: str | None) -> Any:
        raise TypeError(f"{type(self).__name__} defines no make")


@dataclasses.dataclass(frozen=True)
class _Floats(Filled):
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    hostile: bool = True

    def make(self, rng: np.random.Generator, hostility: str | None) -> NDArray:
        if self.low is not None and self.high is not None:
            values = rng.uniform(self.low, self.high, self.shape)
        else:
            values = self.scale * rng.standard_normal(self.shape)
            if hostility and self.hostile and values.size:
                values = HOSTILITIES[hostility](values, rng)
        return np.asarray(values, dtype=np.float32).astype(np.float64)  # the same number in either precision


@dataclasses.dataclass(frozen=True)
class _Ids(Filled):
    below: int
    at_least: int = 0

    def make(self, rng: np.random.Generator, hostility: str | None) -> NDArray:
        below = self.below if math.prod(self.shape) else self.at_least + 1  # nothing is drawn, but integers() wants a range
        return np.asarray(rng.integers(self.at_least, below, self.shape, dtype=np.int64))


@dataclasses.dataclass(frozen=True)
class _Mask(Filled):
    p: float = 0.7

    def make(self, rng: np.random.Generator, hostility: str | None) -> NDArray:
        kept = np.asarray(rng.random(self.shape) < self.p)
        if kept.ndim and kept.size and rng.random() < 0.4:  # a row in which nothing is kept
            kept.reshape(-1, kept.shape[-1])[rng.integers(kept.size // kept.shape[-1])] = False
        return kept


@dataclasses.dataclass(frozen=True)
class _Noise(Filled):
    def make(self, rng: np.random.Generator, hostility: str | None) -> Noise:
        return Noise(seed=int(rng.integers(1 << 63)), step=int(rng.integers(1 << 32)), site=int(rng.integers(1 << 63)))


def array(*shape: int, scale: float = 1.0, low: float | None = None, high: float | None = None, hostile: bool = True) -> Filled:
    """Floats: normals times `scale`, or uniform in [low, high]; exact in float32."""
    return _Floats(shape, scale, low, high, hostile)


def ids(*shape: int, below: int, at_least: int = 0) -> Filled:
    """Integers in [at_least, below), int64."""
    return _Ids(shape, below, at_least)


def mask(*shape: int, p: float = 0.7) -> Filled:
    """Booleans, True with probability p; now and then a whole row is False."""
    return _Mask(shape, p)


def noise() -> Filled:
    """A `byhand.noise.Noise` of its own."""
    return _Noise(())


# --- hostile values ----------------------------------------------------------------------------------------------------------------


def _some(values: NDArray, rng: np.random.Generator, palette: tuple[float, ...]) -> NDArray:
    chosen = rng.random(values.shape) < 0.3
    return np.where(chosen, rng.choice(palette, values.shape), values)


def _constant_rows(values: NDArray, rng: np.random.Generator) -> NDArray:
    return np.broadcast_to(values[..., :1], values.shape).copy() if values.ndim else values


HOSTILITIES = {
    "zeros of both signs": lambda v, rng: _some(v, rng, (0.0, -0.0)),
    "denormals": lambda v, rng: _some(v, rng, (1e-40, -1e-40)),
    "large entries": lambda v, rng: _some(v, rng, (1e3, -1e3)),
    "tiny entries": lambda v, rng: _some(v, rng, (1e-30, -1e-30)),
    "ties": lambda v, rng: np.round(v),
    "constant rows": _constant_rows,
    "another power of ten": lambda v, rng: v * 10.0 ** rng.integers(-5, 4),
    "large negative rows": lambda v, rng: v - 1000.0,
    "a spread above 700": lambda v, rng: _some(v, rng, (400.0, -400.0)),
}


def key_rng(*key: Any) -> np.random.Generator:
    """A generator of its own for every key."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


@dataclasses.dataclass
class Example:
    """One drawn structure and the key from which its values follow."""

    key: str
    ordinary: bool
    inputs: Any

    def fill(self, extra: Mapping[str, Filled] | None = None) -> tuple[Any, dict[str, Any]]:
        """(inputs with every array filled, the filled `extra`): NumPy arrays, float64 numbers that float32 can hold.

        `extra` are arrays known only once the component is built: a module's state. At most one array is hostile, three in ten times all
        of the inputs' are.
        """
        extra = extra or {}
        named = dict(walk(self.inputs)) | {f"state.{name}": spec for name, spec in extra.items()}
        floats = sorted(name for name, spec in named.items() if isinstance(spec, _Floats) and spec.hostile)
        hostile: dict[str, str] = {}
        if not self.ordinary and floats:
            rng = key_rng(self.key, "hostility")
            kinds = list(HOSTILITIES)
            inputs_only = [name for name in floats if not name.startswith("state.")]
            targets = inputs_only if rng.random() < 0.3 and inputs_only else [floats[rng.integers(len(floats))]]
            hostile = {name: kinds[rng.integers(len(kinds))] for name in targets}

        def make(name: str, spec: Any) -> Any:
            if isinstance(spec, np.ndarray) and spec.dtype.kind == "f":
                return spec.astype(np.float32).astype(np.float64)
            return spec.make(key_rng(self.key, name), hostile.get(name)) if isinstance(spec, Filled) else spec

        return rebuild(self.inputs, make), {name: make(f"state.{name}", spec) for name, spec in extra.items()}


def walk(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, leaf) of nested dicts, lists and tuples, LEFT_OUT skipped."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from walk(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            yield from walk(value, f"{name}.{i}" if name else str(i))
    elif tree is not LEFT_OUT:
        yield name, tree


def rebuild(tree: Any, make: Any, name: str = "") -> Any:
    """The same nesting with make(name, leaf) at the leaves; what was LEFT_OUT is gone."""
    if isinstance(tree, dict):
        return {k: rebuild(v, make, f"{name}.{k}" if name else str(k)) for k, v in tree.items() if v is not LEFT_OUT}
    if isinstance(tree, (list, tuple)) and not hasattr(tree, "_fields"):
        return type(tree)(rebuild(v, make, f"{name}.{i}" if name else str(i)) for i, v in enumerate(tree))
    return make(name, tree)
