"""What PagedStore and PageTable are fed: pages of one token and of many, rows that share them, leave them and give them back."""

import numpy as np

from parity.cases import case, left_out, one_of
from parity.cases.decode._stores import broken_off, cache_of, compared, emptied, move, of_another_model, place, plain, story, tell, to

PAGE = left_out(one_of(1, 2, 3, 8))


def play_store(side, *, steps, **options):
    """Two layers, and how many pages they use."""
    table = side.get("decode.PageTable")(**options)
    stores = [side.get("decode.PagedStore")(table=table) for _ in range(2)]
    return emptied(side, stores) | tell(side, stores, steps) | dict(use=np.array([table.pages_in_use, table.shared, table.nbytes]))


def kept(side, *, steps, **options):
    """All of every row is there, to the bit, whoever shares its pages; what is behind it is zeros, or was there once."""
    table = side.get("decode.PageTable")(**options)
    stores = [side.get("decode.PagedStore")(table=table) for _ in range(2)]
    for label, places, there, got, want in compared(side, stores, steps):
        yield f"{label} is all there", there, np.arange(int(places.lengths[label[-1]]))
        yield f"{label} is what was kept", got.view(np.int64), want.view(np.int64)


def like_contiguous(side, *, steps, **options):
    """The plain store returns the same, in the same shape."""
    table = side.get("decode.PageTable")(**options)
    paged = tell(side, [side.get("decode.PagedStore")(table=table) for _ in range(2)], steps)
    for label, value in tell(side, [plain(side) for _ in range(2)], steps).items():
        if isinstance(value, list):
            for got, want in zip(paged[label], value, strict=True):
                yield label, got.view(np.int64), want.view(np.int64)
        elif not label.endswith("bytes"):
            yield label, paged[label], value


def clear(side, *, steps, **options):
    """A page comes back empty: what is hidden behind a row is 0, even where a NaN was."""
    cache = cache_of(side, [side.get("decode.PagedStore")(table=side.get("decode.PageTable")(page=4))])
    for value, t, real in ((np.nan, 6, np.ones((2, 6), bool)), (1.0, 7, np.arange(7) < np.array([[5], [2]]))):
        step = dict(key=np.full((2, 1, t, 1), value), value=np.full((2, 1, t, 1), value), real=real)
        places = place(side, cache, step)
        held = cache.stores[0].append(to(side, step["key"]), to(side, step["value"]), places)
        cache.advance(places)
        cache.crop(to(side, np.zeros(2, np.int64)))
    for array in held[:2]:
        yield "behind each row", array[:, 0, :, 0], np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], float)


@case("decode.PagedStore", play=play_store, also=[kept, like_contiguous, clear], refuses=[broken_off(), *of_another_model()])
def paged_store(draw):
    return dict(steps=story(draw), page=draw(PAGE))


def play_table(side, *, steps, **options):
    """The whole table after every step."""
    table = side.get("decode.PageTable")(**options)
    told = {"start": shown(table)}
    for i, step in enumerate(walk(side, table, steps)):
        told[f"{i}"] = shown(table)
        if "key" in step:
            told[f"{i}"] |= dict(copied=table.copied, given=table.given, slots=table.slots, tokens=table.tokens, named=table.named)
    return told


def shown(table):
    """What there is to see of it."""
    use = np.array([table.page, table.pages_in_use, table.shared, table.nbytes, table.moves])
    return dict(blocks=table.blocks, references=table.references, lengths=table.lengths, use=use)


def walk(side, table, steps):
    """Take the table through the steps, as its stores would."""
    cache = cache_of(side, [table])
    for step in steps:
        if "key" in step:
            places = place(side, cache, step)
            table.prepare(places)
            before = table.slots
            table.prepare(places)                                       # for the second layer
            assert table.slots is before
            cache.advance(places)
        else:
            move(side, cache, step)
        yield step


def pages(side, *, steps, **options):
    """A page is named as often as it is counted, and by several rows at the same place only; rows have the pages they need."""
    table = side.get("decode.PageTable")(**options)
    for i, step in enumerate(walk(side, table, steps)):
        blocks, lengths = side.numpy(table.blocks), side.numpy(table.lengths)
        references = side.numpy(table.references)
        named = blocks[blocks > 0]
        yield f"references after {i}", references[1:], np.bincount(named, minlength=len(references))[1:]
        yield f"pages of each row after {i}", (blocks > 0).sum(1), -(-lengths // table.page)
        yield f"pages in order after {i}", (blocks > 0) & (np.arange(blocks.shape[1]) >= (blocks > 0).sum(1)[:, None]), blocks < 0
        for page in np.unique(named):
            yield f"places of page {page} after {i}", np.array(len(np.unique(np.nonzero(blocks == page)[1]))), np.array(1)
        yield f"pages in use after {i}", np.array([table.pages_in_use, table.shared]), np.array([
            len(np.unique(named)), int((np.bincount(named, minlength=1) > 1).sum())])
        if "key" in step:
            slots = side.numpy(table.slots)
            yield f"written once after {i}", np.sort(slots), np.unique(slots)
            written = np.unique(slots // table.page)
            yield f"written by one row after {i}", references[written], np.ones(len(written), np.int64)


@case("decode.PageTable", play=play_table, also=[pages], refuses=[dict(page=page, steps=[]) for page in (0, 1.5, True, None)], equivalent={
    "np.zeros((0, 0), np.int64) -> np.zeros((0, 1), np.int64)": "the first call makes a table for its rows, whatever there was before",
})
def page_table(draw):
    return dict(steps=story(draw), page=draw(PAGE))
