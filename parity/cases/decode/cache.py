"""What caches are fed: rows of equal and of different lengths, padding anywhere or nowhere, rows that are reordered, tokens taken back."""

import numpy as np

from parity.cases import array, case, ids, integer, left_out, mask, maybe, one_of, size
from parity.cases.decode._stores import move, place, positions, story, to


def tokens(draw):
    """How many tokens each of B rows has, and which of T more are no padding."""
    b, t = draw(one_of(2, 3, 3, 1, 0)), draw(one_of(4, 2, 1, 5, 0))
    starts = draw(one_of(ids(b, below=5), np.full(b, 2), np.full(b, 0)))
    return b, t, dict(starts=starts, t=t, real=draw(one_of(None, mask(b, t), mask(b, t, p=0.4), np.ones((b, t), bool))))


def told(side, places):
    """All that Places say, beside masks."""
    return dict(
        positions=places.positions, lengths=places.lengths, starts=places.starts, last=places.last(), longest=np.array(places.longest),
        start=np.array([] if places.start is None else [places.start]), real=np.array([]) if places.real is None else places.real,
    )


def play_places(side, *, seen, **options):
    places = side.get("decode.Places")(**side.tree(options))
    found = told(side, places)
    for i, (first, keys, left) in enumerate(seen):
        found[f"seen {i}"] = places.seen(side.array(first), keys, left)
        found[f"seen {i} again"] = places.seen(side.array(first), keys, left)
    return found


def one_by_one(side, *, starts, t, real, seen):
    """Counted token by token: where each stands, which of a row is the last, and which keys it may look at."""
    places = side.get("decode.Places")(starts, t, real)
    lengths, last = side.numpy(starts).copy(), np.full(len(starts), -1)
    at, b = np.zeros((len(starts), t), np.int64), len(starts)
    for n in range(b):
        for j in range(t):
            if real is None or real[n, j]:
                at[n, j], last[n] = lengths[n], j
                lengths[n] += 1
            else:
                at[n, j] = max(lengths[n] - 1, 0)
    yield "positions", places.positions, at
    yield "lengths", places.lengths, lengths
    yield "last", places.last(), last
    padded = real is not None and not side.numpy(real).all()
    yield "real", places.real is None, not padded
    begun = set(side.numpy(starts).tolist())
    yield "start", places.start, None if padded or len(begun) > 1 else begun.pop() if begun else 0
    for first, keys, left in seen:
        want = np.zeros((b, 1, t, keys), bool)
        for n in range(b):
            for key in range(keys):
                stands = int(first[n]) + key
                want[n, 0, :, key] = (stands >= 0) & (stands <= at[n]) & (True if left is None else stands >= at[n] - left)
        yield "seen", places.seen(side.array(side.numpy(first)), keys, left), want
    if seen:
        yield "the same mask", places.seen(*seen[0]) is places.seen(*seen[0]), True


@case("decode.Places", play=play_places, also=[one_by_one])
def places(draw):
    b, _, found = tokens(draw)
    one, other = (ids(b, below=4, at_least=-3) for _ in range(2))
    sizes, lefts = (draw(integer(0, 7)), draw(integer(0, 7))), (None, draw(integer(0, 3)))
    return found | dict(seen=[(first, keys, left) for first in (one, other) for keys in sizes for left in lefts])


def play_layer(side, *, key, value, left=None, window=None, **options):
    """Two calls: the second one's keys follow the first one's. With a window the store forgets."""
    store = side.get("decode.ContiguousStore")() if window is None else side.get("decode.RollingStore")(window=window)
    found = {}
    places = side.get("decode.Places")(**side.tree(options))
    for i in range(2):
        layer = side.get("decode.LayerCache")(store, places)
        found[f"{i} first, before"] = np.array(layer.first is None)
        held = layer.append(side.array(key), side.array(value), left=left)
        found[f"{i} key"], found[f"{i} value"] = held[:2]
        found[f"{i} mask"] = np.array([]) if held[2] is None else held[2]
        found[f"{i} first"] = np.array([]) if layer.first is None else layer.first
        places = side.get("decode.Places")(places.lengths, options["t"], None if options["real"] is None else side.array(options["real"]))
    return found


