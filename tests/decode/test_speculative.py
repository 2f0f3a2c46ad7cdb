"""Speculative decoding draws from the target and from nothing else, by enumeration and by counts; and real models write what they would."""

import inspect
import itertools
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
import torch

from byhand.configs.generation import GenerationConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.t5 import T5Config
from byhand.noise import Noise
from numpy_impl.decode import accept as judge
from numpy_impl.decode import speculative as loop
from numpy_impl.decode.generate import generate
from numpy_impl.decode.speculative import speculative
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama
from numpy_impl.models.t5 import T5
from torch_impl.decode.speculative import speculative as torch_speculative
from torch_impl.models.gpt2 import GPT2 as TorchGPT2
from torch_impl.models.llama import Llama as TorchLlama

WRONG = {                                                               # ways to get it wrong that look right
    "min(1, q/p)": ("u * q < p", "u * p < q"),
    "always kept": ("u * q < p", "u < 2"),
    "the target itself behind a rejected token": ("np.maximum(wanted - said, 0)", "wanted"),
    "nothing cut off below 0": ("np.maximum(wanted - said, 0)", "np.abs(wanted - said)"),
    "the last place again behind all": ("target[np.arange(b), count]", "target[np.arange(b), np.minimum(count, g - 1)]"),
}


def mutated(name):
    """`accept` with one expression replaced."""
    old, new = WRONG[name]
    source = textwrap.dedent(inspect.getsource(judge.accept))
    assert source.count(old) == 1
    scope = dict(vars(judge))
    exec(source.replace(old, new), scope)
    return scope["accept"], scope


def outcome(function, scope, p, q, levels, monkeypatch):
    """The exact distribution of the next token: every token that the draft may say, at every one of `levels` equally likely u."""
    v, caught = len(p), []
    monkeypatch.setitem(scope, "random_bits", lambda noise, shape, part: (np.arange(v * levels) % levels * (1 << 32) // levels)[:, None])
    monkeypatch.setitem(scope, "sample", lambda logits, noise: caught.append(np.exp(logits)) or np.zeros(len(logits), np.int64))
    said = np.repeat(np.arange(v), levels)[:, None]
    target = np.tile(np.stack([p, np.full(v, 1 / v)]), (v * levels, 1, 1))
    count = function(np.tile(q, (v * levels, 1, 1)), target, said, noise=Noise(0)).count
    rest = np.where(count[:, None] == 1, np.eye(v)[said[:, 0]], caught[0] / caught[0].sum(-1, keepdims=True))
    return (q[said] / levels * rest).sum(0)


def test_every_token_has_the_probability_of_the_target(monkeypatch):
    """With q in powers of 2 and p in 64ths, p / q is a multiple of 1/64: 64 levels of u count it exactly."""
    cases = [
        (np.array([8, 24, 0, 16, 16]) / 64, np.array([32, 16, 8, 8, 0]) / 64),
        (np.array([64, 0, 0]) / 64, np.array([32, 16, 16]) / 64),
        (np.array([1, 31, 32]) / 64, np.array([32, 32, 0]) / 64),
        (np.array([3, 5, 56]) / 64, np.array([0, 64, 0]) / 64),
    ]
    wrong = dict.fromkeys(WRONG, 0.0)
    for p, q in cases:
        scope = dict(vars(judge))
        exec(inspect.getsource(judge.accept), scope)
        np.testing.assert_allclose(outcome(scope["accept"], scope, p, q, 64, monkeypatch), p, rtol=0, atol=1e-12)
        for name in WRONG:
            function, scope = mutated(name)
            wrong[name] = max(wrong[name], np.abs(outcome(function, scope, p, q, 64, monkeypatch) - p).max())
    del wrong["the last place again behind all"]                        # of one token this says nothing
    assert min(wrong.values()) > 0.05, wrong


class Bigram:
    """logits = table[the last token]; the smallest model with a distribution of texts, and as many rows as one likes."""

    class Config(NamedTuple):
        vocabulary: int

    class Cache:
        lengths: np.ndarray = np.zeros(0, np.int64)

        def crop(self, lengths):
            """Nothing but counts is remembered."""
            self.lengths = lengths

    def __init__(self, table):
        self.table, self.config = table, self.Config(table.shape[1])

    def new_cache(self):
        """No row has read anything."""
        return self.Cache()

    def extend(self, ids, cache, *, real=None, last=True):
        """ids (B, T) -> logits (B, V) or (B, T, V)."""
        held = cache.lengths if len(cache.lengths) else np.zeros(len(ids), np.int64)
        cache.lengths = held + (ids.shape[1] if real is None else real.sum(1))
        return self.table[ids[:, -1] if last else ids]


V, ROWS = 3, 20000
RULES = GenerationConfig(max_new_tokens=4, temperature=0.8, top_k=2)


def drawn(function, seed, monkeypatch, **options):
    """Pearson's χ² of the joint counts of four tokens against their probabilities, ∞ where one cannot be, and its degrees of freedom."""
    model, draft = (Bigram(np.random.default_rng(key).standard_normal((V, V))) for key in (1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "accept", function)
        found = speculative(model, draft if options.pop("drafts", True) else None, np.tile([[0, 1, 0, 2, 0]], (ROWS, 1)), config=RULES,
                            noise=Noise(seed), **options)
    scores = np.where(model.table >= np.sort(model.table, -1)[:, 1:2], model.table / 0.8, -np.inf)          # the rules by hand
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    texts = np.array(list(itertools.product(range(V), repeat=4)))
    expected = ROWS * p[0, texts[:, 0]] * p[texts[:, :-1], texts[:, 1:]].prod(1)
    counts = np.bincount(found.sequences @ V ** np.arange(4)[::-1], minlength=V**4)
    assert found.sequences.shape == (ROWS, 4)
    possible = expected > 0
    chi2 = ((counts - expected)[possible] ** 2 / expected[possible]).sum() if not counts[~possible].any() else np.inf
    return chi2, possible.sum() - 1, found


def test_texts_have_the_probability_of_the_target(monkeypatch):
    """Joint counts of four tokens, under a temperature and top-k, with a draft model and with the text itself as a draft."""
    for seed, options in enumerate([dict(lookahead=1), dict(lookahead=2), dict(lookahead=3), dict(drafts=False)]):
        chi2, freedom, found = drawn(judge.accept, seed, monkeypatch, **options)
        assert chi2 < freedom + 3.5 * np.sqrt(2 * freedom), (options, chi2, freedom)
        assert 0.05 < found.accepted.sum() / found.drafted.sum() < 0.95


@pytest.mark.parametrize("name", WRONG)
def test_counts_tell_wrong_ones(name, monkeypatch):
    """The bound of the test above is one that a wrong judge exceeds by far."""
    function, _ = mutated(name)
    chi2, freedom, _ = drawn(function, 0, monkeypatch, lookahead=2)
    assert chi2 > freedom + 10 * np.sqrt(2 * freedom), (chi2, freedom)


def twins(kind, seed, **options):
    """A random model of ours and the same in torch, in float64."""
    ours, theirs, config = {
        "llama": (Llama, TorchLlama, LlamaConfig(11, 20, 12, 2, 3, n_kv_heads=1, d_hidden=20, **options)),
        "gpt2": (GPT2, TorchGPT2, GPT2Config(11, 17, 8, 1, 2)),
        "t5": (T5, None, T5Config(11, 12, 3, encoder_layers=1, decoder_layers=2, d_hidden=20, head_width=4)),
    }[kind]
    model, rng = ours(config, dtype=np.float64), np.random.default_rng(seed)
    for name, array in model.state_dict().items():
        array[...] = 1 if "norm" in name else 0.6 * rng.standard_normal(array.shape)
    if theirs is None:
        return model, None
    twin = theirs(config, dtype=torch.float64)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    return model, twin


MODELS = {"llama": ("llama", {}), "window": ("llama", dict(window=3)), "gpt2": ("gpt2", {})}
PROMPTS = np.array([[1, 2, 1, 2, 1], [5, 3, 0, 7, 7], [9, 0, 2, 0, 0]])
REAL = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 1, 0, 0]], bool)


