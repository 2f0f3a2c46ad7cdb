"""What the relative shift is fed: as many distances as keys, more and fewer, with more and with fewer queries than keys."""

import numpy as np

from parity.cases import array, case, dims, ids, left_out, maybe, size


def keys_find_their_distance(side, x, keys=None):
    """Of a table whose column j holds the distance S − 1 − j, key s of query t gets t + S − T − s."""
    *_, t, columns = x.shape
    s = columns if keys is None else keys
    distances = side.array(np.broadcast_to(s - 1.0 - np.arange(columns), x.shape).copy())
    y = side.get("positions.relative_shift")(distances, keys=keys)
    y = side.numpy(y[0] if side.name == "numpy" else y)
    want = np.arange(s - t, s)[:, None] - np.arange(s)
    known = want > s - 1 - columns
    yield "distances", y, np.broadcast_to(np.where(known, want, 0.0), y.shape)


@case(
    "positions.relative_shift",
    also=[keys_find_their_distance],
    refuses=[
        dict(x=array(3)),
        dict(x=ids(3, 4, below=5)),
        dict(x=array(3, 4), keys=-1),
        dict(x=array(3, 4), keys=4.0),
    ],
    bench=dict(x=array(8, 4, 512, 512)),
)
def relative_shift(draw):
    *lead, t, columns = draw(dims(2, 4))
    return dict(x=draw(array(*lead, t, columns)), keys=draw(left_out(maybe(size(0, 12)))))
