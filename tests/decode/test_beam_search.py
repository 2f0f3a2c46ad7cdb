"""Beam search is that of transformers, sequence for sequence, and in groups that of a plain search written down a second time."""

import dataclasses
import functools
import tempfile
from collections import Counter

import numpy as np
import pytest
import torch

from byhand.configs.generation import GenerationConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.configs.t5 import T5Config
from byhand.configs.transformer import TransformerConfig
from byhand.hugging_face.directory import save_hugging_face
from numpy_impl.decode.beam_search import beam_search
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama
from numpy_impl.models.mixtral import Mixtral
from numpy_impl.models.t5 import T5
from numpy_impl.models.transformer import Transformer
from parity.cases.decode._automaton import Automaton
from parity.sides import Side
from torch_impl.decode.beam_search import beam_search as torch_beam_search
from torch_impl.models.gpt2 import GPT2 as TorchGPT2
from torch_impl.models.llama import Llama as TorchLlama
from torch_impl.models.mixtral import Mixtral as TorchMixtral
from torch_impl.models.t5 import T5 as TorchT5

transformers = pytest.importorskip("transformers")

V, PAD = 11, 0
LLAMA = LlamaConfig(vocabulary=V, max_length=64, d_model=12, n_layers=2, n_heads=3, n_kv_heads=1, d_hidden=20)
FAMILIES = {
    "gpt2": (GPT2, TorchGPT2, GPT2Config(vocabulary=V, max_length=64, d_model=12, n_layers=2, n_heads=3, d_hidden=20, dropout=0.0)),
    "llama": (Llama, TorchLlama, LLAMA),
    "mistral": (Llama, TorchLlama, dataclasses.replace(LLAMA, window=3)),
    "mixtral": (Mixtral, TorchMixtral, MixtralConfig(vocabulary=V, max_length=64, d_model=12, n_layers=1, n_heads=3, n_kv_heads=1,
                                                     d_expert=10, n_experts=3, k=2)),
    "t5": (T5, TorchT5, T5Config(vocabulary=V, d_model=12, n_heads=3, encoder_layers=2, decoder_layers=2, d_hidden=20, head_width=4,
                                 buckets=8, max_distance=6, dropout=0.0)),
}


@functools.cache
def models(family):
    """Ours on both sides and theirs, with the same random numbers; in float64."""
    ours, twin, config = FAMILIES[family]
    model = ours(config, dtype=np.float64)
    for name, array in model.state_dict().items():
        array[...] = (0.6 if "tokens" in name or "head" in name else 0.3) * np.random.default_rng(len(name)).standard_normal(array.shape)
    other = twin(config, dtype=torch.float64)
    other.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    with tempfile.TemporaryDirectory() as path:
        save_hugging_face(path, config, model.state_dict())
        auto = transformers.AutoModelForSeq2SeqLM if family == "t5" else transformers.AutoModelForCausalLM
        theirs = auto.from_pretrained(path, dtype=torch.float64, **({"experts_implementation": "eager"} if family == "mixtral" else {}))
    return model, other, theirs.eval()


def drawn(index):
    """A family, prompts with what of them is no padding, and a config; every option in turn."""
    rng = np.random.default_rng(index)
    family = list(FAMILIES)[index % len(FAMILIES)]
    b, t, most, beams = (int(rng.integers(low, high)) for low, high in ((1, 4), (1, 6), (2, 10), (2, 6)))
    ids = rng.integers(1, V, (b, t))
    real = np.ones((b, t), bool)
    if rng.random() < 0.5:
        real = np.arange(t) >= rng.integers(0, t, (b, 1))                               # padding on the left, as transformers needs it
        ids[~real] = PAD
    # What a penalty and the n-grams see of padding is not the same: no text may hold the pad, or it would matter.
    suppressed = {PAD} if family == "t5" or not real.all() else {int(rng.integers(V))} if rng.random() < 0.3 else set()
    allowed = [token for token in range(1, V) if token not in suppressed]
    config = GenerationConfig(
        max_new_tokens=most, beams=beams, n_best=int(rng.integers(1, beams + 1)), pad=PAD, suppressed=tuple(suppressed),
        eos=tuple(int(token) for token in rng.choice(allowed, rng.choice((0, 1, 1, 2, 3)), replace=False)),
        length_penalty=float(rng.choice((-1.0, 0.0, 0.5, 1.0, 1.0, 2.0))), early_stopping=(False, True, "never")[rng.integers(3)],
        min_new_tokens=int(rng.choice((0, 0, 0, rng.integers(most + 1)))), no_repeat_ngram=int(rng.choice((0, 0, 0, 2, 3))),
        repetition_penalty=float(rng.choice((1.0, 1.0, 0.8, 1.4))), forced_last=None if rng.random() < 0.9 else int(rng.choice(allowed)),
    )
    return family, ids, real, config


