"""The law of every cache: whatever was read before, in whichever pieces, with padding or without, after rows were reordered and tokens were
taken back, what comes out behind a token is what comes out when its text is read alone and at once."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity.cases.decode._stores import place
from parity.values import key_rng

MOST = 7  # tokens in a row


class Row:
    """One text: from which of the first rows it comes, its tokens, and what came out behind each (None: that was not asked for)."""

    def __init__(self, origin: int, tokens: list, told: list):
        self.origin, self.tokens, self.told = origin, tokens, told

    def kept(self, length: int | None = None) -> "Row":
        return Row(self.origin, self.tokens[:length], self.told[:length])


def tale(side: Any, rng: Any, cache: Any, read: Callable, new: Callable, *, rows: int, most: int = MOST, before: int = 0,
         alike: bool) -> list[Row]:
    """The rows after a few calls, reorders and crops.

    new(B, T)            the tokens of a call, NumPy (B, T, ...), padding among them
    read(tokens, real)   NumPy (B, T, ...), what comes out behind each, and (B, T), of which it was asked; the cache takes the tokens in
    before               how many tokens of the model's own stand in front of each row
    alike                whether rows stay of one length, without padding
    """
    texts = [Row(n, [], []) for n in range(rows)]
    steps = ["read", *rng.choice(["read", "read", "read", "reorder", "crop"], int(rng.integers(2, 6))), "read"]
    for number, step in enumerate(steps):
        b, lengths = len(texts), np.array([len(row.tokens) for row in texts], np.int64)
        if step == "reorder" and b:
            chosen = rng.integers(0, b, int(rng.integers(1, 4)))
            cache.reorder(side.array(chosen))
            texts = [texts[n].kept() for n in chosen]
        elif step == "crop":
            lengths = np.maximum(lengths - rng.integers(0, 3, 1 if alike else b), 0)
            cache.crop(side.array(before + lengths))
            texts = [row.kept(n) for row, n in zip(texts, lengths, strict=True)]
        elif step == "read":
            counts = np.minimum(rng.integers(0, 5 if number == 0 else 4, 1 if alike else b), most - lengths)
            more = 0 if alike and b else int(rng.integers(0, 3))
            real = _padded(rng, counts, more if b else min(more, most))
            tokens = new(*real.shape)
            out, asked = read(side.array(tokens), None if alike and rng.random() < 0.8 else side.array(real))
            for row, own, given, has, come in zip(texts, tokens, real, asked, out, strict=True):
                row.tokens += list(own[given])
                row.told += [y if one else None for y, one in zip(come[given], has[given], strict=True)]
    return texts


def _padded(rng: Any, counts: np.ndarray, more: int) -> np.ndarray:
    """(B, T) of which counts[b] in row b are tokens: the first, the last, or any."""
    t = int(counts.max(initial=0)) + more
    order = rng.permuted(np.tile(np.arange(t), (len(counts), 1)), axis=1)
    match rng.choice(["left", "right", "holes"]):
        case "left":
            order[:] = np.arange(t)[::-1]
        case "right":
            order[:] = np.arange(t)
    return order < counts[:, None]


def compared(texts: list[Row], alone: Callable) -> Iterator[tuple[str, Any, Any]]:
    """(label, what came out, what comes out of the text alone) of every row; alone(tokens (1, L, ...), row) -> (1, L, ...)."""
    for n, row in enumerate(texts):
        asked = [i for i, y in enumerate(row.told) if y is not None]
        if asked:
            yield f"row {n}, tokens {asked}", np.stack([row.told[i] for i in asked]), alone(np.stack(row.tokens)[None], row)[0][asked]


def part(side: Any, file: str) -> Any:
    """A module of the side's room of decoding."""
    return importlib.import_module(f"{side.name}_impl.decode.{file}")


def stores(side: Any, windows: list[int | None], kind: str, **options: Any) -> list[Any]:
    """One store a layer."""
    return part(side, "kinds").make_stores(windows, kind=kind, **options)


def kinds(rng: Any, *windows: int | None) -> dict[str, Any]:
    """A kind that holds exactly what it was given, and its options."""
    rolling = [dict(kind="rolling")] if None not in windows else []
    return rng.choice([dict(kind="contiguous"), dict(kind="auto"), dict(kind="paged", page=int(rng.integers(1, 4))), *rolling])


def quiet(side: Any) -> Any:
    """No graph is kept on the torch side."""
    return importlib.import_module("torch").no_grad() if side.name == "torch" else contextlib.nullcontext()


def rng_of(side: Any, *arrays: Any) -> Any:
    """A generator that these inputs decide."""
    told = [side.numpy(array) for array in arrays]
    return key_rng("splits", *(array.shape for array in told), *(array.tobytes().hex()[:64] for array in told))


def layer(side: Any, module: Any, x: Any, **made: Any) -> Iterator[tuple[str, Any, Any]]:
    """What an attention layer or a block makes of new tokens beside a cache is what it makes of the whole text, causal: with rows of one
    length, and of several."""
    for alike in (True, False):
        yield from _layer(side, module, x, alike, **made)