@pytest.mark.parametrize("drafter", ["the model", "a good one", "a useless one", "the text"])
@pytest.mark.parametrize("kind", MODELS)
def test_real_models_write_what_they_would(kind, drafter):
    """Greedy: `generate`'s texts, to the end of the context, whatever the draft; sampled: the same texts on both sides."""
    name, options = MODELS[kind]
    (model, twin), (small, small_twin) = twins(name, 1, **options), twins("gpt2", 2)
    if drafter == "the model":
        small, small_twin = model, twin
    elif drafter == "a good one":                                       # the model with a little noise, so that some is kept
        small, small_twin = twins(name, 1, **options)
        for key, array in small.state_dict().items():
            array += 0.1 * np.random.default_rng(len(key)).standard_normal(array.shape)
        small_twin.load_state_dict({key: torch.from_numpy(array) for key, array in small.state_dict().items()})
    elif drafter == "the text":
        small = small_twin = None
    accepted = 0
    for rules, store in (({}, "auto"), (dict(eos=(3, 4), repetition_penalty=1.2), "paged"), (dict(temperature=1.0, top_p=0.9), "auto")):
        config = GenerationConfig(max_new_tokens=16, **rules)
        given = dict(config=config, lookahead=5, noise=Noise(7))
        got = speculative(model, small, PROMPTS, real=REAL, cache=model.new_cache(store), **given)
        if not config.temperature:
            want = generate(model, PROMPTS, config=config, real=REAL)
            np.testing.assert_array_equal(got.sequences, want.sequences)
            assert got.reasons == want.reasons
        if drafter == "the model" and not config.eos:
            np.testing.assert_array_equal(got.accepted, got.drafted)
        theirs = torch_speculative(twin, small_twin, torch.from_numpy(PROMPTS), real=torch.from_numpy(REAL),
                                   cache=twin.new_cache(store), **given)
        for mine, other in zip(got, theirs, strict=True):
            assert mine == other if isinstance(mine, tuple) else (mine == other.numpy()).all()
        accepted += got.accepted.sum()
    assert accepted > 10 or drafter == "a useless one"


def test_a_t5_writes_one_row():
    """An encoder–decoder's rows are of one length, so there can be one."""
    model, _ = twins("t5", 3)
    draft, _ = twins("t5", 4)
    source, start, config = np.array([[1, 2, 3, 4]]), np.array([[0]]), GenerationConfig(max_new_tokens=12)
    want = generate(model, start, config=config, cache=model.new_cache(source)).sequences
    for small in (model, draft):
        got = speculative(model, small, start, config=config, cache=model.new_cache(source), draft_cache=small.new_cache(source))
        np.testing.assert_array_equal(got.sequences, want)


def test_a_text_that_repeats_itself_is_its_own_draft():
    """Behind 1 2 3 4 1 2 3 4 …, what a model that always says the next of the four will say is known."""
    table = np.full((5, 5), -9.0)
    table[[1, 2, 3, 4], [2, 3, 4, 1]] = 9
    found = speculative(Bigram(table), None, np.array([[0, 1, 2, 3, 4, 1]]), config=GenerationConfig(max_new_tokens=13), lookahead=4)
    np.testing.assert_array_equal(found.sequences, [[2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2]])
    assert (found.rounds, found.drafted, found.accepted) == (3, 9, 9)
