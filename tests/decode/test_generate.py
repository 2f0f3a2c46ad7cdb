"""Greedy text is that of transformers, token for token; samples follow the distribution; the gap says what rounding cannot change."""

import dataclasses
import functools
import tempfile

import numpy as np
import pytest
import torch

from byhand.configs.generation import GenerationConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.configs.t5 import T5Config
from byhand.hugging_face.directory import load_hugging_face, save_hugging_face
from byhand.model_source import model_class
from byhand.noise import Noise
from numpy_impl.decode.generate import generate
from numpy_impl.ops.softmax import softmax
from parity.cases.decode._automaton import Automaton
from parity.sides import Side
from torch_impl.decode.generate import generate as torch_generate

transformers = pytest.importorskip("transformers")

V, PAD = 13, 0
LLAMA = LlamaConfig(vocabulary=V, max_length=64, d_model=12, n_layers=2, n_heads=3, n_kv_heads=1, d_hidden=20)
FAMILIES = {
    "gpt2": GPT2Config(vocabulary=V, max_length=64, d_model=12, n_layers=2, n_heads=3, d_hidden=20, dropout=0.0),
    "llama": LLAMA,
    "mistral": dataclasses.replace(LLAMA, window=4),
    "qwen3": dataclasses.replace(LLAMA, qk_norm=True),
    "mixtral": MixtralConfig(vocabulary=V, max_length=64, d_model=12, n_layers=1, n_heads=3, n_kv_heads=1, d_expert=10, n_experts=3, k=2),
    "t5": T5Config(vocabulary=V, d_model=12, n_heads=3, encoder_layers=2, decoder_layers=2, d_hidden=20, head_width=4, buckets=8,
                   max_distance=6, dropout=0.0),
}
SIDES = {"numpy": (generate, np.asarray), "torch": (torch_generate, torch.from_numpy)}


@functools.cache
def models(family, dtype):
    """Ours on both sides and theirs, with the same random numbers."""
    config = FAMILIES[family]
    state = {name: (0.6 if "tokens" in name or "head" in name else 0.3) * np.random.default_rng(len(name)).standard_normal(array.shape)
             for name, array in model_class(config, "numpy_impl")(config).state_dict().items()}
    with tempfile.TemporaryDirectory() as path:
        save_hugging_face(path, config, state)
        auto = transformers.AutoModelForSeq2SeqLM if family == "t5" else transformers.AutoModelForCausalLM
        eager = {"experts_implementation": "eager"} if family == "mixtral" else {}
        theirs = auto.from_pretrained(path, dtype=getattr(torch, dtype), **eager)
        config, state = load_hugging_face(path)
    ours = model_class(config, "numpy_impl")(config, dtype=np.dtype(dtype))
    ours.load_state_dict(state)
    twin = model_class(config, "torch_impl")(config, dtype=getattr(torch, dtype))
    twin.load_state_dict({name: torch.from_numpy(np.asarray(array)) for name, array in state.items()})
    return {"numpy": ours, "torch": twin, "transformers": theirs.eval()}


def drawn(family, index):
    """Prompts of several lengths with the padding on the left, and a config; every rule in turn."""
    rng = np.random.default_rng(index)
    b, t = int(rng.integers(1, 5)), int(rng.integers(1, 7))
    ids = rng.integers(1, V, (b, t))
    real = np.arange(t) >= rng.integers(0, t, (b, 1))
    ids[~real] = PAD
    most = int(rng.integers(2, 24))
    config = GenerationConfig(
        max_new_tokens=most, min_new_tokens=int(rng.choice((0, 0, 3))), pad=PAD,
        suppressed=(PAD,),                                         # theirs sees padding in the penalties, ours not: no text may hold it
        eos=tuple(rng.choice(np.arange(1, V), rng.choice((0, 1, 2, 3)), replace=False).tolist()),
        repetition_penalty=float(rng.choice((1.0, 0.8, 1.3))), no_repeat_ngram=int(rng.choice((0, 0, 3))) if real.all() else 0,
        banned=(((3, 4), (5,)), ())[rng.integers(2)], forced_last=None if rng.random() < 0.8 else 7,
    )
    return ids, real, config


def theirs_writes(family, model, ids, real, config):
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=PAD, decoder_start_token_id=PAD, eos_token_id=list(config.eos) or None, max_new_tokens=config.max_new_tokens,
        min_new_tokens=config.min_new_tokens, do_sample=False, repetition_penalty=config.repetition_penalty,
        no_repeat_ngram_size=config.no_repeat_ngram, bad_words_ids=[[*word] for word in config.banned if word not in
                                                                    [(token,) for token in config.eos]] or None,
        forced_eos_token_id=config.forced_last, suppress_tokens=list(config.suppressed),
    )
    found = model.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(real.astype(np.int64))).numpy()
    return found[:, 1 if family == "t5" else ids.shape[1]:]


