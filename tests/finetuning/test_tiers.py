"""Validation tiers: what they ask, that they see what is wrong, and each of them on a small model."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from byhand import cli
from byhand.commands.finetune_backends import NumpyTuned
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.base import open_base
from byhand.tiers import resume
from byhand.tiers.plan import PRETRAINED, TIERS, make_plan
from byhand.tiers.run import beyond_noise, carry_out, pretrain
from byhand.tiers.watched import Check, Watched, gradients, train
from byhand.training_config import PRESETS

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGS = sorted((ROOT / "examples" / "configs").glob("*.yaml"))
SMALL = FinetuneConfig(base="llama-nano", text="list-operations", steps=4, batch=2, length=16, sample=0, validation_batches=1)
A, B = "q_proj.adapters.default.lora_A", "q_proj.adapters.default.lora_B"
BEGUN = {A: np.ones((2, 3)), B: np.zeros((4, 2))}
STEPS = [{A: 0.0, B: 0.5}, {A: 0.1, B: 0.4}, {A: 0.2, B: 0.3}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A llama-1m that has read the standard library's source."""
    return str(pretrain(print, root=str(tmp_path_factory.mktemp("runs"))))


def failed(checks):
    return [check.asked for check in checks if check.kept is False]


def with_value(name, step, value):
    return [{**sizes, name: value} if i == step else sizes for i, sizes in enumerate(STEPS)]


@pytest.mark.parametrize("start", ["kaiming", "gaussian", "pissa"])
@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_quick_holds(start, quantize, capsys):
    words = ["quick", "--model", "llama-nano", "--batch", "2", "--length", "16", "--validation-batches", "1"]
    assert cli.main(["validate", *words, "--start", start, "--quantize", quantize]) == cli.OK
    shown = capsys.readouterr().out
    assert "every trained array changes" in shown and "28 of 28" in shown and "NO" not in shown
    assert ("where B starts at zero" in shown) == (start != "pissa")


def test_what_a_gradient_may_not_be():
    assert failed(gradients(STEPS, BEGUN)) == []
    first = "at the first step the gradient of A is zero where B starts at zero, and no other"
    assert failed(gradients(with_value(A, 0, 1e-30), BEGUN)) == [first]
    assert failed(gradients(with_value(B, 0, 0.0), BEGUN)) == [first]
    assert failed(gradients(with_value(A, 1, 0.0), BEGUN)) == ["from the second step on no gradient is zero"]
    for value in (math.nan, math.inf):
        assert failed(gradients(with_value(B, 2, value), BEGUN)) == ["every gradient is finite"]
    moved = {name: array + 1 for name, array in BEGUN.items()}                    # as PiSSA starts: then neither may be zero
    assert failed(gradients(STEPS, moved)) == ["at the first step no gradient is zero"]


def test_of_experts_without_tokens_no_gradient_is_asked():
    def step(*sizes):
        return {f"mlp.experts.{e}.up_proj.lora_{half}": size for e, pair in enumerate(sizes) for half, size in zip("AB", pair, strict=True)}

    asked = "from the second step on no gradient is zero, but of experts without tokens"
    good = [step((0, 1), (0, 0)), step((1, 1), (0, 0)), step((0, 0), (0, 1)), step((1, 1), (1, 1))]
    found = gradients(good, {}, "mixlora")
    assert failed(found) == [] and found[-1].asked == asked and found[-1].saw == "7 of 7"
    for bad in (step((0, 1), (0, 0)), step((1, 0), (0, 0)), step((0, 0), (0, 0))):             # A's, B's, and all of a layer
        assert len(failed(gradients([*good[:2], bad], {}, "mixlora"))) == 1


def test_quick_holds_for_more_experts_than_tokens(capsys):
    words = ["quick", "--model", "llama-nano", "--batch", "1", "--length", "8", "--validation-batches", "1", "--r", "1"]
    assert cli.main(["validate", *words, "--method", "mixlora", "--experts", "40"]) == cli.OK
    shown = capsys.readouterr().out
    assert "but those of experts without tokens" in shown and "NO" not in shown


def test_a_watched_optimizer_sees_sizes_and_steps():
    class Optimizer:
        lr, stepped = 0.5, []

        def step(self, grads, lr=None):
            self.stepped.append((grads, lr))

    watched, grads = Watched(Optimizer()), {"w": np.array([1.0, -3.0]), "n": np.array([np.nan, 0.0]), "none": np.zeros((0, 2))}
    watched.step(grads, lr=0.1)
    assert watched.lr == 0.5 and Optimizer.stepped == [(grads, 0.1)]
    assert watched.largest[0]["w"] == 3.0 and math.isnan(watched.largest[0]["n"]) and "none" not in watched.largest[0]


def test_a_frozen_bit_that_changes_is_seen(monkeypatch):
    fit = NumpyTuned.fit

    def careless(self, *args):
        yield from fit(self, *args)
        weight = self.model.state_dict()["blocks.0.attn.q_proj.base.weight"]
        weight.view(np.uint32)[0, 0] ^= 1

    assert failed(train(SMALL, open_base("llama-nano")).checks) == []
    monkeypatch.setattr(NumpyTuned, "fit", careless)
    assert failed(train(SMALL, open_base("llama-nano")).checks) == ["no frozen bit changes"]


