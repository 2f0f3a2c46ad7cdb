"""What RollingStore is fed: windows shorter and longer than the text, and tokens taken back, also further than they are kept."""

import numpy as np

from parity.cases import case, left_out, one_of
from parity.cases.decode._stores import broken_off, compared, emptied, of_another_model, story, tell


def play(side, *, steps, **options):
    store = side.get("decode.RollingStore")(**options)
    return emptied(side, [store]) | tell(side, [store], steps) | dict(kept=np.array([store.window, store.kept]))


def window(side, *, steps, **options):
    """What a query may see is there, to the bit, and no more is returned than asked for."""
    store = side.get("decode.RollingStore")(**options)
    width = options["window"]
    for label, places, there, got, want in compared(side, [store], steps):
        start, end = int(places.starts[label[-1]]), int(places.lengths[label[-1]])
        seen = there >= max(start - width + 1, 0)
        yield f"{label} is all there", np.array(int(seen.sum())), np.array(end - max(start - width + 1, 0))
        yield f"{label} is what was kept", got[:, seen].view(np.int64), want[:, seen].view(np.int64)
        t = places.positions.shape[1]
        yield f"{label} is no more than a window", np.array(len(there) <= width - 1 + t), np.array(True)
        yield f"{label} takes no more room", np.array(store.key.shape[2] <= 2 * store.kept), np.array(True)


def taken_back(side, *, steps, **options):
    """Where a token or two of the text are no longer kept: as far as a window is left, and no further."""
    for made, more in ((options, 1), (dict(window=1, spare=0), 2)):
        width, text = made["window"], side.get("decode.RollingStore")(**made).kept + more
        key = np.arange(float(text)).reshape(1, 1, -1, 1)
        for left in range(text + 1):
            told = tell(side, [side.get("decode.RollingStore")(**made)], [
                dict(key=key, value=key, real=None), dict(back=np.array([text - left])),
                dict(key=key[:, :, :1] - 1, value=key[:, :, :1] - 1, real=None)])
            begin = max(left - width + 1, 0)
            yield f"{left} of {text} tokens are refused", np.array("refused" in told), np.array(begin < more)
            if begin >= more:
                yield f"{left} of {text} tokens, and one more", told["2.0"][0].ravel(), np.array([*range(begin, left), -1.0])


@case("decode.RollingStore", play=play, also=[window, taken_back], refuses=[
    dict(window=0, steps=[]), dict(window=2.5, steps=[]), dict(window=None, steps=[]), dict(window=3, spare=-1, steps=[]),
    broken_off(window=3), *of_another_model(window=3),
])
def rolling(draw):
    return dict(window=draw(one_of(3, 1, 2, 5, 40)), spare=draw(left_out(one_of(0, 1, 3, 8))), steps=story(draw))
