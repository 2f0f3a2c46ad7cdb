"""The repetition penalty and the ban on n-grams give what transformers' processors give; the others what vLLM's definition says."""

import numpy as np
import torch
from transformers.generation import logits_process as oracle

from numpy_impl.decode.no_repeat_ngram import no_repeat_ngram
from numpy_impl.decode.penalties import frequency_penalty, presence_penalty, repetition_penalty
from torch_impl.decode import no_repeat_ngram as twin_ngram
from torch_impl.decode import penalties as twin


def drawn(seed):
    """Logits (N, V), a history (N, L) of few ids, and how many tokens of each row are padding in front."""
    rng = np.random.default_rng(seed)
    n, v, length = int(rng.integers(1, 5)), int(rng.choice([3, 8, 100])), int(rng.integers(1, 12))
    return rng.standard_normal((n, v)), rng.integers(0, min(v, 4), (n, length)), rng.integers(0, length, n), rng


def test_repetition_as_transformers():
    for seed in range(150):
        logits, history, _, rng = drawn(seed)
        penalty = float(rng.uniform(0.5, 3))
        want = oracle.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor(history), torch.tensor(logits)).numpy()
        np.testing.assert_allclose(repetition_penalty(logits, history=history, penalty=penalty), want, rtol=1e-15)
        got = twin.repetition_penalty(torch.tensor(logits), history=torch.tensor(history), penalty=penalty)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-15)


def test_padding_in_front_is_skipped_as_in_transformers():
    """Version 5 skips it for the repetition penalty (before, and in its other processors, padding counts as a token; in ours nowhere)."""
    for seed in range(50):
        logits, history, padding, _ = drawn(seed)
        real = np.arange(history.shape[1]) >= padding[:, None]
        processor = oracle.RepetitionPenaltyLogitsProcessor(1.7, prompt_ignore_length=torch.tensor(padding))
        want = processor(torch.tensor(history), torch.tensor(logits)).numpy()
        np.testing.assert_allclose(repetition_penalty(logits, history=history, penalty=1.7, real=real), want, rtol=1e-15)
        got = twin.repetition_penalty(torch.tensor(logits), history=torch.tensor(history), penalty=1.7, real=torch.tensor(real))
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-15)


def test_ngrams_as_transformers():
    banned = 0
    for seed in range(200):
        logits, history, _, rng = drawn(seed)
        size = int(rng.integers(1, 5))
        want = oracle.NoRepeatNGramLogitsProcessor(size)(torch.tensor(history), torch.tensor(logits)).numpy()
        np.testing.assert_array_equal(no_repeat_ngram(logits, history=history, size=size), want)
        got = twin_ngram.no_repeat_ngram(torch.tensor(logits), history=torch.tensor(history), size=size)
        np.testing.assert_array_equal(got.numpy(), want)
        banned += int(np.isneginf(want).sum())
    assert banned > 200


def test_an_ngram_goes_on_behind_padding():
    """1 2 _ 3 _ 1 2 holds 1 2 3 and ends with 1 2: transformers, for which padding is a token, would ban the padding id instead."""
    history = np.array([[1, 2, 0, 3, 0, 1, 2]])
    got = no_repeat_ngram(np.zeros((1, 4)), history=history, size=3, real=history != 0)
    assert got.tolist() == [[0.0, 0.0, 0.0, -np.inf]]


def test_frequency_and_presence_by_their_definition():
    """vLLM: logits -= frequency_penalty * output_bin_counts, and logits -= presence_penalty * (output_bin_counts > 0)."""
    for seed in range(100):
        logits, history, padding, rng = drawn(seed)
        real = np.arange(history.shape[1]) >= padding[:, None]
        counts = np.array([np.bincount(row[kept], minlength=logits.shape[1]) for row, kept in zip(history, real, strict=True)])
        alpha = float(rng.uniform(-2, 2))
        for ours, theirs, times in (
            (frequency_penalty, twin.frequency_penalty, counts),
            (presence_penalty, twin.presence_penalty, counts > 0),
        ):
            want = logits - alpha * times
            np.testing.assert_allclose(ours(logits, history=history, penalty=alpha, real=real), want, rtol=1e-13)
            got = theirs(torch.tensor(logits), history=torch.tensor(history), penalty=alpha, real=torch.tensor(real))
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-13)


def test_tokens_are_counted_beyond_what_half_precision_counts():
    logits, history = torch.zeros(1, 2, dtype=torch.bfloat16), torch.zeros(1, 1000, dtype=torch.int64)
    got = twin.frequency_penalty(logits, history=history, penalty=1.0)
    assert got.dtype == torch.bfloat16
    assert got.tolist() == [[-1000.0, 0.0]]


def test_the_length_of_a_run_may_be_any_integer():
    logits, history = np.zeros((1, 3)), np.tile([0, 1, 2], (1, 200))
    for size in (np.uint8(3), np.int8(3), np.array(3), torch.tensor(3, dtype=torch.uint8)):
        got = twin_ngram.no_repeat_ngram(torch.tensor(logits), history=torch.tensor(history), size=size)
        assert no_repeat_ngram(logits, history=history, size=size).tolist() == got.tolist() == [[-np.inf, 0.0, 0.0]]
