"""Runs with experts: what they tell of their routers, and that these balance, by a loss or by corrections."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from byhand import cli, training_config
from byhand.commands.balanced import Balanced
from byhand.commands.history import History
from byhand.routing_metrics import LayerRouting, RoutingWatch, average
from byhand.run_directory import RunDirectory, load_weights
from numpy_impl.models.mixtral import Mixtral

SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--every", "1"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("def add(a, b):\n    return a + b\n" * 60)
    return path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def routing(out, backend="numpy"):
    """A list a step, of a LayerRouting a layer."""
    records = [record for record in RunDirectory.metrics(out) if record["backend"] == backend]
    return [[LayerRouting.read(layer) for layer in record["routing"]] for record in records]


def test_a_run_tells_what_its_routers_did(tmp_path, text, capsys):
    out = tmp_path / "run"
    options = ["--backend", "both", "--dtype", "float64", "--capacity-factor", 1, "--experts", 4, "--accumulate", 2, "--text", text]
    assert run("train", "--preset", "mixtral-nano", *options, "--out", out, "--steps", 4, *SMALL) == 0
    printed = capsys.readouterr().out
    assert "parameters (116,032" not in printed and "of them a token)" in printed and "lie on each other" in printed
    one, other = routing(out), routing(out, "torch")
    assert [[layer.layer for layer in step] for step in one] == [["blocks.0.mlp", "blocks.1.mlp"]] * 4
    for ours, theirs in zip(itertools.chain(*one), itertools.chain(*other), strict=True):
        np.testing.assert_array_equal(ours.utilisation, theirs.utilisation)
        assert ours[2:] == pytest.approx(theirs[2:], rel=1e-9)
        assert ours.dropped > 0 and ours.largest == pytest.approx(4 * ours.utilisation.max(), abs=1e-5)
    rows = re.findall(r"^ +\d+ +[\d.]+ +[\d.]+ +[-+\d.e]+ +([\d.]+)$", printed, re.MULTILINE)
    assert rows == [f"{max(layer.largest for layer in step):.2f}" for step in one]
    mean = average(one)
    assert f"in {max(mean, key=lambda layer: layer.largest).layer}, had {max(layer.largest for layer in mean):.2f} times" in printed
    assert f"{max(layer.dropped for layer in mean):.1%} were dropped" in printed


def test_a_run_without_experts_says_nothing_of_them(tmp_path, text, capsys):
    assert run("train", "--preset", "llama-nano", "--text", text, "--out", tmp_path / "run", "--steps", 1, *SMALL) == 0
    assert not re.search("busiest|a token", capsys.readouterr().out)
    assert all("routing" not in record for record in RunDirectory.metrics(tmp_path / "run"))


def test_corrections_move_by_the_counts_of_each_update_alike_on_both_sides(tmp_path, text):
    out = tmp_path / "run"
    options = ["--backend", "both", "--dtype", "float64", "--accumulate", 2, "--balance-rate", 0.25, "--text", text]
    assert run("train", "--preset", "deepseek-nano", *options, "--out", out, "--steps", 5, *SMALL) == 0
    expected = np.zeros(16)
    for (layer,) in routing(out):
        counts = np.rint(layer.utilisation * 2 * 16 * 3)                  # all of them were computed
        assert counts.sum() == 96
        expected += 0.25 * np.sign(6 - counts)
    assert np.abs(expected).max() >= 0.5
    for backend in ("numpy", "torch"):
        np.testing.assert_array_equal(load_weights(out / f"{backend}-last.safetensors")["blocks.1.mlp.router.correction"], expected)
    losses = [record["loss"] for record in RunDirectory.metrics(out)]
    np.testing.assert_allclose(losses[::2], losses[1::2], rtol=1e-9)

    still = tmp_path / "still"
    assert run("train", "--preset", "deepseek-nano", "--balance-rate", 0, "--text", text, "--out", still, "--steps", 2, *SMALL) == 0
    assert not load_weights(still / "numpy-last.safetensors")["blocks.1.mlp.router.correction"].any()


def test_an_optimizer_that_balances_is_the_optimizer_in_all_else():
    class Optimizer:
        lr = 0.5

        def step(self, grads, lr=None):
            self.seen = grads, lr

    model = Mixtral(training_config.PRESETS["deepseek-nano"], rng=np.random.default_rng(0))
    optimizer, watch = Optimizer(), RoutingWatch(model)
    balanced = Balanced(optimizer, watch, 0.5)
    model.loss(np.arange(9)[None], np.arange(9)[None])
    balanced.step({"w": 1}, lr=0.25)
    assert optimizer.seen == ({"w": 1}, 0.25) and balanced.lr == 0.5
    assert set(model.state_dict()["blocks.1.mlp.router.correction"]) <= {-0.5, 0.0, 0.5}
    assert watch.take()                                                      # what it looked at is still there for the metrics


@pytest.mark.slow
def test_the_balance_loss_keeps_the_largest_share_below_twice_the_mean(tmp_path):
    largest = {}
    for balance in (0.0, 0.05):
        out = tmp_path / str(balance)
        options = ["--balance", balance, "--steps", 120, "--batch", 8, "--lr", 5e-3, "--dropout", 0, "--text", "library", "--sample", 0]
        assert run("train", "--preset", "mixtral-nano", *options, "--out", out, "--validation-batches", 1) == 0
        largest[balance] = max(layer.largest for layer in average(routing(out)[-10:]))
    assert largest[0.05] < 2 < 2.5 < largest[0.0]


def test_the_balance_loss_balances_what_leans_without_it(tmp_path, text):
    largest = {}
    for balance in (0.0, 0.3):
        out = tmp_path / str(balance)
        options = ["--balance", balance, "--router-z", 0, "--steps", 40, "--lr", 5e-3, "--warmup", 5, "--dropout", 0, "--text", text]
        assert run("train", "--preset", "mixtral-nano", *options, "--out", out, *SMALL[:-2], "--every", 40) == 0
        largest[balance] = max(layer.largest for layer in average(routing(out)[-10:]))
    assert largest[0.3] < 2 < largest[0.0]


def test_noise_of_a_router_is_drawn_without_dropout_too(tmp_path, text, monkeypatch):
    nano = training_config.PRESETS["mixtral-nano"]
    losses = {}
    for jitter in (0.0, 0.9):
        monkeypatch.setitem(training_config.PRESETS, "mixtral-nano", dataclasses.replace(nano, jitter=jitter))
        out = tmp_path / str(jitter)
        options = ["--dropout", 0, "--backend", "both", "--dtype", "float64", "--text", text]
        assert run("train", "--preset", "mixtral-nano", *options, "--out", out, "--steps", 1, *SMALL) == 0
        losses[jitter] = [record["loss"] for record in RunDirectory.metrics(out)]
    assert losses[0.0][0] != losses[0.9][0] and losses[0.9][0] == pytest.approx(losses[0.9][1], rel=1e-9)


def test_fine_tuning_tells_of_routers_and_remembers_what_it_told(tmp_path, text, capsys):
    out = tmp_path / "run"
    options = ["--base", "llama-nano", "--method", "mixlora", "--experts", 3, "--backend", "both", "--dtype", "float64", "--text", text]
    assert run("finetune", *options, "--out", out, "--steps", 2, *SMALL) == 0
    assert "busiest" in capsys.readouterr().out
    for ours, theirs in zip(itertools.chain(*routing(out)), itertools.chain(*routing(out, "torch")), strict=True):
        assert len(ours.utilisation) == 3 and ours.balance == pytest.approx(theirs.balance, rel=1e-9)
    history = History(["numpy", "torch"])
    for record in RunDirectory.metrics(out):
        history.remember(record)
    assert sum("over the last 2 updates the busiest expert" in line for line in history.summary()) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--preset", "llama-nano", "--balance", 0.1], "a preset with experts, such as mixtral-nano, for options of theirs; got preset"),
        (["--preset", "mixtral-nano", "--top-k", 9], "k no larger than n_experts"),
        (["--preset", "mixtral-nano", "--balance", -1], "balance in"),
        (["--preset", "mixtral-nano", "--capacity-factor", 0], "capacity_factor > 0"),
        (["--preset", "mixtral-nano", "--routing", "expert"], 'Choose from: "token", "sinkhorn"'),
        (["--preset", "deepseek-nano", "--balance-rate", -1], "balance_rate >= 0"),
        (["--preset", "mixtral-nano", "--balance-rate", 0.01], "a preset whose routers have a correction"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, options, complaint, capsys):
    assert run("train", *options, "--out", tmp_path / "run") == 2
    assert complaint in capsys.readouterr().err and not (tmp_path / "run").exists()