def theirs_finds(model, ids, real, config):
    """The texts and scores of transformers, which computes them in float32."""
    model.generation_config = transformers.GenerationConfig(
        pad_token_id=PAD, decoder_start_token_id=PAD, eos_token_id=list(config.eos) or None, max_new_tokens=config.max_new_tokens,
        min_new_tokens=config.min_new_tokens, num_beams=config.beams, num_return_sequences=config.n_best, do_sample=False,
        length_penalty=config.length_penalty, early_stopping=config.early_stopping, no_repeat_ngram_size=config.no_repeat_ngram,
        repetition_penalty=config.repetition_penalty, forced_eos_token_id=config.forced_last,
        suppress_tokens=list(config.suppressed) or None, return_dict_in_generate=True, output_scores=True,
    )
    found = model.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(real.astype(np.int64)))
    begin = 1 if model.config.is_encoder_decoder else ids.shape[1]
    texts = [until_end(text, config) for text in found.sequences[:, begin:].tolist()]
    return texts, found.sequences_scores.double().numpy()


def until_end(text, config):
    ends = [n + 1 for n, token in enumerate(text) if token in config.eos]
    return text[: min(ends, default=config.max_new_tokens)]


def ours_finds(search, model, ids, real, config):
    convert = np.asarray if search is beam_search else torch.from_numpy
    ids, real, given = convert(ids), None if real.all() else convert(real), {}
    if isinstance(model, (T5, TorchT5)):
        given["cache"] = model.new_cache(ids, source_mask=real)
        ids, real = PAD * ids[:, :1], None
    found = search(model, ids, config=config, real=real, **given)
    sequences, scores, lengths = (np.asarray(array).reshape(-1, *array.shape[2:]) for array in found)
    assert sequences.dtype == lengths.dtype == np.int64
    assert scores.dtype == np.float64
    assert all((text[n:] == PAD).all() for text, n in zip(sequences, lengths, strict=True))
    assert sequences.shape[-1] == lengths.max(initial=0)
    return [text[:n].tolist() for text, n in zip(sequences, lengths, strict=True)], scores


def compare(indices):
    """Hold the searches of these draws to those of transformers; what was seen on the way."""
    seen = Counter()
    for index in indices:
        family, ids, real, config = drawn(index)
        model, twin, theirs = models(family)
        texts, scores = theirs_finds(theirs, ids, real, config)
        none = scores < -1e8                                    # they fill up with dead beams where there are not so many texts
        for search, ours in ((beam_search, model), (torch_beam_search, twin)):
            got, got_scores = ours_finds(search, ours, ids, real, config)
            assert (got_scores[none] == -np.inf).all(), index
            np.testing.assert_array_less(np.abs(got_scores - scores)[~none], 1e-5 * np.maximum(1, np.abs(scores[~none])), err_msg=index)
            differ = [n for n in np.flatnonzero(~none) if got[n] != texts[n]]
            # equal scores, another order: float32 cannot tell the two apart
            ties = [n for n in differ if any(m != n and abs(got_scores[m] - got_scores[n]) < 1e-5 for m in range(len(got)))]
            assert differ == ties, (index, got, texts)
            seen["ties"] += len(ties)
        seen["searches"] += 1
        seen["texts"] += len(texts)
        seen["no text"] += int(none.sum())
        seen["ended early"] += sum(len(text) < config.max_new_tokens for text in texts)
        seen["rows of several lengths"] += len({len(text) for text in texts}) > 1
    return seen


def plain(log_probabilities, prompt, config):
    """The same search of one prompt once more, text by text: [(score, text), …], best first. No rule but min_new_tokens.

    With groups it is what `num_beam_groups` did in version 4 of transformers but for two things: there, a group that was closed disfavoured
    the pad in those behind it, and with early_stopping=True ends that filled the places in the last step came before better running texts.
    """
    width, penalty = config.beams // config.groups, config.length_penalty
    groups = [{"running": [(0.0, ())], "finished": [], "open": True} for _ in range(config.groups)]
    for n in range(1, config.max_new_tokens + 1):
        said = Counter()
        for group in groups:
            if not group["open"]:
                continue
            candidates = []
            for total, text in group["running"]:
                for token, value in enumerate(log_probabilities(prompt + text)):
                    if token not in config.eos or n > config.min_new_tokens:
                        candidates.append((total + value - config.diversity_penalty * said[token], (*text, token)))
            candidates.sort(key=lambda candidate: -candidate[0])
            candidates = candidates[: max(2, 1 + len(config.eos)) * width]
            ended = [candidate for candidate in candidates[:width] if candidate[1][-1] in config.eos]
            running = [candidate for candidate in candidates if candidate[1][-1] not in config.eos][:width]
            said.update(text[-1] for _, text in running)
            reach = candidates if config.groups > 1 else running
            if n == config.max_new_tokens:
                ended, running, reach = ended + running, [], []
            finished = group["finished"] + [(total / n**penalty, text) for total, text in ended]
            finished = sorted(finished, key=lambda found: -found[0])[:width]
            longest = config.max_new_tokens if config.early_stopping == "never" and penalty > 0 else n
            better = reach and (len(finished) < width or reach[0][0] / longest**penalty > finished[-1][0])
            group |= {"running": running, "finished": finished}
            group["open"] = bool(better) and not (config.early_stopping is True and len(finished) == width)
    return sorted((found for group in groups for found in group["finished"]), key=lambda found: -found[0])[: config.n_best]


