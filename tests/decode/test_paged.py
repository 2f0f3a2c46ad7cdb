"""Pages under random use, what they save, and what a page must not remember; that all keys are there is judged by parity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numpy_impl.decode.cache import Cache, Places
from numpy_impl.decode.context import ContextCache
from numpy_impl.decode.paged import PagedStore, PageTable

STEP = st.one_of(
    st.tuples(st.just("append"), st.lists(st.integers(0, 9), min_size=4, max_size=4)),
    st.tuples(st.just("reorder"), st.lists(st.integers(0, 3), min_size=1, max_size=4)),
    st.tuples(st.just("crop"), st.lists(st.integers(0, 12), min_size=4, max_size=4)),
    st.tuples(st.just("free"), st.integers(0, 3)),
)


@given(page=st.integers(1, 5), steps=st.lists(STEP, min_size=1, max_size=25))
@settings(deadline=None)
def test_no_page_is_lost_or_written_for_another_row(page, steps):
    """One number a slot stands for what a store holds: whatever happens, each row reads back what it was given, or shares."""
    table, pool, rows, next_token = PageTable(page=page), np.full((1000, page), -1), [[] for _ in range(4)], 0
    for what, how in [("append", [3, 0, 6, 1]), *steps]:
        lengths = np.array([len(row) for row in rows])
        if what == "append":
            more = np.array(how[:len(rows)])
            real = np.arange(more.max()) < more[:, None]
            new = next_token + np.arange(real.size).reshape(real.shape)
            next_token += real.size
            places = Places(lengths, real.shape[1], real)
            table.prepare(places)
            pool[table.copied[1]] = pool[table.copied[0]]
            assert len(np.intersect1d(table.given, table.copied[1])) == 0
            pool.reshape(-1)[table.slots] = new[table.tokens]
            for row, tokens, keep in zip(rows, new, real, strict=True):
                row.extend(tokens[keep].tolist())
        elif what == "reorder":
            order = np.array(how) % len(rows)
            table.reorder(order)
            rows = [list(rows[n]) for n in order]
        else:
            shorter = np.maximum(lengths - np.array(how[:len(rows)]), 0) if what == "crop" else lengths * (np.arange(len(rows)) != how)
            table.crop(shorter)
            rows = [row[:n] for row, n in zip(rows, shorter, strict=True)]
        blocks = table.blocks
        for row, pages in zip(rows, blocks, strict=True):
            at = np.arange(len(row))
            assert pool[pages[at // page], at % page].tolist() == row
            assert (pages > 0).sum() == -(-len(row) // page)
        named = np.bincount(blocks[blocks > 0], minlength=len(table.references))
        assert table.references[1:].tolist() == named[1:].tolist()
        assert table.pages_in_use == (named > 0).sum() and table.shared == (named > 1).sum()
    table.crop(np.zeros(len(rows), np.int64))
    assert table.pages_in_use == 0


def append(cache, key):
    places = cache.place((key.shape[0], key.shape[2]))
    held = [layer.append(key, key)[0] for layer in cache.layers(places)]
    cache.advance(places)
    return held


def two_layers(page=4):
    table = PageTable(page=page)
    return Cache([PagedStore(table=table), PagedStore(table=table)]), table


def test_beams_hold_their_common_beginning_once():
    cache, table = two_layers(page=16)
    append(cache, np.ones((1, 2, 100, 8), np.float32))
    alone = cache.nbytes
    cache.reorder(np.zeros(8, np.int64))
    assert (table.pages_in_use, table.shared, cache.nbytes) == (7, 7, alone)
    append(cache, np.ones((8, 2, 1, 8), np.float32))
    assert (table.pages_in_use, table.shared) == (6 + 8, 6)                 # each has a last page of its own
    cache.reorder(np.array([3]))
    assert (table.pages_in_use, table.shared) == (7, 0)


def test_the_same_rows_twice_are_two_moves_for_every_layer_together():
    cache, _ = two_layers()
    append(cache, np.arange(3.0).reshape(3, 1, 1, 1))
    rows = np.array([1, 2, 0])
    cache.reorder(rows)
    cache.reorder(rows)
    for held in append(cache, np.zeros((3, 1, 1, 1))):
        assert held[:, 0, 0, 0].tolist() == [2, 0, 1]


def test_what_a_page_held_before_is_not_seen_by_its_next_row():
    cache, _ = two_layers()
    append(cache, np.full((2, 1, 3, 1), np.nan))
    cache.crop(np.zeros(2, np.int64))
    places = cache.place((2, 4), np.array([[True] * 4, [False, False, True, False]]))
    held = cache.stores[0].append(*[np.ones((2, 1, 4, 1))] * 2, places)
    assert np.isfinite(held.key).all() and np.isfinite(held.value).all()


def test_pools_double():
    cache, table = two_layers(page=2)
    rooms = set()
    for _ in range(500):
        append(cache, np.zeros((1, 1, 1, 1)))
        rooms.add(cache.stores[1].nbytes)
    assert len(rooms) <= 10 and table.pages_in_use == 250
    assert max(rooms) <= 2 * 2 * 500 * 2 * 8


@pytest.mark.parametrize("page", [1, 4])
def test_a_store_that_has_read_nothing_follows_any_rows(page):
    cache = ContextCache([PagedStore(table=PageTable(page=page))], np.zeros((2, 3, 4)), None)
    cache.reorder(np.array([1, 1, 0]))
    cache.crop(np.zeros(3, np.int64))
    places = cache.place((3, 1))
    assert cache.stores[0].append(*[np.ones((3, 1, 1, 1))] * 2, places).key.shape == (3, 1, 1, 1)
