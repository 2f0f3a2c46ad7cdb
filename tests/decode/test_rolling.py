"""The memory and the copies of a rolling store, and what it can take back; that it returns the right keys is judged by parity."""

import numpy as np
import pytest
import torch

from numpy_impl.decode.cache import Cache
from numpy_impl.decode.context import ContextCache
from numpy_impl.decode.rolling import RollingStore
from torch_impl.decode import cache as torch_cache
from torch_impl.decode.rolling import RollingStore as TorchRollingStore


def append(cache, key, real=None):
    places = cache.place((key.shape[0], key.shape[2]), real)
    held = cache.stores[0].append(key, key, places)
    cache.advance(places)
    return held


def test_a_long_text_takes_no_more_room_than_a_window_and_one_token_is_rarely_copied():
    cache = Cache([RollingStore(window=17, spare=4)])
    store, token = cache.stores[0], np.ones((2, 3, 1, 8), np.float32)
    rooms, views = set(), 0
    for _ in range(2000):
        held = append(cache, token)
        rooms.add(store.nbytes)
        views += np.shares_memory(held.key, store.key)
    assert max(rooms) == 2 * (2 * (16 + 4)) * 2 * 3 * 8 * 4                 # keys and values, room for twice of what is kept
    assert len(rooms) <= 7                                                  # 2, 4, 6, 14, 30, 40 columns: doubled, and then no more
    assert views >= 2000 * (1 - 1 / 20) - 7                                 # once in 20 tokens they move


def test_a_long_prompt_is_not_kept():
    cache = Cache([RollingStore(window=5)])
    assert append(cache, np.ones((1, 1, 4000, 2))).key.shape == (1, 1, 4000, 2)
    assert cache.stores[0].key.shape[2] == 2 * (4 + 32)


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("spare", [0, 1, 7])
def test_as_many_tokens_as_are_spare_can_always_be_taken_back_and_no_more_than_are_kept(side, spare):
    to = np.asarray if side == "numpy" else torch.as_tensor
    for length in range(1, 40):
        made = RollingStore if side == "numpy" else TorchRollingStore
        cache = (Cache if side == "numpy" else torch_cache.Cache)([made(window=4, spare=spare)])
        store = cache.stores[0]
        for n in range(length):
            append(cache, to(np.full((1, 1, 1, 1), float(n))))
        oldest = int(store.oldest[0])
        assert oldest <= max(length - 3 - spare, 0)
        back = np.array([length - min(spare, length)])
        if oldest > 0:
            before = store.key, store.end
            with pytest.raises(ValueError, match=r"RollingStore.crop needs the 3 tokens before each new end still kept.*kept_from"):
                cache.crop(to(np.array([oldest + 2])))
            assert (store.key, store.end, int(cache.lengths[0])) == (*before, length)
        cache.crop(to(back))
        held = append(cache, to(np.full((1, 1, 1, 1), -1.0)))
        assert held.key.ravel().tolist() == [*map(float, range(max(back[0] - 3, 0), back[0])), -1.0]


def test_a_store_that_has_read_nothing_follows_any_rows():
    cache = ContextCache([RollingStore(window=3)], np.zeros((2, 3, 4)), None)
    cache.reorder(np.array([1, 1, 0]))
    cache.crop(np.zeros(3, np.int64))
    assert append(cache, np.ones((3, 1, 1, 1))).key.shape == (3, 1, 1, 1)


def test_a_window_may_be_any_integer():
    for side in (RollingStore, TorchRollingStore):
        assert side(window=np.uint8(200), spare=np.uint8(100)).kept == 299
