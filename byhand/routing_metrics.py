"""How routers used their experts in an update: utilisation, entropy, dropped share and balance loss of every layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numpy_impl.ops.sigmoid import sigmoid

_TINY = 1e-20   # keeps the sum of sigmoids that have all underflowed from being 0


class Tally(NamedTuple):
    """Sums over tokens, of which those of several micro-batches add up.

    tokens : int       how many, padding apart
    chosen (E,)        how many of them chose each expert
    computed (E,)      how many of those it computed
    scores (E,)        the sum of its scores: softmaxes, or sigmoids divided by their sum
    """

    tokens: int
    chosen: NDArray
    computed: NDArray
    scores: NDArray

    def plus(self, other: "Tally") -> "Tally":
        """The tally of both."""
        return Tally(self.tokens + other.tokens, self.chosen + other.chosen, self.computed + other.computed, self.scores + other.scores)


class LayerRouting(NamedTuple):
    """What one layer's router did in one update.

    layer          the layer's dotted name
    utilisation    (E,) each expert's share of all choices that were computed; sums to 1 (all 0 where nothing was)
    entropy        −Σ u log u / log E of it: 1 is even use, 0 is one expert for everything
    dropped        the share of choices that found no place
    balance        the load-balance loss E Σ f P: k where use is even, above it where choices and scores lean to the same experts
    largest        the largest share over an even one, E · max u: 1 is even use
    """

    layer: str
    utilisation: NDArray
    entropy: float
    dropped: float
    balance: float
    largest: float

    def record(self) -> dict[str, Any]:
        """As JSON takes it; shares to six digits."""
        return self._asdict() | {"utilisation": [round(float(share), 6) for share in self.utilisation]}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "LayerRouting":
        """What `record` made."""
        return cls(**{**record, "utilisation": np.array(record["utilisation"])})


def tally(logits: NDArray, chosen: NDArray, kept: NDArray, *, score: str = "softmax", real: NDArray | None = None) -> Tally:
    """Sums over the tokens of a Routing: logits (..., E), chosen and kept (..., E) booleans; real (...) booleans, which are no padding.

    Examples
    --------
    >>> chosen = np.array([[True, False], [True, False]])
    >>> tally(np.zeros((2, 2)), chosen, np.array([[True, False], [False, False]]))
    Tally(tokens=2, chosen=array([2, 0]), computed=array([1, 0]), scores=array([1., 1.]))
    """
    e = logits.shape[-1]
    logits, chosen, kept = (array.reshape(-1, e) for array in (logits, chosen, kept))
    if real is not None:
        logits, chosen, kept = (array[real.reshape(-1)] for array in (logits, chosen, kept))
    x = np.ascontiguousarray(logits.T)                     # (E, N): sums over few experts are fast along long rows
    if score == "softmax":
        x = np.exp(x - x.max(0, initial=-np.inf))
    else:
        x = sigmoid(x)[0]
    return Tally(len(logits), _count(chosen), _count(kept), (x @ (1 / (x.sum(0) + _TINY))).astype(np.float64))


def _count(flags: NDArray) -> NDArray:
    """How many of (N, E) booleans hold in each column: a matrix product, ten times as fast as a sum."""
    return (np.ones(len(flags)) @ flags.astype(np.float64)).astype(np.int64)


def layer_routing(layer: str, sums: Tally) -> LayerRouting:
    """The metrics of a layer's sums over an update.

    Examples
    --------
    >>> sums = Tally(4, np.array([4, 0]), np.array([3, 0]), np.array([3.0, 1.0]))
    >>> layer_routing("blocks.0.mlp", sums)._replace(utilisation=None)
    LayerRouting(layer='blocks.0.mlp', utilisation=None, entropy=0.0, dropped=0.25, balance=1.5, largest=2.0)
    """
    tokens, chosen, computed, scores = sums
    e, wanted, done = len(chosen), int(chosen.sum()), int(computed.sum())
    share = computed / max(done, 1)
    return LayerRouting(
        layer=layer, utilisation=share, entropy=evenness(share), dropped=(wanted - done) / max(wanted, 1),
        balance=e * float(chosen @ scores) / max(tokens, 1) ** 2, largest=e * float(share.max(initial=0)),
    )


def evenness(share: NDArray) -> float:
    """−Σ u log u / log E of shares that sum to 1: 1 where all are equal, as the only one is."""
    if len(share) < 2:
        return float(share.sum())
    used = share[share > 0]
    return abs(float((used * np.log(used)).sum())) / math.log(len(share))


def logged(routing: Sequence[LayerRouting]) -> dict[str, Any]:
    """What a line of a run's metrics holds of it: nothing, where nothing routes."""
    return {"routing": [layer.record() for layer in routing]} if routing else {}


def average(updates: Sequence[Sequence[LayerRouting]]) -> list[LayerRouting]:
    """Layer by layer, the mean of several updates; the largest share and the entropy are those of the mean shares."""
    layers = []
    for same in zip(*updates, strict=True):
        share = np.mean([one.utilisation for one in same], 0)
        dropped, balance = (float(np.mean([getattr(one, name) for one in same])) for name in ("dropped", "balance"))
        layers.append(LayerRouting(same[0].layer, share, evenness(share), dropped, balance, len(share) * float(share.max())))
    return layers


def routing_layers(model: Any) -> dict[str, Any]:
    """The layers of a model of either side that route tokens to experts, by dotted name, in the order in which they run."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules() if hasattr(model, "named_modules") else model.modules():
        inside = any(name.startswith(f"{layer}.") for layer in found)
        if name and not inside and hasattr(module, "router") and hasattr(module, "routed"):
            found[name] = module
    return found


class RoutingWatch:
    """Sits in `model.watch` and sums what the routers do until it is asked.

    model : of either side; where nothing in it routes, there is nothing to see
    """

    def __init__(self, model: Any):
        self.layers = routing_layers(model) if hasattr(model, "watch") else {}
        self._last: Sequence[Any] = ()
        self._sums: list[Tally] = []
        if self.layers:
            model.watch = self

    def __call__(self, routes: Sequence[Any]) -> None:
        """One forward pass of training: a Routing for each layer. It is counted when the next one comes, by which time a GPU has it."""
        self._count()
        self._last = [tuple(array.detach() if hasattr(array, "detach") else array for array in one) for one in routes]

    def _count(self) -> None:
        if not self._last:
            return
        sums = [_of_layer(layer.router, *map(_array, one)) for layer, one in zip(self.layers.values(), self._last, strict=True)]
        self._sums = [one.plus(more) for one, more in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._last = ()

    @property
    def counts(self) -> list[NDArray]:
        """How many tokens chose each expert (E,) since the last `take`, layer by layer; empty if there were none."""
        self._count()
        return [sums.chosen for sums in self._sums]

    def take(self) -> list[LayerRouting]:
        """The metrics of all that was seen since the last time, layer by layer; empty if nothing was."""
        self._count()
        sums, self._sums = self._sums, []
        return [layer_routing(*one) for one in zip(self.layers, sums, strict=False)]


def _of_layer(router: Any, logits: NDArray, chosen: NDArray, kept: NDArray) -> Tally:
    """What a router did with the tokens that are no padding: where tokens choose, those that chose."""
    real = None if getattr(router, "choice", "token") == "expert" else np.asarray(chosen.any(-1))
    return tally(logits, chosen, kept, score=getattr(router, "score", "softmax"), real=real)


def _array(array: Any) -> NDArray:
    return array.cpu().numpy() if hasattr(array, "detach") else array
