"""Directories of mixtures of experts in the commands: to generate, to fine-tune, to merge, to quantize."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from byhand import cli
from byhand.configs.lora import LoRAConfig
from byhand.configs.mixtral import MIXTRAL_PRESETS
from byhand.finetuning.base import open_base
from byhand.finetuning.memory import plan_memory
from byhand.hugging_face.adapter import save_adapter
from byhand.hugging_face.combined import Stacked
from byhand.hugging_face.directory import load_hugging_face
from byhand.model_source import open_model
from numpy_impl.finetune.manager import adapter_state, apply_lora
from numpy_impl.models.mixtral import Mixtral
from tests.byhand.mixtral_models import QWEN2, TINY, theirs_of

transformers = pytest.importorskip("transformers")


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--text", __file__, "--steps", "2", "--lr", "0.05"]


@pytest.fixture(params=["mixtral", "qwen2_moe"])
def directory(tmp_path, request):
    """A model of bytes that transformers has saved, and its config."""
    config = dataclasses.replace({"mixtral": TINY, "qwen2_moe": QWEN2}[request.param], vocabulary=256, max_length=64)
    theirs = theirs_of(config)
    theirs.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs", config, theirs


def test_a_directory_is_opened_by_the_commands(directory, capsys):
    path, config, theirs = directory
    base = open_base(str(path))
    assert base.config == config and isinstance(base.state["blocks.0.mlp.experts.up_proj"], Stacked)
    assert run("generate", path, "--prompt", "abc", "--count", 8, "--compare") == cli.OK
    said = re.search(r"\| (abc.*)", capsys.readouterr().out, re.DOTALL)
    assert said
    ids = torch.tensor([list(b"abc")])
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, theirs(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    model = open_model(str(path)).model
    assert type(model) is Mixtral
    ours = list(b"abc")
    for _ in range(8):
        ours.append(int(model(np.array([ours]))[0, -1].argmax()))
    assert ours == ids[0].tolist()


def test_a_directory_is_fine_tuned_alike_in_both_and_merged_for_transformers(directory, tmp_path, capsys):
    path, _, theirs = directory
    both = ["--backend", "both", "--dtype", "float64", "--targets", "q_proj,v_proj", *SMALL]
    assert run("finetune", "--base", path, "--out", tmp_path / "run", *both) == cli.OK
    printed = capsys.readouterr().out
    assert "The curves lie on each other" in printed and "NOT what they were" not in printed
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.OK
    merged = type(theirs).from_pretrained(tmp_path / "merged", experts_implementation="eager", local_files_only=True)
    ids = np.arange(20, 40)[None]
    with torch.no_grad():
        want = merged(input_ids=torch.tensor(ids)).logits.numpy()
        plain = theirs(input_ids=torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(open_model(str(tmp_path / "merged")).model(ids), want, rtol=0, atol=1e-5)
    assert np.abs(want - plain).max() > 1e-3


def test_the_jitter_of_a_base_acts_alike_in_both_when_it_is_fine_tuned(tmp_path, capsys):
    losses = []
    for jitter in (0.0, 0.3):
        theirs_of(dataclasses.replace(TINY, vocabulary=256, max_length=64, jitter=jitter)).save_pretrained(tmp_path / f"{jitter}")
        out = tmp_path / f"run-{jitter}"
        assert run("finetune", "--base", tmp_path / f"{jitter}", "--backend", "both", "--dtype", "float64", "--out", out, *SMALL) == cli.OK
        assert "The curves lie on each other" in capsys.readouterr().out
        losses.append(json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert abs(losses[0] - losses[1]) > 1e-6


def test_a_memory_plan_for_experts_is_refused():
    with pytest.raises(ValueError, match="plan_memory needs the config of a GPT-2 or a Llama, without experts"):
        plan_memory(MIXTRAL_PRESETS["mixtral-nano"])


def test_a_base_in_four_bits_is_kept_and_opened(directory, tmp_path, capsys):
    path, config, _ = directory
    assert run("quantize", path, "--out", tmp_path / "small") == cli.OK
    base = open_base(str(tmp_path / "small"))
    assert base.config == config and base.quantized is not None
    assert run("generate", tmp_path / "small", "--prompt", "abc", "--count", 2) == cli.OK


def test_peft_loads_an_adapter_of_ours(directory, tmp_path):
    peft = pytest.importorskip("peft")
    path, config, theirs = directory
    model = Mixtral(config)
    model.load_state_dict(load_hugging_face(path)[1])
    targets = ("q_proj", "o_proj") if config.d_shared is None else ("q_proj", "shared.up_proj", "shared.down_proj")
    lora = LoRAConfig(r=2, targets=targets)
    rng = np.random.default_rng(0)
    apply_lora(model, lora, rng=rng)
    for name, array in model.parameters().items():
        if "lora_B" in name:
            array[...] = rng.standard_normal(array.shape)
    save_adapter(tmp_path / "adapter", config=lora, model_config=config, state=adapter_state(model))
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    ids = np.arange(20, 40)[None]
    with torch.no_grad():
        want = adapted(input_ids=torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(model(ids), want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("preset", ["mixtral-nano", "deepseek-nano"])
def test_presets_are_trained_and_are_bases(preset, tmp_path, capsys):
    small = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--text", __file__, "--steps", "2"]
    assert run("train", "--preset", preset, "--backend", "both", "--dtype", "float64", "--out", tmp_path / "run", *small) == cli.OK
    assert "The curves lie on each other" in capsys.readouterr().out
    base = open_base(str(tmp_path / "run"))
    assert dataclasses.replace(base.config, dropout=0.0) == MIXTRAL_PRESETS[preset]
    assert run("generate", tmp_path / "run", "--count", 3) == cli.OK


