"""What fine-tuning leaves, in other hands: adapters in peft, merged models in transformers, and what cannot be merged."""

import json

import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel

from byhand import cli
from byhand.commands.adapters import _model, _run_of, with_adapter
from byhand.finetuning.base import open_base
from byhand.run_directory import load_weights

SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--text", __file__, "--lr", "0.03"]
IDS = np.random.default_rng(0).integers(0, 256, (2, 20))
SIZES = dict(vocab_size=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    torch.manual_seed(0)
    llama = dict(**SIZES, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=64)
    for tied in (False, True):
        config = transformers.LlamaConfig(**llama, tie_word_embeddings=tied)
        transformers.LlamaForCausalLM(config).save_pretrained(root / ("tied" if tied else "llama"))
    config = transformers.GPT2Config(vocab_size=256, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(root / "gpt2")
    return root


def tune(base, out, *extra):
    assert run("finetune", "--base", base, "--steps", 3, "--out", out, *SMALL, *extra) == cli.OK


def ours(base, adapter):
    """Logits as `byhand generate` has them."""
    base, tuning = open_base(str(base)), _run_of("generate", str(adapter))
    return with_adapter("generate", _model(base, tuning, 0), base, str(adapter), tuning)(IDS)


def theirs(path, adapter=None):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    model = model if adapter is None else PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(IDS)).logits.float().numpy()


def close(got, want):
    return np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("base", ["llama", "tied", "gpt2"])
@pytest.mark.parametrize("extra", [
    ["--targets", "all-linear"],
    ["--dora", "--rslora"],
    ["--targets", "q_proj", "--rank-pattern.q_proj", "3", "--alpha-pattern.q_proj", "5"],
    ["--targets", "all-linear", "--start", "pissa"],
    ["--start", "olora", "--rslora", "--dora"],
    ["--start", "pissa", "--targets", "all-linear", "--rank-pattern.o_proj", "3", "--alpha-pattern.v_proj", "3"],
    ["--backend", "torch", "--start", "pissa"],
], ids=lambda extra: " ".join(extra).replace("--", ""))
def test_a_run_its_adapter_peft_and_the_merged_model_are_one(base, extra, bases, tmp_path):
    base = bases / base
    tune(base, tmp_path / "run", *extra)
    logits = ours(base, tmp_path / "run")
    assert not close(ours(base, tmp_path / "run"), theirs(base))                           # it has learned something
    assert close(ours(base, tmp_path / "run" / "adapter"), logits)
    assert close(theirs(base, tmp_path / "run" / "adapter"), logits)
    for name, adapter in (("one", tmp_path / "run"), ("two", tmp_path / "run" / "adapter")):
        assert run("merge", base, "--adapter", adapter, "--out", tmp_path / name) == cli.OK
        assert close(theirs(tmp_path / name), logits)


def test_a_bfloat16_adapter_loads_in_peft(bases, tmp_path):
    tune(bases / "llama", tmp_path / "run", "--adapter-dtype", "bfloat16")
    content = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    entries = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {entry["dtype"] for name, entry in entries.items() if name != "__metadata__"} == {"BF16"}
    logits = ours(bases / "llama", tmp_path / "run")
    assert np.array_equal(ours(bases / "llama", tmp_path / "run" / "adapter"), logits)     # rounding what is rounded changes nothing
    assert close(theirs(bases / "llama", tmp_path / "run" / "adapter"), logits)


def test_loftq_is_for_the_base_in_nf4(bases, tmp_path, capsys):
    tune(bases / "llama", tmp_path / "run", "--start", "loftq", "--targets", "all-linear")
    assert "with the layers that have adapters in NF4, in blocks of 64" in capsys.readouterr().out
    logits = ours(bases / "llama", tmp_path / "run")
    assert run("quantize", bases / "llama", "--out", tmp_path / "nf4") == cli.OK
    assert close(ours(tmp_path / "nf4", tmp_path / "run" / "adapter"), logits)
    assert not close(ours(bases / "llama", tmp_path / "run" / "adapter"), logits)


def test_a_start_that_is_quantized_again_leaves_no_files_for_peft(bases, tmp_path, capsys):
    tune(bases / "llama", tmp_path / "run", "--start", "pissa", "--quantize", "nf4")
    assert "No files for peft" in capsys.readouterr().out and not (tmp_path / "run" / "adapter").exists()
    assert run("generate", "--adapter", tmp_path / "run", "--count", 2) == cli.OK
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.OK
    assert close(theirs(tmp_path / "merged"), ours(bases / "llama", tmp_path / "run"))


@pytest.mark.parametrize("double", [[], ["--double"]])
def test_a_quantized_base_is_merged_in_full_precision(double, bases, tmp_path):
    tune(bases / "llama", tmp_path / "run", "--quantize", "nf4", *double)
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.OK
    assert close(theirs(tmp_path / "merged"), ours(bases / "llama", tmp_path / "run"))


def test_everything_trained_is_merged_as_it_is(bases, tmp_path):
    tune(bases / "gpt2", tmp_path / "run", "--method", "full")
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.OK
    assert close(theirs(tmp_path / "merged"), ours(bases / "gpt2", tmp_path / "run"))


def test_trained_biases_come_along(bases, tmp_path):
    tune(bases / "gpt2", tmp_path / "run", "--bias", "all")
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.OK
    logits = ours(bases / "gpt2", tmp_path / "run")
    assert close(theirs(tmp_path / "merged"), logits) and close(theirs(bases / "gpt2", tmp_path / "run" / "adapter"), logits)


def test_an_adapted_table_of_tokens_is_merged_only_where_the_head_is_its_own(bases, tmp_path, capsys):
    tune(bases / "llama", tmp_path / "free", "--targets", "tokens")
    assert run("merge", "--adapter", tmp_path / "free", "--out", tmp_path / "merged") == cli.OK
    assert close(theirs(tmp_path / "merged"), ours(bases / "llama", tmp_path / "free"))
    tune(bases / "tied", tmp_path / "run", "--targets", "tokens")
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "no") == cli.WRONG_USAGE
    assert "a head of its own" in capsys.readouterr().err and not (tmp_path / "no").exists()


