"""Banned words, suppressed and forced tokens give what transformers' processors give."""

import numpy as np
import torch
from transformers.generation import logits_process as oracle

from numpy_impl.decode.constraints import ban_words, force_token, suppress
from torch_impl.decode import constraints as twin


def test_banned_words_as_transformers():
    """One difference: transformers lets a word stand that is an end token by itself; there is none here."""
    long = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, v = int(rng.integers(1, 4)), int(rng.choice([3, 50]))
        logits, history = rng.standard_normal((n, v)), rng.integers(0, 3, (n, int(rng.integers(1, 6))))
        words = tuple(tuple(rng.integers(0, 3, int(rng.integers(1, 4))).tolist()) for _ in range(int(rng.integers(1, 6))))
        want = oracle.NoBadWordsLogitsProcessor([list(word) for word in words])(torch.tensor(history), torch.tensor(logits)).numpy()
        np.testing.assert_array_equal(ban_words(logits, history=history, words=words), want)
        got = twin.ban_words(torch.tensor(logits), history=torch.tensor(history), words=words)
        np.testing.assert_array_equal(got.numpy(), want)
        long += bool(np.isneginf(want).any()) and all(len(word) > 1 for word in words)
    assert long > 5


def test_a_banned_word_goes_on_behind_padding():
    history = np.array([[1, 0, 2, 0]])
    words = ((1, 2, 3), (0, 1), (2, 2))
    got = ban_words(np.zeros((1, 4)), history=history, words=words, real=history != 0)
    assert got.tolist() == [[0.0, 0.0, -np.inf, -np.inf]]


def test_suppressed_and_forced_as_transformers():
    logits, history = np.random.default_rng(0).standard_normal((3, 9)), torch.ones(3, 1, dtype=torch.int64)
    want = oracle.SuppressTokensLogitsProcessor([2, 7, 2])(history, torch.tensor(logits)).numpy()
    np.testing.assert_array_equal(suppress(logits, tokens=(2, 7, 2)), want)
    np.testing.assert_array_equal(twin.suppress(torch.tensor(logits), tokens=(2, 7, 2)).numpy(), want)
    for processor in (oracle.ForcedBOSTokenLogitsProcessor(4), oracle.ForcedEOSTokenLogitsProcessor(2, 4)):
        want = processor(history, torch.tensor(logits)).numpy()
        np.testing.assert_array_equal(force_token(logits, token=4), want)
        np.testing.assert_array_equal(twin.force_token(torch.tensor(logits), token=4).numpy(), want)


def test_an_id_may_be_any_integer():
    logits, history = np.zeros((1, 400)), np.array([[1, 2]])
    for token in (np.uint8(200), np.int16(200), np.uint64(200), np.array(200), torch.tensor(200), torch.tensor(200, dtype=torch.uint8)):
        words, tokens = ((token, 3), (2, token)), (token, 1)
        for side, array, before in ((None, logits, history), (twin, torch.tensor(logits), torch.tensor(history))):
            ban, force, exclude = (ban_words, force_token, suppress) if side is None else (twin.ban_words, twin.force_token, twin.suppress)
            assert np.flatnonzero(np.isneginf(np.asarray(ban(array, history=before, words=words)))).tolist() == [200]
            assert np.flatnonzero(np.isfinite(np.asarray(force(array, token=token)))).tolist() == [200]
            assert np.flatnonzero(np.isneginf(np.asarray(exclude(array, tokens=tokens)))).tolist() == [1, 200]
