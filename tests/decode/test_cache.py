"""What `extend` refuses is refused alike on both sides, before anything is kept; every kind of cache gives both sides the same logits."""

import numpy as np
import pytest
import torch

from byhand.configs.decoder import DecoderConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.t5 import T5Config
from numpy_impl.decode.cache import Cache
from numpy_impl.decode.kinds import make_stores
from numpy_impl.finetune.prompt import PromptTuned
from numpy_impl.models.decoder import Decoder
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama
from numpy_impl.models.t5 import T5
from torch_impl.finetune.prompt import PromptTuned as TorchPromptTuned
from torch_impl.models.decoder import Decoder as TorchDecoder
from torch_impl.models.gpt2 import GPT2 as TorchGPT2
from torch_impl.models.llama import Llama as TorchLlama
from torch_impl.models.t5 import T5 as TorchT5

_SIZES = dict(vocabulary=7, max_length=8, d_model=8, n_layers=2, n_heads=2)
_FAMILIES = {
    "gpt2": (GPT2, TorchGPT2, GPT2Config(**_SIZES)),
    "llama": (Llama, TorchLlama, LlamaConfig(**_SIZES, n_kv_heads=1)),
    "mistral": (Llama, TorchLlama, LlamaConfig(**_SIZES, n_kv_heads=1, window=3)),
    "decoder": (Decoder, TorchDecoder, DecoderConfig(**_SIZES, positions="alibi")),
    "linear": (Decoder, TorchDecoder, DecoderConfig(**_SIZES, attention="linear")),
    "t5": (T5, TorchT5, T5Config(7, 8, 2, 1, 2, head_width=3)),
}
_SOURCE = np.array([[1, 2, 3], [4, 5, 6]])


def pair(family):
    """The model on both sides, with one state."""
    ours, theirs, config = _FAMILIES[family]
    one = ours(config, dtype=np.float64, rng=np.random.default_rng(0))
    other = theirs(config, dtype=torch.float64)
    other.load_state_dict({name: torch.tensor(value) for name, value in one.state_dict().items()})
    return one, other


def caches(family, one, other, kind="auto", **options):
    if family == "t5":
        return one.new_cache(_SOURCE, kind=kind, **options), other.new_cache(torch.tensor(_SOURCE), kind=kind, **options)
    return one.new_cache(kind, **options), other.new_cache(kind, **options)


def both(one, other, caches, ids, real=None, **options):
    """What both sides return, or refuse."""
    told = []
    for model, cache, to in ((one, caches[0], np.asarray), (other, caches[1], torch.as_tensor)):
        try:
            new = to(ids) if hasattr(ids, "shape") else ids
            told.append(np.asarray(model.extend(new, cache, real=None if real is None else to(real), **options)))
        except ValueError as error:
            told.append(str(error))
    return told


_REFUSED = {
    "an axis missing": (dict(ids=np.array([1, 2])), "2 axes"),
    "no row of the cache": (dict(ids=np.array([[1], [2], [3]])), "the 2 rows"),
    "an unknown id": (dict(ids=np.array([[1, 2], [3, 7]])), "in [0, 6]"),
    "floats": (dict(ids=np.array([[1.0], [2.0]])), "integers"),
    "a list": (dict(ids=[[1], [2]]), "an array of integers"),
    "nothing": (dict(ids=None), "ids as an array"),
    "no token": (dict(ids=np.zeros((2, 0), np.int64)), "a token in every row"),
    "a row of padding": (dict(ids=np.array([[1, 2], [3, 4]]), real=np.array([[True, False], [False, False]])), "a token in every row"),
    "real of another shape": (dict(ids=np.array([[1, 2], [3, 4]]), real=np.array([[True], [False]])), "(2, 2)"),
    "real as integers": (dict(ids=np.array([[1], [3]]), real=np.array([[1], [0]])), "booleans"),
    "too many tokens": (dict(ids=np.ones((2, 7), np.int64)), "at most 8 tokens"),
}


@pytest.mark.parametrize("what", _REFUSED)
@pytest.mark.parametrize("family", _FAMILIES)
def test_what_is_refused_leaves_the_cache_as_it_was(family, what):
    bad, words = _REFUSED[what]
    if family == "t5" and what == "too many tokens":
        pytest.skip("T5 has no longest text")
    one, other = pair(family)
    held, clean = caches(family, one, other), caches(family, one, other)
    first, then = np.array([[1, 2], [3, 4]]), np.array([[5], [6]])
    both(one, other, held, first)
    ours, theirs = both(one, other, held, **bad)
    assert isinstance(ours, str), ours
    assert ours == theirs
    assert words in ours
    both(one, other, clean, first)
    for got, want in zip(both(one, other, held, then), both(one, other, clean, then), strict=True):
        np.testing.assert_array_equal(got, want)
    assert held[0].lengths.tolist() == held[1].lengths.tolist() == [3, 3]


@pytest.mark.parametrize("kind", [
    dict(kind="contiguous"), dict(kind="paged", page=2), dict(kind="int8", recent=2), dict(kind="nf4", recent=2, block=2),
], ids=lambda kind: kind["kind"])
@pytest.mark.parametrize("family", _FAMILIES)
def test_every_kind_of_cache_gives_both_sides_the_same(family, kind):
    one, other = pair(family)
    held = caches(family, one, other, **kind)
    real = np.array([[False, True, True, True], [True, True, False, True]])
    for ids, told in ((np.array([[0, 1, 2, 3], [4, 5, 0, 6]]), real), (np.array([[2], [5]]), None), (np.array([[1], [1]]), None)):
        ours, theirs = both(one, other, held, ids, told)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    rows = np.array([1, 1, 0])
    held[0].reorder(rows), held[1].reorder(torch.tensor(rows))
    ours, theirs = both(one, other, held, np.array([[2], [3], [3]]))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    assert held[0].nbytes == held[1].nbytes > 0