@pytest.mark.parametrize("method", ["ia3", "prefix", "prompt", "bottleneck"])
def test_what_no_weight_can_take_in_is_not_merged(method, bases, tmp_path, capsys):
    tune(bases / "llama", tmp_path / "run", "--method", method)
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "no") == cli.WRONG_USAGE
    assert "needs LoRA, which can be added into weights" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_a_merged_model_has_no_adapter_to_merge(bases, tmp_path, capsys):
    tune(bases / "llama", tmp_path / "run")
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.OK
    before = load_weights(tmp_path / "merged" / "model.safetensors")
    assert run("merge", tmp_path / "merged", "--adapter", tmp_path / "run", "--out", tmp_path / "twice") == cli.WRONG_USAGE
    assert "the base that" in capsys.readouterr().err and not (tmp_path / "twice").exists()
    assert run("merge", bases / "llama", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.WRONG_USAGE
    assert "new or empty" in capsys.readouterr().err
    after = load_weights(tmp_path / "merged" / "model.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_an_adapter_of_another_width(bases, tmp_path, capsys):
    tune(bases / "llama", tmp_path / "run")
    for command in (["generate"], ["merge", "--out", tmp_path / "no"]):
        capsys.readouterr()
        assert run(*command, "llama-nano", "--adapter", tmp_path / "run" / "adapter") == cli.WRONG_USAGE
        assert "q_proj.lora_A of shape (8, 64); got" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_a_base_of_ours_is_exported_and_takes_its_adapter_in_peft(tmp_path):
    assert run("train", "--preset", "llama-nano", "--steps", 2, "--out", tmp_path / "base", *SMALL[:-2], "--lr", "0.01") == cli.OK
    tune(tmp_path / "base", tmp_path / "tuned", "--targets", "all-linear")
    assert run("export", tmp_path / "base", "--out", tmp_path / "exported") == cli.OK
    got = theirs(tmp_path / "exported", tmp_path / "tuned" / "adapter")
    np.testing.assert_allclose(got, ours(tmp_path / "base", tmp_path / "tuned"), atol=1e-5)
    assert run("export", tmp_path / "base", "--out", tmp_path / "exported") == cli.WRONG_USAGE      # it is there already
