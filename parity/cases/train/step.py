"""What train_step is fed: two steps of a small GPT with dropout, by SGD or AdamW; what it refuses: numbers that are not finite."""

import time

from parity.cases import array, case, ids, integer, left_out, mask, maybe, noise, one_of
from parity.cases.train.accumulate import SCALES, VOCABULARY, WEIGHTS, micro_batches, model, pairs


def optimizer(side, made, kind):
    """SGD with momentum, or AdamW with an ε so large that gradients which are zero but for rounding stay small."""
    params = made.parameters() if side.name == "numpy" else dict(made.named_parameters())
    if kind == "sgd":
        return side.get("optim.SGD")(params, lr=0.1, momentum=0.9)
    return side.get("optim.AdamW")(params, lr=0.01, eps=0.01)


def weights_of(side, made):
    """The model's weights by name, as they are now."""
    return {name: side.numpy(value).copy() for name, value in made.state_dict().items()}


def _poisoned(side, made, name, factor):
    """The model, with its gradient of the parameter `name` multiplied by `factor`."""
    if side.name == "numpy":
        return _Poisoned(made, name, factor)
    dict(made.named_parameters())[name].register_hook(lambda grad: grad * factor)
    return made


class _Poisoned:

    def __init__(self, made, name, factor):
        self.made = made
        self.parameters = made.parameters
        self.factor, (*self.path, self.last) = factor, name.split(".")

    def loss(self, ids, targets, **options):
        loss, backward = self.made.loss(ids, targets, **options)

        def poisoned(dloss):
            grads = inner = backward(dloss)
            for name in self.path:
                inner = inner[int(name) if isinstance(inner, list) else name]
            inner[self.last] = inner[self.last] * self.factor
            return grads

        return loss, poisoned


def play_step(side, *, weights, dropout, kind, batches, poison=None, **options):
    made = model(side, weights, dropout)
    optimizer_ = optimizer(side, made, kind)
    trained = _poisoned(side, made, *poison) if poison else made
    shown = {}
    for name in ("first", "second"):
        begin = time.perf_counter()
        metrics = side.get("train.train_step")(trained, optimizer_, pairs(side, batches), **options)
        timed = 0 < metrics.seconds <= time.perf_counter() - begin
        shown[name] = dict(metrics._asdict(), seconds=timed)
    return shown | {"weights": weights_of(side, made)}


_ONE = dict(ids=ids(2, 3, below=VOCABULARY), targets=ids(2, 3, below=VOCABULARY), counts=mask(2, 3))
_BAD = dict(weights=WEIGHTS, dropout=0.0, kind="sgd", batches=[_ONE], step=3)
_BIAS = "norm.bias"


@case("train.train_step", play=play_step, refuses=[
    _BAD | dict(weights=array(2, low=1e300, high=1e300)),       # the loss
    _BAD | dict(poison=(_BIAS, float("nan"))), _BAD | dict(poison=(_BIAS, float("-inf"))),
    _BAD | dict(poison=(_BIAS, 1e200)),                         # every entry is finite, their norm is not
    {name: value for name, value in _BAD.items() if name != "step"} | dict(poison=(_BIAS, float("nan"))),
    _BAD | dict(batches=[]),
])
def train_step(draw):
    return dict(
        weights=draw(WEIGHTS), dropout=draw(one_of(0.0, 0.3)), kind=draw(one_of("sgd", "adamw")), batches=micro_batches(draw),
        lr=draw(left_out(maybe(one_of(0.05, 0.5)))), max_norm=draw(left_out(maybe(one_of(0.1, 1.0, 100.0)))),
        noise=draw(left_out(maybe(noise()))), run=draw(left_out(one_of("keep", "recompute"))), step=draw(left_out(integer(0, 3))),
        loss_scale=draw(left_out(SCALES)),
    )
