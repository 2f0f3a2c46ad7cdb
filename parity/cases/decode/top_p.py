"""What top-p is fed: shares that keep one token, some, all but the last and all; minima up to more than there are."""

import numpy as np

from parity.cases import array, case, integer, left_out, one_of
from parity.cases.decode._logits import bad_rows, some_rows
from parity.values import key_rng


def a_sum_that_is_reached_is_enough(side, logits, **options):
    """Two of four equals hold a half."""
    four = side.array(np.zeros((1, 4)))
    yield "a half", side.get("decode.keep_top_p")(four, p=0.5), np.array([[0.0, 0.0, -np.inf, -np.inf]])
    yield "next to nothing", side.get("decode.keep_top_p")(four, p=1e-17), np.array([[0.0, -np.inf, -np.inf, -np.inf]])


def as_defined(side, logits, **options):
    """Token by token, best first, where many improbable ones hold a good part together."""
    values = key_rng("flat", logits.shape).standard_normal((4, 300)) - 50.0
    values[2:, :10] = np.log(np.linspace(0.3, 0.2, 10)) - 50.0
    values[2:, 10:] = np.log(np.linspace(0.0010, 0.0011, 290)) - 50.0      # each too little to be sorted, together half of it
    values[2:, 0] = -50.0
    for p in (0.2, 0.6, 0.95):
        want = np.full_like(values, -np.inf)
        for row, ours in zip(values, want, strict=True):
            probability, held = np.exp(row) / np.exp(row).sum(), 0.0
            for token in np.argsort(-row):
                if held < p:
                    ours[token], held = row[token], held + probability[token]
        yield f"p = {p}", side.get("decode.keep_top_p")(side.array(values), p=p), want


@case(
    "decode.keep_top_p",
    gradient=False,
    also=[a_sum_that_is_reached_is_enough, as_defined],
    equivalent={
        "minimum > 1 -> minimum >= 1": "the best one is kept as it is",
        "logits >= top + math.log((1 - p) / logits.shape[-1]) -> logits > top + math.log((1 - p) / logits.shape[-1])":
            "what stands at that bound is not kept",
        "counts.max(initial=1) -> counts.max(initial=2)": "one more place for −∞",
    },
    bench=dict(logits=array(8, 128000, scale=4.0), p=0.9),
    refuses=[
        *bad_rows(p=0.9),
        *(dict(logits=array(2, 3), p=bad) for bad in (0.0, -0.1, 1.001, float("nan"), None)),
        *(dict(logits=array(2, 3), p=0.5, minimum=bad) for bad in (0, 1.5)),
    ],
)
def keep_top_p(draw):
    logits, v = some_rows(draw)
    p = draw(one_of(1e-17, 1e-7, 0.137, 0.613, 0.613, 0.913, 0.913, 0.9937, 1, 1.0))
    return dict(logits=logits, p=p, minimum=draw(left_out(integer(1, v + 1))))
