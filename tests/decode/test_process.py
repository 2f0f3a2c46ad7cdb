"""All rules together give what the list of processors gives that transformers builds for the same settings, in its order."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from byhand.configs.generation import GenerationConfig
from numpy_impl.decode.process import process
from torch_impl.decode import process as twin

V = 40
TINY = transformers.GPT2Config(vocab_size=V, n_embd=4, n_layer=1, n_head=1, n_positions=64, bos_token_id=0, eos_token_id=None)


@pytest.fixture(scope="module")
def model():
    transformers.logging.set_verbosity_error()
    return transformers.GPT2LMHeadModel(TINY)


def drawn(rng, prompt_length):
    """Settings under transformers' names, each there in half of the draws."""
    new = int(rng.integers(2, 8))
    options = dict(
        temperature=float(rng.uniform(0.3, 2)), top_k=int(rng.integers(0, 20)), top_p=float(rng.uniform(0.3, 1)),
        min_p=float(rng.uniform(0, 0.2)), typical_p=float(rng.uniform(0.3, 1)), epsilon_cutoff=float(rng.uniform(0, 0.05)),
        eta_cutoff=float(rng.uniform(0, 0.05)), repetition_penalty=float(rng.uniform(0.7, 2)), no_repeat_ngram_size=int(rng.integers(0, 4)),
        bad_words_ids=[[0], [1, 2], [2, 0, 1], [7]], suppress_tokens=[3, 4], min_new_tokens=int(rng.integers(0, new)),
        forced_bos_token_id=5, forced_eos_token_id=6, do_sample=True, num_beams=3,
    )
    chosen = {name: value for name, value in options.items() if rng.random() < 0.5}
    if prompt_length > 1:
        chosen.pop("forced_bos_token_id", None)      # transformers heeds it only where the prompt is one token
    eos = [None, 7, [7, 8, 9]][rng.integers(3)]
    return chosen | dict(eos_token_id=eos, max_new_tokens=new, max_length=prompt_length + new)


def their_scores(model, settings, history, scores, prompt_length, real):
    config = transformers.GenerationConfig(**settings)
    config, _ = model._prepare_generation_config(config)
    config.max_length = settings["max_length"]
    model._prepare_special_tokens(config, device="cpu")
    mask = torch.tensor(real[:, :prompt_length]).long()
    processors = model._get_logits_processor(
        config, input_ids_seq_length=prompt_length, device="cpu", model_kwargs={"attention_mask": mask})
    return processors(torch.tensor(history), torch.tensor(scores)).numpy(), [type(p).__name__ for p in processors]


def test_as_the_processors_of_transformers(model):
    seen = set()
    for seed in range(250):
        rng = np.random.default_rng(seed)
        n, prompt_length = int(rng.integers(1, 4)), int(rng.choice([1, 1, 3, 6]))
        settings = drawn(rng, prompt_length)
        generated = int(rng.integers(0, settings["max_new_tokens"]))
        history = rng.integers(0, 6, (n, prompt_length + generated))
        scores = 2 * rng.standard_normal((n, V))
        real = np.ones(history.shape, dtype=bool)
        looks_at_padding = settings.get("no_repeat_ngram_size") or settings.get("bad_words_ids")
        if not looks_at_padding and prompt_length > 1:     # where transformers takes padding for tokens, ours does not
            real[0, :2] = False
        want, names = their_scores(model, settings, history, scores, prompt_length, real)
        config = GenerationConfig.from_hugging_face(settings)
        got = process(scores, history=history, generated=generated, config=config, real=real)
        np.testing.assert_allclose(got, want, rtol=1e-12, err_msg=f"seed {seed}: {settings}")
        arguments: dict[str, Any] = dict(history=torch.tensor(history), generated=generated, config=config, real=torch.tensor(real))
        same = twin.process(torch.tensor(scores), **arguments)
        np.testing.assert_allclose(same.numpy(), want, rtol=1e-12, err_msg=f"seed {seed}: {settings}")
        seen |= set(names)
    assert len(seen) == 14, seen      # every one of them took part


def test_frequency_and_presence_count_what_was_generated():
    scores, history = np.zeros((1, 4)), np.array([[0, 0, 1, 1, 2]])
    config = GenerationConfig(frequency_penalty=1.0, presence_penalty=10.0, repetition_penalty=2.0)
    assert process(scores - 1, history=history, generated=3, config=config).tolist() == [[-2.0, -14.0, -13.0, -1.0]]
    assert process(scores - 1, history=history, generated=0, config=config).tolist() == [[-2.0, -2.0, -2.0, -1.0]]


def test_nothing_is_truncated_at_temperature_zero():
    scores = np.random.default_rng(0).standard_normal((2, 9))
    config = GenerationConfig(top_k=1, top_p=0.1, min_p=0.9, typical=0.1, epsilon=0.5, eta=0.5)
    assert (process(scores, history=np.zeros((2, 1), np.int64), generated=0, config=config) == scores).all()


@pytest.mark.parametrize("options", [
    dict(suppressed=(0, 1, 2)), dict(banned=((0,), (1,), (2,))), dict(no_repeat_ngram=1), dict(forced_first=0, suppressed=(0,)),
    dict(eos=(0, 1, 2), min_new_tokens=1),
])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_without_a_token_left_is_refused(options, temperature):
    config = GenerationConfig(temperature=temperature, **options)
    history = np.array([[0, 1, 2]])
    message = "process needs rules that leave a token in every row; got nothing but -inf in row 0"
    with pytest.raises(ValueError, match=message):
        process(np.zeros((1, 3)), history=history, generated=0, config=config)
    with pytest.raises(ValueError, match=message):
        twin.process(torch.zeros(1, 3), history=torch.tensor(history), generated=0, config=config)


def test_a_forced_token_does_not_hide_a_nan():
    config = dataclasses.replace(GenerationConfig(), forced_first=0)
    with pytest.raises(ValueError, match="process needs logits without NaN"):
        process(np.array([[0.0, np.nan]]), history=np.zeros((1, 0), np.int64), generated=0, config=config)
