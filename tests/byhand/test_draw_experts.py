"""`byhand draw experts`: the weights are the routers' own, and the picture comes from every kind of run."""

import json
import re

import numpy as np
import pytest

from byhand import cli, expert_figure
from byhand.configs.mixlora import MixLoRAConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.expert_maps import expert_maps
from byhand.routing_metrics import LayerRouting, routing_layers
from numpy_impl.finetune.apply_mixlora import apply_mixlora
from numpy_impl.models.mixtral import Mixtral
from numpy_impl.moe import router as room

pytest.importorskip("matplotlib")

SIZES = dict(vocabulary=256, max_length=64, d_model=8, n_layers=2, n_heads=2, d_hidden=6)
SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--steps", "3"]
IDS = np.array(list(b"def add(a, b)"))


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def draw(*arguments):
    return run("draw", "experts", *arguments)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("def add(a, b):\n    return a + b\n" * 60)
    return path


@pytest.fixture
def trained(tmp_path, text):
    out = tmp_path / "run"
    assert run("train", "--preset", "mixtral-nano", "--experts", 3, "--backend", "both", "--text", text, "--out", out, *SMALL) == 0
    return out


@pytest.mark.parametrize(
    "options",
    [
        {}, dict(renormalise=False), dict(before=False, renormalise=False), dict(score="sigmoid"), dict(score="sigmoid", renormalise=False),
        dict(score="sigmoid", before=False, renormalise=False), dict(groups=2, top_groups=1, correction=True), dict(choice="sinkhorn"),
        dict(capacity_factor=0.7), dict(choice="expert", renormalise=False),
    ],
)
def test_the_weights_are_those_that_the_experts_are_weighed_by(options):
    model = Mixtral(MixtralConfig(**SIZES, n_experts=6, k=2, **options), rng=np.random.default_rng(0))
    sent = []
    for layer in routing_layers(model).values():
        layer.router.weight *= 50                                       # so that experts lean
        forward = layer.router.forward
        layer.router.forward = lambda *inputs, own=forward, **more: (sent.append(own(*inputs, **more)), sent[-1])[1]
    maps = expert_maps(model, IDS)
    assert [found.layer for found in maps] == ["blocks.0.mlp", "blocks.1.mlp"] and model.watch is None
    for found, (assignment, _) in zip(maps, sent, strict=True):
        expected = np.zeros_like(found.weights)
        experts = np.repeat(np.arange(6), assignment.counts)
        expected[experts, assignment.tokens] = assignment.weights.reshape(-1)[assignment.slots]
        np.testing.assert_allclose(np.where(found.kept, found.weights, 0), expected, rtol=1e-5, atol=1e-7)
        assert found.kept.sum() == len(assignment.tokens) and not found.weights[~found.chosen].any()
        assert (found.chosen & ~found.kept).any() == ("capacity_factor" in options)


@pytest.mark.parametrize("renormalise", [True, False])
def test_the_weights_of_mixlora_are_its_routers(renormalise):
    model = Mixtral(MixtralConfig(**SIZES, dense=(0, 1)), rng=np.random.default_rng(0))
    apply_mixlora(model, MixLoRAConfig(n_experts=4, r=2, renormalise=renormalise), rng=np.random.default_rng(1))
    seen = []
    model.watch = seen.extend
    model.loss(IDS[None], IDS[None])
    for found, routing in zip(expert_maps(model, IDS), seen[:2], strict=True):
        (weights, _, ids), _ = room.router(routing.logits[0], k=2, renormalise=renormalise)
        np.testing.assert_allclose(np.take_along_axis(found.weights.T, ids, -1), weights, rtol=1e-6)


def test_a_run_is_drawn_with_its_text_and_its_training(tmp_path, trained, capsys):
    out = tmp_path / "new" / "both.svg"
    assert draw("--run", trained, "--text", "a quick fox", "--out", out) == 0
    assert "2 layers on 11 tokens, 3 steps of training" in capsys.readouterr().out
    written = re.findall(r"<text[^>]*>([^<]*)</text>", out.read_text(encoding="utf-8"))
    assert [written.count(letter) for letter in "quck␣"] == [2, 2, 2, 2, 4]                # above the first layer and below the last
    assert {"block 0", "block 1", "entropy", "dropped share", "even use", "router's weight"} <= set(written)
    again = tmp_path / "again.svg"
    assert draw("--run", trained, "--text", "a quick fox", "--out", again) == 0 and again.read_bytes() == out.read_bytes()