_LAYER = dict(key=array(2, 1, 3, 4), value=array(2, 1, 3, 5), starts=np.array([0, 0]), t=3, real=None)


@case("decode.LayerCache", play=play_layer, refuses=[_LAYER | bad for bad in (
    dict(key=array(2, 3, 4)), dict(value=array(2, 3, 5)), dict(value=array(2, 1, 2, 5)), dict(value=array(2, 2, 3, 5)), dict(t=2),
    dict(starts=np.array([0, 0, 0])), dict(starts=np.array([0])), dict(window=3), dict(window=3, left=3),
)])
def layer_cache(draw):
    b, t, found = tokens(draw)
    k = draw(size(1, 2))
    new = dict(key=array(b, k, t, draw(size(1, 4))), value=array(b, k, t, draw(size(1, 4))))
    left = draw(left_out(maybe(integer(0, 3))))
    window = draw(left_out(left + draw(integer(1, 2)))) if isinstance(left, int) else draw(left_out(None))
    return found | new | dict(left=left, window=window)


def play_cache(side, *, steps):
    """Every count after every step, and what the layers hold. What is refused is a result of its own here: the case draws nothing bad."""
    stores = [side.get("decode.ContiguousStore")() for _ in range(2)]
    return walked(side, side.get("decode.Cache")(stores), stores, steps)


def walked(side, cache, stores, steps, hold=lambda places, layers, step: None):
    """Take a cache through the steps."""
    found = {"lengths at first": cache.lengths}
    for i, step in enumerate(steps):
        if "key" not in step:
            move(side, cache, step) if "lengths" not in step else cache.crop(to(side, step["lengths"]))
        else:
            places = place(side, cache, step)
            found |= {f"{i} {name}": value for name, value in told(side, places).items()}
            for n, (layer, store) in enumerate(zip(cache.layers(places), stores, strict=True)):
                found[f"{i} layer {n}"] = np.array([layer.store is store, layer.places is places])
                key, value, _ = layer.append(*(side.array(side.numpy(step[name])) for name in ("key", "value")[:: 1 - 2 * n]))
                shown = positions(side, type("Held", (), dict(key=key, first=layer.first)), places)
                shown = ((shown >= 0) & (shown < side.numpy(places.lengths)[:, None]))[:, None, :, None]
                found[f"{i} held {n}"] = [np.where(shown, side.numpy(x), 0) for x in (key, value)]
            hold(places, cache, step)
            cache.advance(places)
        found[f"{i} lengths"], found[f"{i} bytes"] = cache.lengths, np.array([cache.nbytes, sum(store.nbytes for store in stores)])
    return found


_NEW = dict(key=array(2, 1, 3, 4), value=array(2, 1, 3, 5), real=None)


@case("decode.Cache", play=play_cache, refuses=[
    dict(steps=[_NEW | dict(real=mask(2, 2))]), dict(steps=[_NEW | dict(real=array(2, 3))]), dict(steps=[_NEW | dict(real=mask(3))]),
    dict(steps=[_NEW, dict(key=array(3, 1, 1, 4), value=array(3, 1, 1, 5), real=None)]),
    dict(steps=[_NEW, dict(key=array(1, 1, 1, 4), value=array(1, 1, 1, 5), real=None)]),
    dict(steps=[_NEW, dict(rows=array(2))]), dict(steps=[_NEW, dict(rows=ids(1, 2, below=2))]),
    dict(steps=[_NEW, dict(rows=np.array([0, 2]))]),
    dict(steps=[_NEW, dict(rows=np.array([-1, 0]))]), dict(steps=[dict(rows=np.array([0]))]),
    *(dict(steps=[_NEW, dict(lengths=lengths)]) for lengths in (
        np.array([3]), np.array([[3, 3]]), np.array([3.0, 3.0]), np.array([4, 3]), np.array([3, 4]), np.array([3, -1]),
    )),
    dict(steps=[_NEW, dict(rows=np.array([], np.int64)), _NEW]),
])
def cache(draw):
    return dict(steps=story(draw))