def texts_of(found, row):
    return [text[:n] for text, n in zip(found.sequences[row].tolist(), found.lengths[row].tolist(), strict=True)]


@pytest.mark.parametrize("index", range(40))
def test_in_groups_it_is_what_a_plain_search_finds(index):
    rng = np.random.default_rng(index)
    width, groups, vocabulary = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(9, 14))
    most, table = int(rng.integers(1, 9)), rng.standard_normal((97, vocabulary))
    config = GenerationConfig(
        max_new_tokens=most, min_new_tokens=int(rng.choice((0, 0, min(2, most)))), beams=width * groups, groups=groups, pad=0,
        n_best=int(rng.integers(1, width * groups + 1)), eos=tuple(rng.choice(vocabulary, rng.integers(4), replace=False).tolist()),
        length_penalty=float(rng.choice((-1.0, 0.0, 1.0, 2.0))), early_stopping=(False, True, "never")[rng.integers(3)],
        diversity_penalty=float(rng.choice((0.3, 1.0, 5.0))) if groups > 1 else 0.0,
    )
    normal = table - np.log(np.exp(table).sum(-1, keepdims=True))

    def log_probabilities(text):
        state = 0
        for token in text:
            state = (3 * state + token + 1) % 97
        return normal[state]

    prompts = rng.integers(0, vocabulary, (2, 3))
    wanted = [plain(log_probabilities, tuple(prompt), config) for prompt in prompts.tolist()]
    for side, search in ((Side("numpy"), beam_search), (Side("torch"), torch_beam_search)):
        found = search(Automaton(side, side.array(table)), side.array(prompts), config=config)
        for row, want in enumerate(wanted):
            assert texts_of(found, row) == [list(text) for _, text in want]
            np.testing.assert_allclose(found.scores[row], [score for score, _ in want], rtol=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_every_exact_cache_follows_the_beams(family):
    config = GenerationConfig(max_new_tokens=12, beams=4, groups=2, diversity_penalty=0.7, n_best=4, eos=3)
    ids, real = np.random.default_rng(5).integers(0, V, (3, 6)), np.arange(6) >= np.array([[0], [4], [2]])
    for search, model, convert in ((beam_search, models(family)[0], np.asarray), (torch_beam_search, models(family)[1], torch.from_numpy)):
        kinds = ["contiguous", "paged", *(["rolling"] if family == "mistral" else [])]
        found = {kind: search(model, convert(ids), config=config, real=convert(real), cache=model.new_cache(kind)) for kind in kinds}
        for kind in kinds[1:]:
            np.testing.assert_array_equal(found[kind].sequences, found["contiguous"].sequences, err_msg=kind)
            np.testing.assert_allclose(found[kind].scores, found["contiguous"].scores, rtol=1e-12, err_msg=kind)


def test_an_encoder_decoder_with_two_vocabularies_is_searched():
    config = TransformerConfig(vocabulary=5, target_vocabulary=V, tied=False, d_model=12, n_heads=3, encoder_layers=1, decoder_layers=2)
    model = Transformer(config, dtype=np.float64, rng=np.random.default_rng(0))
    source, mask = np.random.default_rng(1).integers(0, 5, (2, 4)), np.array([[True, True, False, False], [True, True, True, True]])
    search = GenerationConfig(max_new_tokens=5, beams=V, n_best=3, eos=(2, 4), length_penalty=0.5)
    start = np.full((2, 1), config.start)
    found = beam_search(model, start, config=search, cache=model.new_cache(source, source_mask=mask))
    for row in range(2):
        def log_probabilities(text, row=row):
            logits = model(source[row : row + 1], np.array([text]), source_mask=mask[row : row + 1])[0, -1]
            return logits - np.log(np.exp(logits).sum())

        want = plain(log_probabilities, (config.start,), search)
        assert texts_of(found, row) == [list(text) for _, text in want]
        np.testing.assert_allclose(found.scores[row], [score for score, _ in want], rtol=1e-10)


def test_it_is_the_search_of_transformers():
    seen = compare(range(60))
    assert seen["ties"] <= 1
    assert seen["ended early"] > 60
    assert seen["rows of several lengths"] > 15


@pytest.mark.slow
def test_it_is_the_search_of_transformers_in_all_settings():
    seen = compare(range(60, 600))
    assert seen["ties"] <= 5
    assert seen["ended early"] > 540
    assert seen["rows of several lengths"] > 135


def test_what_no_model_can_read_is_refused_before_anything_is_read():
    config, ids = GenerationConfig(max_new_tokens=2, beams=2), np.ones((1, 65), np.int64)
    for search, number, convert in ((beam_search, 0, np.asarray), (torch_beam_search, 1, torch.from_numpy)):
        with pytest.raises(ValueError, match="beam_search needs prompts of at most 64 tokens, the model's context; got tokens 65"):
            search(models("gpt2")[number], convert(ids), config=config)
        with pytest.raises(ValueError, match="beam_search needs a cache of an encoder–decoder"):
            search(models("t5")[number], convert(ids), config=config)