def _layer(side: Any, module: Any, x: Any, alike: bool, *, window: int | None = None, half: int | None = None, heads: int | None = None,
          masked: bool = False, says_causal: bool = True, context: dict[str, Any] | None = None) -> list[tuple[str, Any, Any]]:
    """The same of rows that are alike, or not.

    window   how many tokens each sees, its own among them;  half: R/2, where queries and keys are turned, by angles of the law's own
    heads    H, where scores have a bias of the law's own;  masked: whether there is a mask of the law's own
    context  what each row also reads, for a layer with two caches: context (B, S, C) and context_mask
    """
    rng, width, yields = rng_of(side, x, np.array(alike)), x.shape[-1], []
    rows = 3 if context else int(rng.choice([0, 1, 2, 3, 3, 3]))
    plain = heads is None and not masked
    kept = kinds(rng, window) if plain else dict(kind="contiguous")
    decode = part(side, "context")
    if context is None:
        cache = decode.Cache(stores(side, [window], **kept))
    else:
        held = side.array(context["context_mask"]) if "context_mask" in context else None
        cache = decode.ContextCache(stores(side, [window], **kept), side.array(context["context"]), held)
    angles = rng.uniform(-3, 3, (MOST, half or 0))
    slopes, sees = rng.standard_normal((heads or 1, MOST, MOST)), rng.random((MOST, MOST)) < 0.7

    def options(positions: np.ndarray, keys: int) -> dict[str, Any]:
        """Of queries at these positions (B, T), and keys at 0 … S−1."""
        found: dict[str, Any] = {}
        if half is not None:
            found["rotary"] = side.array(np.cos(angles[positions])), side.array(np.sin(angles[positions]))
        if heads is not None:
            found["bias"] = side.array(slopes[:, positions[..., None], np.arange(keys)].swapaxes(0, 1))
        if masked:
            found["mask"] = side.array(sees[positions[..., None], np.arange(keys)][:, None])
        return found

    def of_context(origins: list[int]) -> dict[str, Any]:
        return {} if context is None else {name: side.array(value[origins]) for name, value in context.items()}

    def read(tokens: Any, real: Any) -> tuple[np.ndarray, np.ndarray]:
        places = place(side, cache, dict(key=tokens[:, None], real=real))
        given = options(side.numpy(places.positions), places.longest)
        if says_causal:
            given["causal"] = bool(rng.random() < 0.5)                  # it is, whatever is said
        if context is not None:
            given |= dict(context=cache.context) | ({} if cache.mask is None else dict(context_mask=cache.mask))
        y = module.forward(tokens, **given, cache=(cache.layers if context is None else cache.both)(places)[0])
        if side.name == "numpy":
            y, backward = y
            yields.append(("backward beside a cache", backward is None or hasattr(y, "logits"), True))
        cache.advance(places)
        return side.numpy(_y(y)), np.ones(tuple(tokens.shape[:2]), bool)

    def alone(tokens: np.ndarray, row: Row) -> np.ndarray:
        t = tokens.shape[1]
        given = options(np.arange(t)[None], t) | of_context([row.origin]) | (dict(causal=True) if says_causal else {})
        return side.numpy(_y(module(side.array(tokens), **given)))

    with quiet(side):
        texts = tale(side, rng, cache, read, lambda b, t: rng.standard_normal((b, t, width)), rows=rows, alike=alike)
        lengths = np.array([len(row.tokens) for row in texts], np.int64)
        return [("lengths", side.numpy(cache.lengths), lengths), *yields, *compared(texts, alone)]


def _y(result: Any) -> Any:
    """A block with experts also tells what its router said."""
    return result.y if hasattr(result, "logits") else result


def model(side: Any, module: Any, key: Any, *, most: int = MOST, vocabulary: int, windows: tuple = (None,), before: int = 0,
          source: dict[str, Any] | None = None) -> list[tuple[str, Any, Any]]:
    """`extend`, behind the last token of a row or behind every one, is the whole text alone.

    source   of an encoder–decoder: source (B, S) and perhaps source_mask
    """
    rng, rows = rng_of(side, key), 3
    kept = kinds(rng, *windows)

    def given(origins: Any) -> dict[str, Any]:
        return {} if source is None else {name: side.array(value[origins]) for name, value in source.items()}

    rows = rows if source is not None else int(rng.choice([0, 1, 2, 3, 3, 3]))
    cache = module.new_cache(**given(np.arange(rows)), **kept)

    def read(ids: Any, real: Any) -> tuple[np.ndarray, np.ndarray]:
        told = np.ones(tuple(ids.shape), bool) if real is None else side.numpy(real)
        way = rng.choice(["each", "last", "last", "hidden"]) if told.any(1).all() else rng.choice(["each", "hidden"])
        if way == "last":
            logits = side.numpy(module.extend(ids, cache, real=real))
            return np.repeat(logits[:, None], ids.shape[1], 1), told & (np.cumsum(told[:, ::-1], 1)[:, ::-1] == 1)   # of each row the last
        if way == "each":
            return side.numpy(module.extend(ids, cache, real=real, last=False)), told
        ends = told.any(1).all()
        last, h = module.extend_hidden(ids, cache, real=real, **({} if ends else dict(last=False)))
        logits = getattr(module, "base", module).logits(h)
        out = side.numpy(logits[0] if side.name == "numpy" else logits).copy()
        if ends and len(out):                                           # the last logits are among those of all
            out[np.arange(len(out)), told.shape[1] - 1 - told[:, ::-1].argmax(1)] = side.numpy(last)
        return out, told

    def alone(ids: np.ndarray, row: Row) -> np.ndarray:
        whole = given(np.array([row.origin]))
        return side.numpy(module(side.array(ids)) if source is None else module(whole.pop("source"), side.array(ids), **whole))

    with quiet(side):
        texts = tale(
            side, rng, cache, read, lambda b, t: rng.integers(0, vocabulary, (b, t)), rows=rows, most=most, before=before,
            alike=bool(rng.random() < 0.5),
        )
        lengths = np.array([before + len(row.tokens) for row in texts], np.int64)
        return [("lengths", side.numpy(cache.lengths), lengths), *compared(texts, alone)]
