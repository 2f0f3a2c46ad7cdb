"""What codes save, how far they are off at worst, and what that does to attention; that both sides agree is judged by parity."""

import numpy as np
import pytest

from numpy_impl.decode.cache import Cache
from numpy_impl.decode.context import ContextCache
from numpy_impl.decode.quantized import QuantizedStore
from numpy_impl.quantize.nf4 import nf4_table


def append(cache, key, value=None):
    places = cache.place((key.shape[0], key.shape[2]))
    held = cache.stores[0].append(key, key if value is None else value, places)
    cache.advance(places)
    return held


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8 + 32 / 64), ("nf4", 4 + 32 / 64)])
def test_a_number_takes_its_bits_and_a_share_of_the_absmax(kind, bits):
    rng = np.random.default_rng(0)
    cache = Cache([QuantizedStore(kind=kind, recent=16)])
    append(cache, rng.standard_normal((1, 2, 1024, 64), dtype=np.float32))
    held = append(cache, rng.standard_normal((1, 2, 1024, 64), dtype=np.float32))
    full, recent = held.key.nbytes + held.value.nbytes, 2 * 2 * 16 * 64 * 4
    assert cache.nbytes == int(full * bits / 32) + recent


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_bound_is_reached_and_not_passed(kind):
    levels = np.arange(-127, 128) / 127 if kind == "int8" else nf4_table().astype(np.float64)
    gap = np.diff(levels).max()
    at = int(np.diff(levels).argmax())
    key = np.linspace(levels[at], levels[at + 1], 1001)                     # from one level to the next, farthest off in the middle
    key = np.stack([key, np.full(1001, -1.0)], -1)[None, None] * 3.0        # absmax is 3
    cache = Cache([QuantizedStore(kind=kind, recent=1)])
    append(cache, key)
    off = np.abs(append(cache, key[:, :, :1]).key[:, :, :1000] - key[:, :, :1000]).max()
    bound = 3 / 254 if kind == "int8" else 3 * (1 - 0.6961928) / 2
    assert bound == pytest.approx(3 * gap / 2, rel=1e-6)
    assert 0.99 * bound < off <= bound * (1 + 1e-5)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_attention_weights_stay_in_the_bound_that_follows(kind):
    rng = np.random.default_rng(1)
    key, query = rng.standard_normal((1, 1, 200, 32)), rng.standard_normal(32)
    cache = Cache([QuantizedStore(kind=kind, recent=1)])
    append(cache, key)
    held = append(cache, key[:, :, :1]).key[0, 0, :200]
    delta = np.abs(key).max() * (1 / 254 if kind == "int8" else 0.15191) * np.abs(query).sum() / np.sqrt(32)
    before, after = (np.exp(k @ query / np.sqrt(32)) for k in (key[0, 0], held))
    change = np.log(after / after.sum()) - np.log(before / before.sum())
    assert 0 < np.abs(change).max() <= 2 * delta
    assert kind == "nf4" or np.abs(change).max() < 0.05


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_how_a_text_was_cut_into_calls_leaves_no_trace(kind):
    rng = np.random.default_rng(2)
    key = rng.standard_normal((2, 3, 90, 6))
    codes = []
    for cuts in ([90], [1] * 90, [7, 50, 1, 32]):
        cache = Cache([QuantizedStore(kind=kind, recent=5, block=4)])
        for begin, t in zip(np.cumsum([0, *cuts]), cuts, strict=False):
            append(cache, key[:, :, begin:begin + t])
        store = cache.stores[0]
        assert store.old.tolist() == [85, 85]
        codes.append((store.key.codes[:, :, :85].tobytes(), store.value.absmax[:, :, :85].tobytes()))
    assert len(set(codes)) == 1


def test_a_store_that_has_read_nothing_follows_any_rows():
    cache = ContextCache([QuantizedStore(kind="int8")], np.zeros((2, 3, 4)), None)
    cache.reorder(np.array([1, 1, 0]))
    cache.crop(np.zeros(3, np.int64))
    assert append(cache, np.ones((3, 1, 1, 1))).key.shape == (3, 1, 1, 1)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_width_of_no_numbers_is_held_in_no_bytes(kind):
    cache = Cache([QuantizedStore(kind=kind, recent=1, block=4)])
    for _ in range(3):
        held = append(cache, np.zeros((1, 2, 3, 0)))
    assert held.key.shape == (1, 2, 9, 0)
    assert cache.nbytes == 0
