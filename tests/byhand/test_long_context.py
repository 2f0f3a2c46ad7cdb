"""The long-context experiment: that every token is weighted once, that both implementations tell the same, and that it can go on."""

import dataclasses
import json
import math

import numpy as np
import pytest

from byhand.experiments import long_context
from byhand.experiments.long_context import SCHEMES, LongContext, run, scaled_rope
from byhand.experiments.long_context_report import cost_table, set_for_its_length, table, write

TINY = dict(length=16, factors=(2, 4), d_model=16, n_layers=1, n_heads=2, d_hidden=16, steps=3, batch=4, adapt_steps=2, segments=2,
            read_tokens=64, warmup=1)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_bytes(bytes(np.random.default_rng(0).integers(97, 101, 8000, dtype=np.uint8)))
    return str(path)


class Steps:
    """A watcher that counts."""

    def start(self, total):
        self.total, self.done = total, 0

    def advance(self, what, by=1):
        self.done += by


@pytest.fixture(scope="module")
def rows(text):
    watcher = Steps()
    rows = run(LongContext(backend="torch", text=text, **TINY), progress=watcher)
    assert watcher.done == watcher.total
    return rows


def test_both_implementations_tell_the_same(text, rows):
    by_hand = run(LongContext(backend="numpy", text=text, **TINY))
    assert [row[:5] for row in by_hand] == [row[:5] for row in rows]
    np.testing.assert_allclose([row.loss for row in by_hand], [row.loss for row in rows], rtol=1e-5)
    np.testing.assert_allclose([row.last_loss for row in by_hand], [row.last_loss for row in rows], rtol=1e-5)


def test_every_scheme_reaches_every_length(rows):
    assert {row.tokens for row in rows} == {2 * 64}
    assert rows[0][:4] == ("none", 1, 0, 16) and rows[0].against_trained == 1
    for scheme in SCHEMES:
        assert [row.length for row in set_for_its_length(rows, scheme, 0)][-2:] == [32, 64]
        assert [row.length for row in set_for_its_length(rows, scheme, 2)][-2:] == [32, 64]
    assert len({row[:4] for row in rows}) == len(rows)
    unscaled = {row.loss for row in rows if not row.adapted and row.length == 64}
    assert len(unscaled) == len(SCHEMES)                      # they all turn otherwise


class Told:
    """A backend whose loss at a token is told by its place: what is averaged can be checked by hand."""

    def __init__(self, options):
        self.trained = []

    def initial(self):
        return {}

    def train(self, weights, config, batches, steps, lr, done):
        for step in range(steps):
            ((ids, targets),) = batches(step)
            assert (ids[:, 1:] == targets[:, :-1]).all()
            self.trained.append(ids.shape)
            done()
        return weights

    def reader(self, weights, config):
        return lambda ids, targets: np.broadcast_to(np.arange(ids.shape[1], dtype=float), ids.shape) + (targets == 97)


def test_every_position_counts_once(text, monkeypatch):
    backend = Told(None)
    monkeypatch.setattr(long_context, "backend_for", lambda options: backend)
    rows = run(LongContext(text=text, **TINY | dict(schemes=("none",), segments=4)))
    often = rows[0].loss - np.arange(16).mean()               # the same tokens at every length, each once
    assert 0 < often < 1
    for row in rows:
        assert row.tokens == 4 * 64
        assert row.loss == pytest.approx(np.arange(row.length).mean() + often, rel=1e-12)
        assert row.last_loss == pytest.approx(np.arange(row.length * 3 // 4, row.length).mean() + often, abs=0.2)
        assert row.perplexity == math.exp(row.loss)
        assert np.mean(row.by_position) == pytest.approx(row.loss)
        assert np.mean(row.by_segment) == pytest.approx(row.loss)
        assert len(row.by_position) == min(row.length, 32) and len(row.by_segment) == 4
        assert row.error < 1e-12                              # what differs between segments is common to all
        assert math.log(row.against_trained) == pytest.approx((row.length - 16) / 2)
    assert {math.prod(shape) for shape in backend.trained} == {64}
    assert {shape[1] for shape in backend.trained} == {16, 32, 64}


def test_goes_on_where_it_was_interrupted(text, rows, tmp_path):
    options = LongContext(text=text, **TINY | dict(schemes=("none", "yarn")))
    first = run(options, out=tmp_path)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert len(lines) == len(first)
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:5] + [lines[5][:40]]))    # killed while it wrote
    watcher = Steps()
    assert run(options, out=tmp_path, progress=watcher) == first
    assert watcher.done == watcher.total
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(first)
    everything = run(dataclasses.replace(options, schemes=SCHEMES), out=tmp_path)   # what is there is not computed again
    np.testing.assert_allclose([row.loss for row in everything], [row.loss for row in rows], rtol=1e-6)
    with pytest.raises(ValueError, match=r"with the options that it was begun with; got differing \['lr'\]"):
        run(dataclasses.replace(options, lr=1.0), out=tmp_path)


def test_what_is_written(rows, tmp_path):
    pytest.importorskip("matplotlib")
    names = {path.name for path in write(rows, tmp_path)}
    assert names == {"table.md", "rows.csv", "rows.json", "long_context.png"}
    kept = json.loads((tmp_path / "rows.json").read_text())
    assert [tuple(row.values()) for row in kept] == [tuple(row._replace(by_segment=list(row.by_segment), by_position=list(row.by_position)))
                                                     for row in rows]
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == len(rows) + 1
    lines = table(rows).splitlines()
    assert lines[0] == "| rope scaling | adapted | 16 tokens | 32 tokens | 64 tokens |"
    assert lines[2].startswith(f"| none | no | {rows[0].perplexity:.3f} (+0.0%) | ") and len(lines) == 2 + 2 * len(SCHEMES)
    assert {line.count("|") for line in lines} == {6}
    assert "| yarn | 2 steps |" in table(rows, last_quarter=True)
    assert {line.count("|") for line in cost_table(rows).splitlines()} == {5}


def test_schemes_are_set_for_what_they_reach():
    options = dict(length=512, width=64)
    assert scaled_rope("yarn", 1, **options) == scaled_rope("none", 8, **options)
    assert [scaled_rope(scheme, 8, **options).type for scheme in SCHEMES] == [
        "default", "linear", "ntk", "dynamic", "yarn", "llama3", "longrope"]
    factors = scaled_rope("longrope", 8, **options).long_factor
    assert factors[0] == 1 and factors[-1] == 8 and list(factors) == sorted(factors) and 4 < len(set(factors)) < 32


@pytest.mark.parametrize(("change", "message"), [
    (dict(schemes=("yarm",)), r"scheme from .* \(did you mean 'yarn'\?\)"),
    (dict(factors=()), "factors as a list"),
    (dict(factors=(4, 2)), "factors that rise"),
    (dict(factors=(2, 3)), "factors that divide the largest"),
    (dict(factors=(1, 2)), "factor as an integer >= 2"),
    (dict(batch=6), "a batch that 4 divides"),
    (dict(length=18), "a length of whole quarters"),
    (dict(backend="numpy", device="cuda"), "device 'cpu' for the numpy backend"),
    (dict(n_heads=3), "d_model to be a multiple of n_heads"),
    (dict(adapt_lr=0.0), "adapt_lr > 0"),
])
def test_bad_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LongContext(**TINY | change)


def test_a_short_text_is_refused(text):
    with pytest.raises(ValueError, match="long_context needs more than 640 bytes of text kept apart"):
        run(LongContext(text=text, **TINY | dict(segments=10)))