def test_a_part_or_a_layer_is_drawn_alone(tmp_path, trained):
    out = tmp_path / "part.svg"
    for layer in ("1", "blocks.1.mlp"):
        assert draw(trained, "--show", "tokens", "--layer", layer, "--ids", "65, 66", "--out", out) == 0
        written = re.findall(r"<text[^>]*>([^<]*)</text>", out.read_text(encoding="utf-8"))
        assert written.count("65") == 1 and "block 1" in written and not {"block 0", "entropy"} & set(written)
    assert draw(trained, "--show", "training", "--layer", 0, "--out", out) == 0
    written = re.findall(r"<text[^>]*>([^<]*)</text>", out.read_text(encoding="utf-8"))
    assert {"block 0", "entropy"} <= set(written) and not {"block 1", "router's weight"} & set(written)


def test_fine_tuning_with_mixlora_is_drawn(tmp_path, text, capsys):
    run_of = tmp_path / "run"
    options = ["--base", "llama-nano", "--method", "mixlora", "--experts", 3, "--backend", "torch", "--text", text]
    assert run("finetune", *options, "--out", run_of, *SMALL) == 0
    assert draw(run_of, "--out", tmp_path / "experts.png") == 0
    assert "mixlora on llama-nano, random weights; 2 layers on 32 tokens, 3 steps of training" in capsys.readouterr().out
    assert (tmp_path / "experts.png").read_bytes().startswith(b"\x89PNG")


def test_long_texts_and_many_experts_have_room(tmp_path):
    rng = np.random.default_rng(0)
    logits = rng.random((64, 150))
    chosen = logits >= np.sort(logits, 0)[-6]
    maps = [expert_figure.ExpertMap(f"blocks.{i}.mlp", np.where(chosen, 0.2, 0), chosen, chosen & (logits < 0.97)) for i in range(2)]
    steps = {step: [LayerRouting(one.layer, np.full(64, 1 / 64), 1.0, 0.0, 6.0, 1.0) for one in maps] for step in range(1, 700)}
    expert_figure.draw_experts(tmp_path / "x.png", maps=maps, tokens=["␣token"] * 150, steps=steps, title="many")
    assert (tmp_path / "x.png").stat().st_size > 50_000


def test_steps_are_drawn_in_groups_that_keep_their_means():
    shares = np.random.default_rng(0).dirichlet(np.ones(3), 450)
    steps = {7 + i: [LayerRouting("x", share, float(i), 0.25, 2.0, 1.0)] for i, share in enumerate(shares)}
    edges, ((name, share, entropy, dropped),) = expert_figure._binned(steps)
    sizes = np.diff(edges)
    assert len(share) == 150 and set(sizes) == {3} and (edges[0], edges[-1]) == (6.5, 456.5)
    np.testing.assert_allclose(share[1], shares[3:6].mean(0))
    assert name == "x" and entropy[:2].tolist() == [1, 4] and set(dropped) == {0.25}
    edges, ((_, share, *_),) = expert_figure._binned(dict(list(steps.items())[:5]))
    np.testing.assert_array_equal(share, shares[:5])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["mixtral-nano", "--out", "x.html"], "a picture with an ending from '.png', '.svg'"),
        (["llama-nano"], "expert_maps needs a causal model with experts; got model 'Llama'"),
        (["mixtral-nano", "--layer", "2"], "a layer with experts, by name or by the number of its block, from blocks.0.mlp, blocks.1.mlp"),
        (["deepseek-nano", "--layer", "0"], "from blocks.1.mlp; got layer='0'"),
        (["mixtral-nano", "--show", "training"], "draw needs a run whose metrics tell of its routers, for its training"),
        (["mixtral-nano", "--text", ""], "a text of 1 to 512 tokens"),
        (["mixtral-nano", "--ids", "1 x"], "ids as numbers"),
        (["mixtral-nano", "--ids", "256"], "embedding needs ids in [0, 255]"),
        (["no-such-run"], "a directory or file that exists"),
        (["mixtral-nano", "--show", "all"], "show"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, arguments, complaint, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert draw(*arguments) == 2
    assert complaint in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_last_line_that_was_cut_short_is_passed_over(tmp_path, trained, capsys):
    with (trained / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4})[:-3])
    assert draw(trained, "--show", "training", "--out", tmp_path / "x.png") == 0
    assert "3 steps of training" in capsys.readouterr().out
