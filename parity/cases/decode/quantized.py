"""What QuantizedStore is fed: both kinds, widths that are made of whole blocks and others, few recent tokens, so that most are in codes."""

import numpy as np

from parity.cases import array, case, left_out, maybe, one_of
from parity.cases.decode._stores import broken_off, compared, emptied, of_another_model, story, tell

GAP = {"int8": 1 / 254, "nf4": 0.15191}                                      # of absmax: half of what lies between two levels


def play(side, *, steps, **options):
    """What is returned, and the codes: those are compared one by one."""
    stores = [side.get("decode.QuantizedStore")(**options) for _ in range(2)]
    told = emptied(side, stores) | tell(side, stores, steps)
    for layer, store in enumerate(stores):
        told[f"{layer} old"] = store.old
        for name, part in (("key", store.key), ("value", store.value)):
            told[f"{layer} {name}"] = dict(codes=part.codes, absmax=part.absmax)
    return told


def bounded(side, *, steps, **options):
    """What became old before a call lies within the bound, and everything else is exact."""
    store = side.get("decode.QuantizedStore")(**options)
    before = in_codes(side, steps, options.get("recent", 128))
    for label, places, there, got, want in compared(side, [store], steps):
        i, row = label[0], label[-1]
        yield f"{label} is all there", there, np.arange(int(places.lengths[row]))
        old = there < before[i][row]
        yield f"{label} is exact where it is recent", got[:, ~old].view(np.int64), want[:, ~old].view(np.int64)
        got, want = got[:, old], want[:, old]
        allowed = GAP[options["kind"]] * _largest(np.abs(want), options.get("block"))
        yield f"{label} is within the bound", np.abs(got - want) <= allowed * (1 + 1e-5) + 1e-38, np.ones(want.shape, bool)


def grown(side, *, steps, **options):
    """Where a text outgrows its room, what is in codes moves to twice as much."""
    rng = np.random.default_rng(0)
    steps = [dict(key=rng.standard_normal((1, 1, t, 2)), value=rng.standard_normal((1, 1, t, 3)), real=None) for t in (65, 55, 30)]
    yield from bounded(side, steps=steps, **options)
    for count, room in (1, 65), (2, 130), (3, 260):
        store = side.get("decode.QuantizedStore")(**options)
        tell(side, [store], steps[:count])
        yield f"room after {count} calls", np.array(store.key.codes.shape[2]), np.array(room)


def _largest(x, block):
    """Of the block of each number: as few as there can be of `block` numbers, of one size, an even one."""
    e = x.shape[-1]
    count = -(-e // min(block or e, e))
    even = -(-e // count) + -(-e // count) % 2
    wide = np.pad(x, ((0, 0), (0, 0), (0, -e % even)))
    return wide.reshape(*x.shape[:2], wide.shape[-1] // even, even).max(-1).repeat(even, -1)[..., :e]


def in_codes(side, steps, recent):
    """{step: (B,) how many tokens of each row are in codes before it}."""
    told, old, lengths = {}, np.zeros(0, np.int64), np.zeros(0, np.int64)
    for i, step in enumerate(steps):
        if "rows" in step:
            old, lengths = old[side.numpy(step["rows"])], lengths[side.numpy(step["rows"])]
        elif "back" in step:
            lengths = np.maximum(lengths - side.numpy(step["back"]), 0)
            old = np.minimum(old, lengths)
        else:
            b, _, t, _ = step["key"].shape
            more = np.full(b, t) if step["real"] is None else side.numpy(step["real"]).sum(1)
            if not i:
                old = lengths = np.zeros(b, np.int64)
            told[i], lengths = old, lengths + more
            old = np.maximum(old, lengths - recent)
    return told


@case("decode.QuantizedStore", play=play, also=[bounded, grown], refuses=[
    dict(kind="int4", steps=[]), dict(kind="nf4", recent=0, steps=[]), dict(kind="nf4", recent=None, steps=[]),
    broken_off(kind="int8"), *of_another_model(kind="int8"), dict(kind="int8", block=0, steps=[]), dict(kind="int8", block="all", steps=[]),
    *(dict(kind=kind, recent=2, steps=[dict(key=np.full((1, 1, 3, 2), bad), value=array(1, 1, 3, 2), real=None)])
      for kind in ("int8", "nf4") for bad in (np.nan, np.inf)),
], equivalent={
    "max(e, 1) -> max(e, 2)": "a width of one number and one of two are both one block of two",
    "np.maximum(places.starts, old) -> np.minimum(places.starts, old)":
        "more is written than is needed: numbers that stand there already, or older ones before the newest that take their place",
})
def quantized(draw):
    return dict(
        kind=draw(one_of("int8", "nf4")), recent=draw(left_out(one_of(1, 2, 3, 5))), block=draw(left_out(maybe(one_of(1, 2, 3, 64)))),
        steps=story(draw),
    )