def test_an_array_that_stands_still_is_seen(monkeypatch):
    init = NumpyTuned.__init__

    def lazy(self, *args):
        init(self, *args)
        step = self.optimizer.step

        def held(grads, lr=None):
            kept = self.trained()["blocks.1.attn.v_proj.adapters.default.lora_A"].copy()
            step(grads, lr=lr)
            self.trained()["blocks.1.attn.v_proj.adapters.default.lora_A"][...] = kept

        self.optimizer.step = held

    monkeypatch.setattr(NumpyTuned, "__init__", lazy)
    result = train(SMALL, open_base("llama-nano"))
    moved = result.checks[0]
    assert moved == Check("every trained array changes", "7 of 8; unmoved is blocks.1.attn.v_proj.adapters.default.lora_A", False)


def test_the_losses_are_those_of_the_command(tmp_path):
    from byhand.commands.finetune import finetune

    outcome = finetune(dataclasses.replace(SMALL, out=str(tmp_path / "run")))
    result = train(SMALL, open_base("llama-nano"))
    assert result.losses == outcome.losses["numpy"]
    assert result.after == outcome.validation["numpy"][4]
    assert result.trained == sum(array.size for array in NumpyTuned(SMALL, open_base("llama-nano")).trained().values())


def test_what_is_asked_of_the_loss(tmp_path):
    (tmp_path / "config.json").write_text('{"preset": "llama-1m"}')
    trained = str(tmp_path)
    assert make_plan("convergence", model=trained)[2:4] == ("share", 0.30)
    assert make_plan("long", model=trained)[2:4] == ("share", 0.40)
    assert make_plan("long", model=trained, options={"r": 8})[2:4] == ("noise", None)
    assert make_plan("convergence", model=trained, options={"text": "topics"})[2] == "noise"
    assert make_plan("quick", model=trained, options={"r": 8})[2] == "none"
    assert make_plan("convergence", model="llama-nano")[2] == "none"
    for file in CONFIGS:
        plan = make_plan("long", model=trained, file=file)
        assert plan.decrease == "noise" and plan.config.steps == TIERS["long"].steps
    assert make_plan("memory", model=trained).bound == make_plan("memory").bound == 96 * 10**6
    bounds = {"smollm2-135m": 512, "tinyllama-1.1b": 2000, "llama-2-7b": 8000}
    assert {model: make_plan("memory", model=model).bound // 10**6 for model in bounds} == bounds
    assert make_plan("memory", model="/nowhere", bound=700).bound == 700 * 10**6


@pytest.mark.parametrize(("options", "complaint"), [
    ({"resume": "runs/x"}, "no resume"), ({"out": "x"}, "no out"), ({"backend": "both"}, "one backend"), ({"steps": 1}, "at least 2 steps"),
])
def test_what_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_plan("quick", model="llama-nano", options=options)


def test_a_misspelt_option_of_a_file_is_refused(tmp_path):
    (tmp_path / "lora.yaml").write_text("ranks: 3\n")
    with pytest.raises(ValueError, match="unknown option 'ranks'"):
        make_plan("quick", model="llama-nano", file=tmp_path / "lora.yaml")


def test_bounds_are_for_the_tier_memory():
    with pytest.raises(ValueError, match="a bound for the tier memory only"):
        make_plan("quick", model="llama-nano", bound=5)
    with pytest.raises(ValueError, match="a bound in 10⁶ bytes"):
        make_plan("memory", model="/nowhere")


def test_more_than_noise():
    assert beyond_noise([0.30, 0.32, 0.31])[0]
    assert not beyond_noise([0.30, 0.32, -0.01])[0]                 # one seed learned nothing
    assert not beyond_noise([0.01, 0.50, 0.02])[0]                  # the mean is far from zero, and so is the error
    assert beyond_noise([1.0, 2.0, 3.0])[1] == pytest.approx(1 / math.sqrt(3))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"adapter_dropout": 0.1}, {"quantize": "nf4", "double": True, "accumulate": 2, "recompute": True}])
def test_resume_holds(options):
    result = carry_out(make_plan("resume", model="llama-nano", options=dict(batch=4, length=32) | options))
    assert failed(result.checks) == []
    assert len([check for check in result.checks if check.asked.startswith("bit-identical")]) == 3


@pytest.mark.slow
def test_resume_sees_another_seed(monkeypatch, tmp_path):
    """A run that goes on with other data is not the same."""
    written = resume._written

    def other(config, out):
        return written(dataclasses.replace(config, seed=config.seed + (out.name == "cut")), out)

    monkeypatch.setattr(resume, "_written", other)
    plan = make_plan("resume", model="llama-nano", options=dict(batch=4, length=32))
    assert len(failed(resume.interrupted(plan.config))) >= 3


@pytest.mark.slow
def test_memory_holds():
    result = carry_out(make_plan("memory", model=PRETRAINED))
    assert failed(result.checks) == []
    assert cli.main(["validate", "memory", "--model", "llama-nano", "--bound", "20"]) == cli.FAILED


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_convergence_holds(base, quantize):
    result = carry_out(make_plan("convergence", model=base, options={"quantize": quantize}))
    assert failed(result.checks) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("r", [4, 8, 16, 32])
def test_shipped_configurations_learn_more_than_noise(base, file, r):
    result = carry_out(make_plan("convergence", model=base, file=file, options={"r": r, "steps": 25}))
    assert failed(result.checks) == []
    assert len(result.runs) == 3


@pytest.mark.slow
def test_long_holds(base):
    assert failed(carry_out(make_plan("long", model=base)).checks) == []


@pytest.mark.slow
@pytest.mark.parametrize("model", ["smollm2-135m", "tinyllama-1.1b"])
def test_random_weights_of_real_shapes(model):
    assert PRESETS[model].parameters > 100_000_000
    result = carry_out(make_plan("quick", model=model, options={"steps": 2}))
    assert failed(result.checks) == []
