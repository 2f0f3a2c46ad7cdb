"""What ContiguousStore is fed: more tokens than there is room for at first, rows of different lengths, reordered, cropped."""

import numpy as np

from parity.cases import array, case, flag
from parity.cases.decode._stores import compared, of_another_model, story, tell


def play(side, *, steps):
    return tell(side, [side.get("decode.ContiguousStore")() for _ in range(2)], steps)


def kept(side, *, steps):
    """All of every row is there, to the bit, and what is behind it is finite; there is never more than twice the room that is needed, or
    room for 64."""
    stores, most = [side.get("decode.ContiguousStore")() for _ in range(2)], 0
    for label, places, there, got, want in compared(side, stores, steps):
        most = max(most, places.longest)
        yield f"{label} is all there", there, np.arange(int(places.lengths[label[-1]]))
        yield f"{label} is what was kept", got.view(np.int64), want.view(np.int64)
        yield f"{label} has room", np.array(stores[label[1]].key.shape[2] <= max(2 * most, 64)), np.array(True)
    for store in stores:
        yield "finite", np.isfinite(side.numpy(store.key)).all() and np.isfinite(side.numpy(store.value)).all(), True


def before_the_first_call(side, *, steps):
    """There is nothing to move, to forget or to count."""
    store = side.get("decode.ContiguousStore")()
    store.reorder(side.array(np.array([1, 0])))
    store.crop(side.array(np.array([0, 0])))
    yield "bytes", store.nbytes, 0


@case("decode.ContiguousStore", play=play, also=[kept, before_the_first_call], refuses=of_another_model())
def contiguous(draw):
    steps = story(draw)
    if draw(flag()):
        b, k, _, e = steps[0]["key"].shape
        steps[0] |= dict(key=array(b, k, 63, e), value=array(b, k, 63, steps[0]["value"].shape[-1]), real=None)
    return dict(steps=steps)
