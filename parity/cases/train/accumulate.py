"""What accumulate is fed: a GPT of a few hundred numbers with dropout, and micro-batches of several sizes; some targets do not count."""

from typing import Any

import numpy as np

from byhand.configs.gpt2 import GPT2Config
from parity.cases import array, case, ids, integer, left_out, mask, maybe, noise, one_of

VOCABULARY, CONTEXT = 11, 5
WEIGHTS = array(1200, scale=0.3, hostile=False)  # the whole model's state, in the order of its names; 72 are too many


def model(side: Any, weights: np.ndarray, dropout: float) -> Any:
    """The small GPT of that side, filled from `weights`."""
    sizes = GPT2Config(vocabulary=VOCABULARY, max_length=CONTEXT, d_model=6, n_layers=2, n_heads=2, dropout=dropout)
    made = side.get("models.GPT2")(sizes, dtype=side.dtype)
    state, begin = {}, 0
    for name, value in sorted(made.state_dict().items()):
        count = int(np.prod(value.shape))
        state[name] = weights[begin : begin + count].reshape(tuple(value.shape))
        begin += count
    side.load(made, state)
    return made


def micro_batches(draw: Any, most: int = 3) -> list[dict[str, Any]]:
    """One to `most` micro-batches, each of its own size."""
    def one() -> dict[str, Any]:
        shape = draw(integer(1, 3)), draw(integer(1, CONTEXT))
        return dict(ids=draw(ids(*shape, below=VOCABULARY)), targets=draw(ids(*shape, below=VOCABULARY)), counts=draw(mask(*shape)))
    return [one() for _ in range(draw(integer(1, most)))]


def pairs(side: Any, batches: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """(ids, targets) of each; targets that do not count are -100, but the very first always counts."""
    made = []
    for i, batch in enumerate(batches):
        counts = batch["counts"].copy()
        counts[0, 0] |= i == 0
        made.append((side.array(batch["ids"]), side.array(np.where(counts, batch["targets"], -100))))
    return made


_ONE = dict(ids=ids(2, 3, below=VOCABULARY), targets=ids(2, 3, below=VOCABULARY), counts=mask(2, 3))
SCALES = one_of(1.0, 2.0, 3.0, 1024.0)


def play_accumulate(side, *, weights, dropout, batches, **options):
    found = side.get("train.accumulate")(model(side, weights, dropout), pairs(side, batches), **options)
    return dict(loss=found.loss, tokens=found.tokens, grads=dict(found.grads))


@case("train.accumulate", play=play_accumulate,
      refuses=[dict(weights=WEIGHTS, dropout=0.0, batches=[]),
               dict(weights=WEIGHTS, dropout=0.0, batches=[_ONE], loss_scale=0.0)],
      equivalent=dict.fromkeys(("loss_scale=1.0 -> loss_scale=1.001", "loss_scale=1.0 -> loss_scale=1.000001"),
                               "what the loss is multiplied by, its gradients are divided by"))
def accumulate(draw):
    return dict(weights=draw(WEIGHTS), dropout=draw(one_of(0.0, 0.3)), batches=micro_batches(draw), loss_scale=draw(left_out(SCALES)),
                noise=draw(left_out(maybe(noise()))), run=draw(left_out(one_of("keep", "recompute"))))


@case("train.count_tokens", play=lambda side, batches: dict(tokens=side.get("train.count_tokens")(pairs(side, batches))),
      refuses=[dict(batches=[])])
def count_tokens(draw):
    return dict(batches=micro_batches(draw))