def ours_writes(side, family, model, ids, real, config):
    write, convert = SIDES[side]
    ids, real, given = convert(ids), convert(real), {}
    if family == "t5":
        given["cache"], ids, real = model.new_cache(ids, source_mask=real), PAD * ids[:, :1], None
    return write(model, ids, config=config, real=real, **given)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", SIDES)
def test_greedy_is_what_transformers_writes(side, family):
    lengths = set()
    for index in range(16):
        ids, real, config = drawn(family, index)
        made = models(family, "float64")
        want = theirs_writes(family, made["transformers"], ids, real, config)
        found = ours_writes(side, family, made[side], ids, real, config)
        assert found.sequences.tolist() == want.tolist(), index
        lengths |= set(np.asarray(found.lengths).tolist())
        for text, n, reason in zip(found.sequences.tolist(), found.lengths.tolist(), found.reasons, strict=True):
            assert reason == ("eos" if text[n - 1] in config.eos else "length") and set(text[n:]) <= {PAD}
    assert len(lengths) > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float32_texts_part_at_a_near_tie_and_the_gap_says_so(family):
    for index in range(8):
        ids, real, config = drawn(family, index)
        config = dataclasses.replace(config, repetition_penalty=1.0, max_new_tokens=40)
        made = models(family, "float32")
        want = theirs_writes(family, made["transformers"], ids, real, config)
        for side in SIDES:
            found = ours_writes(side, family, made[side], ids, real, config)
            assert found.gap.dtype == SIDES[side][1](np.zeros(())).dtype
            assert float(found.gap) < 1e-4 or found.sequences.tolist() == want.tolist()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_scores_that_are_off_by_less_than_half_the_gap_change_nothing(temperature):
    table, ids = 2 * np.random.default_rng(0).standard_normal((97, 9)), np.array([[1, 2], [3, 4], [5, 6]])
    config = GenerationConfig(max_new_tokens=12, temperature=temperature)
    side, noise = Side("numpy"), Noise(seed=3)
    found = generate(Automaton(side, table), ids, config=config, noise=noise)
    reach = float(found.gap) / 2 * (temperature or 1)
    changed = []
    for seed in range(40):
        wobble = np.random.default_rng(seed).choice((-1.0, 1.0), table.shape)
        for much in (0.999, 30):
            moved = generate(Automaton(side, table + much * reach * wobble), ids, config=config, noise=noise).sequences
            changed.append((much, moved.tolist() != found.sequences.tolist()))
    assert not any(differs for much, differs in changed if much < 1) and any(differs for _, differs in changed)


@pytest.mark.parametrize("side", SIDES)
def test_samples_follow_the_distribution_and_rows_draw_for_themselves(side):
    write, convert = SIDES[side]
    table = convert(np.random.default_rng(0).standard_normal((97, 5)))
    config = GenerationConfig(max_new_tokens=2, temperature=0.7, top_k=4)
    ids = convert(np.full((4000, 1), 2))                            # all rows are in state 3
    found = np.asarray(write(Automaton(Side(side), table), ids, config=config, noise=Noise(seed=1)).sequences)
    logits = np.asarray(table)[3] / 0.7
    want = softmax(np.where(logits == logits.min(), -np.inf, logits))[0]
    np.testing.assert_allclose(np.bincount(found[:, 0], minlength=5) / 4000, want, atol=4 * 0.5 / 4000**0.5)
    again = np.asarray(write(Automaton(Side(side), table), ids[:7], config=config, noise=Noise(seed=1)).sequences)
    assert again.tolist() == found[:7].tolist()
    for n in range(2):                                              # of one row and the next there is nothing to be told
        before = found[:-1, n] == found[0, n]
        assert abs(np.mean(found[1:, n][before] == found[0, n]) - np.mean(found[:, n] == found[0, n])) < 0.06


def test_rows_end_where_the_context_ends():
    model = models("gpt2", "float64")["numpy"]
    real = np.array([[False] * 30 + [True] * 30, [True] * 60])
    found = generate(model, np.ones((2, 60), np.int64), config=GenerationConfig(max_new_tokens=50), real=real)
    assert found.lengths.tolist() == [35, 5] and found.reasons == ("context", "context")          # 64 are read, and one more comes
    alone = generate(model, np.ones((1, 30), np.int64), config=GenerationConfig(max_new_tokens=50))
    assert alone.sequences[0].tolist() == found.sequences[0].tolist()
