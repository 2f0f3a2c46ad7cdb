"""What caches beside a context are fed: contexts with padding and without, rows that are reordered before and after the first call."""

from typing import Any

import numpy as np

from parity.cases import array, case, ids, mask, maybe, one_of, size
from parity.cases.decode._stores import story, to
from parity.cases.decode.cache import walked


def play_store(side, *, key, value, orders):
    store = side.get("decode.ContextStore")()
    found: dict[str, Any] = {}
    for i, rows in enumerate(orders):
        if i == 1:
            store.hold(side.array(key), side.array(value))
        store.reorder(side.array(rows))
        found[f"{i} bytes"] = np.array(store.nbytes)
        found[f"{i} held"] = np.array([]) if store.key is None else [store.key, store.value]
    return found


@case("decode.ContextStore", play=play_store)
def context_store(draw):
    b, h, s = draw(one_of(2, 3, 1)), draw(size(1, 2)), draw(one_of(3, 1, 0))
    return dict(
        key=array(b, h, s, draw(size(1, 4))), value=array(b, h, s, draw(size(1, 4))),
        orders=[ids(2, below=2), ids(draw(size(1, 4)), below=b), ids(2, below=1)],
    )


def play_cache(side, *, context, mask, steps):
    """As a Cache; and every layer's own store of the context is held in its first call, and moves with the rows."""
    stores = [side.get("decode.ContiguousStore")() for _ in range(2)]
    cache = side.get("decode.ContextCache")(stores, side.array(context), None if mask is None else side.array(mask))
    found: dict[str, Any] = {}

    def hold(places, cache, step):
        for n, (layer, store) in enumerate(cache.both(places)):
            found[f"{len(found)} layer {n}"] = np.array([layer.store is stores[n], layer.places is places, store.key is None])
            if store.key is None:
                store.hold(cache.context[:, None] + n, cache.context[:, None] - n)
            found[f"{len(found)} context of {n}"] = [store.key, store.value]
        found[f"{len(found)} context"] = [cache.context, np.array([]) if cache.mask is None else cache.mask, np.array(cache.nbytes)]

    return walked(side, cache, stores, steps, hold) | {f"held {name}": value for name, value in found.items()}


def moves_with_its_rows(side, *, context, mask, steps):
    """The context of every row is that of the first row it comes from; of what was held for it too. Bytes are of all that is held."""
    stores = [side.get("decode.ContiguousStore")() for _ in range(2)]
    cache = side.get("decode.ContextCache")(stores, context, mask)
    rows = np.arange(len(side.numpy(context)))
    yield "lengths", cache.lengths, np.zeros(len(rows), np.int64)
    yield "bytes", cache.nbytes, context.nbytes
    cache.contexts[1].hold(context[:, None], context[:, None])
    for step in steps:
        if "rows" in step:
            cache.reorder(to(side, step["rows"]))
            rows = rows[side.numpy(step["rows"])]
            yield "context", cache.context, side.numpy(context)[rows]
            yield "held", cache.contexts[1].value, side.numpy(context)[rows][:, None]
            yield "none held", cache.contexts[0].key is None, True
            if mask is not None:
                yield "mask", cache.mask, side.numpy(mask)[rows]
            yield "bytes", cache.nbytes, 3 * cache.context.nbytes


_GOOD = dict(context=array(2, 3, 4), mask=None)


@case("decode.ContextCache", play=play_cache, also=[moves_with_its_rows], refuses=[
    _GOOD | dict(steps=[dict(rows=np.array([0, 2]))]), _GOOD | dict(steps=[dict(rows=array(2))]),
    _GOOD | dict(steps=[dict(key=array(3, 1, 1, 4), value=array(3, 1, 1, 4), real=None)]),
    _GOOD | dict(steps=[dict(key=array(0, 1, 1, 4), value=array(0, 1, 1, 4), real=None)]),
    _GOOD | dict(steps=[dict(key=array(2, 1, 1, 4), value=array(2, 1, 1, 4), real=mask(2, 2))]),
    _GOOD | dict(steps=[dict(lengths=np.array([1, 0]))]),
])
def context_cache(draw):
    steps = story(draw)
    b, s = steps[0]["key"].shape[0], draw(one_of(3, 1, 0))
    first = [dict(rows=ids(b, below=b))] if draw(one_of(False, True)) else []
    return dict(context=array(b, s, draw(size(1, 4))), mask=draw(maybe(mask(b, s))), steps=[*first, *steps])
