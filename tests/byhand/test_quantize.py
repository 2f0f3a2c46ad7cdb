"""`byhand quantize`: a base kept in 4 bits, what it is good for, and what it refuses."""

import re
import shutil

import numpy as np
import pytest

from byhand import checkpoint, cli
from byhand.finetuning.base import Quantization, open_base
from byhand.run_directory import load_weights
from numpy_impl.quantize.four_bit import dequantize_4bit

SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--text", __file__]


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "base"
    train = ["--preset", "llama-nano", "--steps", 1, "--out", out]
    assert run("train", *train, *SMALL) == cli.OK
    return out


@pytest.mark.parametrize(("kind", "block"), [("nf4", 64), ("fp4", 64), ("nf4", 48)])
def test_it_holds_the_codes_of_every_matrix_of_the_blocks(kind, block, base, tmp_path, capsys):
    assert run("quantize", base, "--out", tmp_path / "small", "--kind", kind, "--block", block) == cli.OK
    kept = open_base(str(tmp_path / "small"))
    weights, name = load_weights(base / "numpy-best.safetensors"), "blocks.1.mlp.down_proj"
    want, assert_bytes = weights[f"{name}.weight"], sum(array.nbytes for array in kept.state.values())
    got = dequantize_4bit(kept.state[f"{name}.codes"], absmax=kept.state[f"{name}.absmax"], shape=want.shape, kind=kind, block=block)
    assert kept.quantized == Quantization(kind, block, False) and np.abs(got - want).max() < 0.2 * np.abs(want).max()
    assert np.array_equal(kept.state["tokens.weight"], weights["tokens.weight"])
    assert f"in {assert_bytes:,} bytes" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_quantizing_before_and_while_it_is_read_is_one_thing(base, tmp_path):
    assert run("quantize", base, "--out", tmp_path / "small", "--double") == cli.OK
    for name, options in (("one", [tmp_path / "small"]), ("other", [base, "--quantize", "nf4", "--double"])):
        assert run("finetune", "--steps", 3, "--out", tmp_path / name, *SMALL, "--base", *options) == cli.OK
    one, other = (checkpoint.load(checkpoint.latest(tmp_path / name / "checkpoints")).arrays["numpy-trained"] for name in ("one", "other"))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("file", ["weights.safetensors", "base.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_damaged_base_is_named(file, harm, base, tmp_path, capsys):
    assert run("quantize", base, "--out", tmp_path / "small") == cli.OK
    path = tmp_path / "small" / "step-000000" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content if harm == "flip" else content[:-1])
    if harm == "gone":
        path.unlink()
    for words in (["generate", tmp_path / "small"], ["finetune", "--base", tmp_path / "small", "--out", tmp_path / "run", *SMALL]):
        capsys.readouterr()
        assert run(*words) == cli.WRONG_USAGE
        printed = capsys.readouterr()
        assert file in printed.err and printed.out == "" and "to go on from" not in printed.err
    assert not (tmp_path / "run").exists()


def test_what_it_refuses(base, tmp_path, capsys):
    small, other = tmp_path / "small", tmp_path / "other"
    assert run("quantize", base, "--out", small) == cli.OK
    for words, complaint in (
        ([small, "--out", other], "a base that is not quantized"),
        ([base, "--out", small], "a directory that is new or empty"),
        ([base, "--out", __file__], "a directory that is new or empty"),
        ([base, "--out", other, "--block", "0"], "block as an integer >= 1; got block=0"),
        ([base, "--out", other, "--block", "-1"], "block as an integer >= 1"),
        ([base, "--out", other, "--kind", "nf3"], 'Choose from: "nf4", "fp4"'),
        (["nothing", "--out", other], "a model's directory"),
    ):
        capsys.readouterr()
        assert run("quantize", *words) == cli.WRONG_USAGE
        assert complaint in capsys.readouterr().err and not other.exists()
    for extra in (["--quantize", "fp4"], ["--quantize", "nf4", "--block", "32"], ["--quantize", "nf4", "--double"]):
        assert run("finetune", "--base", small, "--out", other, *SMALL, *extra) == cli.WRONG_USAGE
        assert "the quantization that the base has, nf4 in blocks of 64, or none named" in capsys.readouterr().err


def test_a_base_of_hugging_face_brings_its_tokenizer_along(tmp_path, capsys):
    import tokenizers
    import transformers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"one": 0, "two": 1, "three": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    config = transformers.LlamaConfig(vocab_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                                      num_key_value_heads=1, max_position_embeddings=32)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "hub")
    words.save(str(tmp_path / "hub" / "tokenizer.json"))
    (tmp_path / "text").write_text("one two three two one\n" * 200)
    assert run("quantize", tmp_path / "hub", "--out", tmp_path / "small") == cli.OK
    shutil.rmtree(tmp_path / "hub")
    options = [word for word in SMALL if word not in ("--text", __file__)]
    tune = ["--text", tmp_path / "text", "--lr", "0.05", "--targets", "all-linear", "--steps", 2, *options]
    assert run("finetune", "--base", tmp_path / "small", "--out", tmp_path / "run", *tune) == cli.OK
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.OK
    capsys.readouterr()
    assert run("generate", tmp_path / "merged", "--prompt", "one two", "--count", 3, "--compare") == cli.OK
    assert "| one two" in capsys.readouterr().out and (tmp_path / "merged" / "tokenizer.json").is_file()
