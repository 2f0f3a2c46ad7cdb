"""What every store of keys and values is put through: calls of several lengths, padded or not, rows reordered, tokens taken back."""

import importlib
from typing import Any

import numpy as np

from parity.cases import array, ids, integer, mask, maybe, one_of, size


def story(draw: Any) -> list[dict[str, Any]]:
    """What happens, one thing after the other: `key`, `value` and `real` of new tokens, `rows` to reorder, or how many tokens go `back`."""
    b, k, e, w = draw(one_of(2, 3, 1, 0)), draw(size(1, 2)), draw(size(1, 5)), draw(size(1, 5))

    def new() -> dict[str, Any]:
        t = draw(one_of(1, 1, 1, 2, 4, 9, 0))
        return dict(key=array(b, k, t, e), value=array(b, k, t, w), real=draw(maybe(mask(b, t))) if draw(one_of(False, True)) else None)

    steps = [new()]
    for _ in range(draw(integer(2, 12))):
        match draw(one_of("append", "append", "append", "reorder", "crop")):
            case "append":
                steps.append(new())
            case "reorder":
                n = draw(one_of(b, 3, 1)) if b else 0
                steps.append(dict(rows=ids(n, below=b)))
                b = n
            case "crop":
                steps.append(dict(back=ids(draw(one_of(b, 1)), below=draw(one_of(2, 4, 30)))))
    return [*steps, new()]


def cache_of(side: Any, stores: list[Any]) -> Any:
    """A cache with these stores for its layers."""
    return importlib.import_module(f"{side.name}_impl.decode.cache").Cache(stores)


def plain(side: Any) -> Any:
    """The plain store."""
    return importlib.import_module(f"{side.name}_impl.decode.contiguous").ContiguousStore()


def place(side: Any, cache: Any, step: dict[str, Any]) -> Any:
    """Where the new tokens stand; the arrays may be of either side."""
    shape = step["key"].shape[0], step["key"].shape[2]
    here = dict(device=side.device) if side.name == "torch" else {}
    return cache.place(shape, None if step["real"] is None else to(side, step["real"]), **here)


def to(side: Any, value: Any) -> Any:
    """An array of this side, whichever it was."""
    return side.array(np.asarray(side.numpy(value)))


def move(side: Any, cache: Any, step: dict[str, Any]) -> None:
    """Reorder the rows, or take tokens back, none where there are none."""
    if "rows" in step:
        cache.reorder(to(side, step["rows"]))
    else:
        cache.crop(to(side, np.maximum(side.numpy(cache.lengths) - side.numpy(step["back"]), 0)))


def emptied(side: Any, stores: list[Any]) -> dict[str, Any]:
    """How much stores hold that have read nothing, after rows were moved that are not there yet."""
    for store in stores:
        store.reorder(to(side, np.array([0, 0])))
        store.crop(to(side, np.array([0, 0])))
    return dict(empty=np.array([store.nbytes for store in stores]))


def tell(side: Any, stores: list[Any], steps: list[dict[str, Any]]) -> dict[str, Any]:
    """What each append returned, without what the mask hides, and how many bytes are held. The second layer has keys for values. What is
    refused is a result, and ends the story."""
    cache = cache_of(side, stores)
    told: dict[str, Any] = {}
    for i, step in enumerate(steps):
        if "key" not in step:
            try:
                move(side, cache, step)
            except ValueError as error:
                return told | {"refused": np.frombuffer(str(error).encode(), np.uint8).astype(np.int64)}
            continue
        places = place(side, cache, step)
        new = to(side, step["key"]), to(side, step["value"])
        for layer, store in enumerate(stores):
            held = store.append(*(new if layer == 0 else new[::-1]), places)
            there = positions(side, held, places)
            shown = (there >= 0) & (there < side.numpy(places.lengths)[:, None])
            told[f"{i}.{layer}"] = [np.where(shown[:, None, :, None], side.numpy(x), 0) for x in held[:2]]
            told[f"{i}.{layer} stands"] = there
            told[f"{i}.{layer} alike"] = np.array(held.first is None)
            told[f"{i}.{layer} bytes"] = np.array(store.nbytes)
        if not step.get("broken"):
            cache.advance(places)
    return told


def broken_off(**options: Any) -> dict[str, Any]:
    """A call of which the cache never heard that it ended, and then another one: to be refused."""
    new = dict(key=array(1, 1, 2, 2), value=array(1, 1, 2, 2), real=None)
    return options | dict(steps=[new, new | dict(broken=True), new])


def of_another_model(**options: Any) -> list[dict[str, Any]]:
    """New keys and values of other heads, or another width, than those that are held: to be refused."""
    first, then = (array(2, 1, 2, 3), array(2, 1, 2, 4)), (array(2, 2, 2, 3), array(2, 1, 2, 1))
    return [
        options | dict(steps=[dict(key=key, value=value, real=None) for key, value in (first, other)])
        for other in ((then[0], then[0]), (first[0], then[1]), (then[1], first[1]))
    ]


def positions(side: Any, held: Any, places: Any) -> np.ndarray:
    """(B, S) where each key stands in its row."""
    s, lengths = held.key.shape[2], side.numpy(places.lengths)
    first = lengths - s if held.first is None else side.numpy(held.first)
    return first[:, None] + np.arange(s)


def compared(side: Any, stores: list[Any], steps: list[dict[str, Any]]) -> Any:
    """(step, layer, key or value, row, the positions held, what is held there (K, S, E), what was appended there) of all that is returned;
    each row is remembered in the plainest way, as a list of its tokens."""
    cache = cache_of(side, stores)
    rows: list[list[Any]] = [[] for _ in steps[0]["key"]]
    for i, step in enumerate(steps):
        if "rows" in step:
            rows = [list(rows[n]) for n in side.numpy(step["rows"])]
        if "key" not in step:
            try:
                move(side, cache, step)
            except ValueError:
                return
            rows = [row[:n] for row, n in zip(rows, side.numpy(cache.lengths), strict=True)]
            continue
        places = place(side, cache, step)
        key, value = np.asarray(side.numpy(step["key"])), np.asarray(side.numpy(step["value"]))
        b, t = key.shape[0], key.shape[2]
        real = np.ones((b, t), bool) if step["real"] is None else side.numpy(step["real"])
        for n, row in enumerate(rows):
            row.extend((key[n, :, j], value[n, :, j]) for j in range(t) if real[n, j])
        for layer, store in enumerate(stores):
            held = store.append(*((to(side, key), to(side, value)) if layer == 0 else (to(side, value), to(side, key))), places)
            there = positions(side, held, places)
            for part in range(2):
                for n, row in enumerate(rows):
                    inside = (there[n] >= 0) & (there[n] < len(row))
                    got = side.numpy(held[part])[n][:, inside]
                    want = np.stack([row[p][part ^ layer] for p in there[n][inside]], 1) if inside.any() else got[:, :0]
                    yield (i, layer, part, n), places, there[n][inside], got, want
        cache.advance(places)
