"""What sampling is fed: any shape of noise; rows of which all, some and few tokens can be drawn; and what it refuses."""

import numpy as np

from parity.cases import array, case, dims, noise, one_of
from parity.cases.decode._logits import bad_rows, rows, some_rows
from parity.values import key_rng


def _gumbel(side, shape, noise):
    return {"g": side.get("decode.gumbel")(shape, noise=noise, dtype=side.dtype)}


_HALF = "half a step of 2⁻³², moved by a part of itself: seen at the smallest u alone, where a test looks"
_HALVES = {"bits + 0.5 -> bits + 0.5005": _HALF, "bits + 0.5 -> bits + 0.5000005": _HALF}
_ENOUGH = "a wider reach only makes noise that cannot win"
_DEAR = "which way the noise is made is a matter of speed"


@case(
    "decode.gumbel",
    play=_gumbel,
    bench=dict(shape=(8, 128000), noise=noise()),
    refuses=[dict(shape=(2, 3), noise=None), dict(shape=6, noise=noise()), dict(shape=(2, -1), noise=noise())],
    equivalent=_HALVES,
)
def gumbel(draw):
    return dict(shape=draw(dims(min_rank=0)), noise=draw(noise()))


def the_largest_sum_wins(side, logits, *, noise=None):
    """The definition, over all tokens."""
    if noise is not None:
        sums = side.numpy(logits) + side.numpy(side.get("decode.gumbel")(tuple(logits.shape), noise=noise))
        yield "ids", side.get("decode.sample")(logits, noise=noise), sums.argmax(-1)


def the_rest_changes_nothing(side, logits, *, noise=None):
    """What is drawn stays drawn when others are excluded, few or nearly all."""
    ids = side.get("decode.sample")(logits, noise=noise)
    values, at = np.array(side.numpy(logits)), side.numpy(ids)[..., None]
    drawn = np.take_along_axis(values, at, -1)
    for share in (0.3, 0.99):
        fewer = np.where(key_rng("excluded", share).random(values.shape) < share, -np.inf, values)
        np.put_along_axis(fewer, at, drawn, -1)
        yield f"without {share}", side.get("decode.sample")(side.array(fewer), noise=noise), ids


@case(
    "decode.sample",
    gradient=False,
    also=[the_largest_sum_wins, the_rest_changes_nothing],
    bench=dict(logits=array(8, 128000, scale=4.0), noise=noise()),
    refuses=[*bad_rows(), *bad_rows(noise=noise()), dict(logits=array(2, 3), noise=7)],
    equivalent={
        **_HALVES,
        "_REACH = 26.1 -> _REACH = 26.1261": _ENOUGH,
        "_REACH = 26.1 -> _REACH = 26.1000261": _ENOUGH,
        "4 * len(flat) >= logits.size -> 4 * len(flat) > logits.size": _DEAR,
        "4 * len(flat) -> len(flat)": _DEAR,
        "4 * len(flat) -> 4": _DEAR,
        "4 * len(flat) -> 5 * len(flat)": _DEAR,
        "_words(noise, flat, 1) -> _words(noise, flat, 2)": "the first word of a run is the same however long the run",
    },
)
def sample(draw):
    logits, _ = some_rows(draw)
    if not draw.edges:
        logits = draw(one_of(logits, rows((3, 200), scale=30.0, shift=-500.0), rows((3, 20), scale=1e18)))
    return dict(logits=logits, noise=draw(one_of(None, noise(), noise(), noise())))