def test_a_prompt_is_not_taken_in_for_ids_that_are_refused():
    one, other = pair("gpt2")
    one, other = PromptTuned(one, 2), TorchPromptTuned(other, 2)
    held = one.new_cache(), other.new_cache()
    ours, theirs = both(one, other, held, np.array([1, 2, 3]))
    assert ours == theirs
    assert "2 axes" in ours
    assert not len(held[0].lengths)
    one.extend(np.array([[1], [2]]), held[0])
    assert held[0].lengths.tolist() == [3, 3]


def test_a_batch_that_grows_and_shrinks_is_each_text_alone():
    """Beams multiply rows and take tokens back; each goes on as if it had been alone."""
    model = Llama(_FAMILIES["mistral"][2], dtype=np.float64, rng=np.random.default_rng(0))
    cache: Cache = model.new_cache("rolling", spare=4)
    model.extend(np.array([[1, 2, 3, 4]]), cache)
    cache.reorder(np.zeros(3, np.int64))
    model.extend(np.array([[5], [6], [0]]), cache)
    cache.crop(np.array([5, 3, 4]))
    got = model.extend(np.array([[1], [2], [3]]), cache)
    for logits, text in zip(got, ([1, 2, 3, 4, 5, 1], [1, 2, 3, 2], [1, 2, 3, 4, 3]), strict=True):
        np.testing.assert_allclose(logits, model(np.array([text]))[0, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("kind", ["contiguous", "rolling", "paged", "int8"])
def test_rows_and_lengths_may_be_any_integers_and_stay_the_callers(kind, dtype):
    one, other = pair("mistral")
    held = caches("mistral", one, other, kind)
    both(one, other, held, np.array([[1, 2, 3], [4, 5, 6]]))
    rows, lengths = np.array([1, 1, 0], dtype), np.array([2, 1, 3], dtype)
    for cache, to in zip(held, (np.array, torch.tensor), strict=True):
        moved, cropped = to(rows), to(lengths)
        cache.reorder(moved)
        cache.crop(cropped)
        moved[...] = 0
        cropped[...] = 0
    ours, theirs = both(one, other, held, np.array([[2], [3], [3]]))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    assert held[0].lengths.tolist() == held[1].lengths.tolist() == [3, 2, 4]
    if kind != "int8":
        for row, text in enumerate(([4, 5, 2], [4, 3], [1, 2, 3, 3])):
            np.testing.assert_allclose(ours[row], one(np.array([text]))[0, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["contiguous", "rolling", "paged", "nf4"])
def test_tokens_in_another_dtype_are_refused_before_they_are_kept(kind):
    one, other = pair("mistral")
    held = caches("mistral", one, other, kind)
    ids, then = np.array([[1, 2], [3, 4]]), np.array([[5], [6]])
    both(one, other, held, ids)
    narrow = Llama(_FAMILIES["mistral"][2], dtype=np.float32), TorchLlama(_FAMILIES["mistral"][2], dtype=torch.float32)
    ours, theirs = both(*narrow, held, then)
    assert ours == theirs
    assert "as those that it holds, float64 (B, 1, T, 4); got key float32 (2, 1, 1, 4)" in ours
    clean = caches("mistral", one, other, kind)
    both(one, other, clean, ids)
    for got, want in zip(both(one, other, held, then), both(one, other, clean, then), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("family", "other_family"), [("t5", "gpt2"), ("gpt2", None), ("t5", None)])
def test_what_is_no_cache_of_its_own_is_refused(family, other_family):
    models = pair(family)
    held = (None, None) if other_family is None else caches(other_family, *pair(other_family))
    ours, theirs = both(*models, held, np.array([[1], [2]]))
    assert ours == theirs
    assert "a cache of its own new_cache" in ours


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2])
def test_a_cache_of_another_number_of_layers_is_refused_before_anything_is_kept(layers, tokens):
    models = pair("llama")
    config = LlamaConfig(**dict(_SIZES, n_layers=layers), n_kv_heads=1)
    held = Llama(config).new_cache(), TorchLlama(config).new_cache()
    ours, theirs = both(*models, held, np.ones((2, tokens), np.int64))
    assert ours == theirs
    assert "2 caches, one a layer" in ours
    assert held[0].nbytes == held[1].nbytes == 0


@pytest.mark.parametrize("kind", ["contiguous", "rolling", "paged", "int8"])
def test_what_is_only_to_be_read_is_not_kept_itself(kind):
    cache = Cache(make_stores([4], kind=kind))
    key = np.arange(3.0).reshape(1, 1, 3, 1)
    key.flags.writeable = False
    for real in (np.zeros((1, 3), bool), None, np.array([[True, False, True]])):
        places = cache.place((1, 3), real)
        (layer,) = cache.layers(places)
        got = layer.append(key, key, left=3)[0]
        cache.advance(places)
        assert not np.shares_memory(got, key)
    assert got.ravel()[-5:].tolist() == [0, 1, 2, 0, 2]


def test_the_mask_of_a_source_stays_the_callers():
    for model, array in zip(pair("t5"), (np.array, torch.tensor), strict=True):
        told = []
        for changed in (False, True):
            mask = array([[True, True, False], [True, True, True]])
            cache = model.new_cache(array(_SOURCE), source_mask=mask)
            mask[...] = mask ^ changed
            told.append(np.asarray(model.extend(array([[1], [2]]), cache)))
        np.testing.assert_array_equal(*told)
