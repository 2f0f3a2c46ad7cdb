"""`byhand convert`: from wherever a model lies to a directory that transformers loads with equal logits; whole, or not there."""

import json
import os

import numpy as np
import pytest
import safetensors.numpy
import torch

from byhand import cli
from byhand.commands import convert as command
from byhand.hugging_face.directory import load_hugging_face, save_hugging_face
from byhand.model_source import open_model
from tests.byhand.hugging_face_models import IDS, MODELS, logits, our_logits, ours_of, read_by_transformers, theirs_of

transformers = pytest.importorskip("transformers")

SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--text", __file__, "--steps", "2"]


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def equal_to_theirs(path, ids=IDS):
    theirs, told = read_by_transformers(path)
    assert not any(names for key, names in told.items() if key != "missing_keys"), told
    with torch.no_grad():
        want = theirs(input_ids=torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(open_model(str(path)).model(ids), want, rtol=0, atol=1e-5 * max(1.0, np.abs(want).max()))
    return theirs


@pytest.mark.parametrize("preset", ["gpt2-nano", "llama-nano", "mixtral-nano"])
def test_a_preset_becomes_a_model_of_transformers(tmp_path, capsys, preset):
    assert run("convert", preset, tmp_path / "out", "--seed", 3) == cli.OK
    assert f"{preset}, random weights" in capsys.readouterr().out
    equal_to_theirs(tmp_path / "out")
    state = open_model(preset, seed=3).model.state_dict()
    assert all(np.array_equal(array, state[name]) for name, array in load_hugging_face(tmp_path / "out")[1].items())


@pytest.mark.parametrize("preset", ["bert-nano", "t5-nano"])
def test_encoders_too(tmp_path, preset):
    assert run("convert", preset, tmp_path / "out", "--dtype", "bfloat16") == cli.OK
    theirs = read_by_transformers(tmp_path / "out")[0]
    np.testing.assert_allclose(our_logits(open_model(str(tmp_path / "out")).model), logits(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_directory_is_cast_and_cut_and_stays_the_model_it_is(tmp_path, name):
    kind, config = MODELS[name]
    theirs_of(kind, config).save_pretrained(tmp_path / "from", max_shard_size="4KB")
    (tmp_path / "from" / "tokenizer.json").write_text("{}")
    assert run("convert", tmp_path / "from", tmp_path / "out", "--dtype", "bfloat16", "--max-shard", "3kB") == cli.OK
    found, state = load_hugging_face(tmp_path / "out")
    assert found == config and (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    before = load_hugging_face(tmp_path / "from")[1]
    for key, array in state.items():
        np.testing.assert_array_equal(array, torch.tensor(before[key]).bfloat16().float().numpy())
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    theirs, told = read_by_transformers(tmp_path / "out")
    assert {name.partition(".")[0] for name in told["missing_keys"]} <= {"pooler"}
    np.testing.assert_allclose(our_logits(open_model(str(tmp_path / "out")).model), logits(theirs), rtol=0, atol=1e-5)


def test_the_dtype_of_the_source_stays_where_none_is_asked_for(tmp_path, capsys):
    kind, config = MODELS["llama"]
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        path = save_hugging_face(tmp_path / dtype, config, ours_of(kind, config, np.float64).state_dict(), dtype=dtype)
        assert run("convert", path, tmp_path / f"{dtype}-out") == cli.OK
        assert json.loads((tmp_path / f"{dtype}-out" / "config.json").read_text())["dtype"] == dtype.replace("64", "32")


@pytest.mark.parametrize("preset", ["gpt2-nano", "llama-nano"])
def test_a_run_and_what_was_quantized_of_it(tmp_path, preset):
    assert run("train", "--preset", preset, "--backend", "numpy", "--out", tmp_path / "run", *SMALL) == cli.OK
    assert run("convert", tmp_path / "run", tmp_path / "out", "--max-shard", "100kB") == cli.OK
    equal_to_theirs(tmp_path / "out", np.arange(40, 70)[None])
    weights = safetensors.numpy.load_file(tmp_path / "run" / "numpy-best.safetensors")
    assert all(np.array_equal(array, weights[name]) for name, array in load_hugging_face(tmp_path / "out")[1].items())
    assert run("quantize", tmp_path / "run", "--out", tmp_path / "small") == cli.OK
    assert run("convert", tmp_path / "small", tmp_path / "full") == cli.OK
    equal_to_theirs(tmp_path / "full", np.arange(40, 70)[None])
    full = load_hugging_face(tmp_path / "full")[1]
    changed = {name for name, array in full.items() if not np.array_equal(array, weights[name])}
    assert changed == {name for name in weights if name.startswith("blocks.") and name.endswith("_proj.weight")}


@pytest.mark.parametrize(("words", "message"), [
    (["llama-nono", "out"], "did you mean 'llama-nano'"),
    (["llama-nano", "full"], "an OUT that is new or an empty directory"),
    (["llama-nano", "full/file"], "an OUT that is new or an empty directory"),
    (["llama-nano", "out", "--max-shard", "0GB"], "max_shard as bytes with their unit"),
    (["llama-nano", "out", "--max-shard", "2"], "max_shard as bytes with their unit"),
    (["llama-nano", "out", "--max-shard", "50%"], "max_shard as bytes with their unit"),
    (["llama-nano", "weights.bin/out"], "an OUT that it can write"),
    (["llama-nano", "a" * 300], "an OUT that it can write"),
    (["a" * 300, "out"], "a preset, or a directory or file"),
    (["llama-nano", "out", "--dtype", "float8"], "dtype"),
    (["llama-nano", "out", "--seed", "-1"], "seed as an integer >= 0"),
    (["transformer-base", "out"], "config of a GPT-2, Llama, Mixtral, BERT or T5"),
    (["deepseek-nano", "out"], "options of one of transformers' models"),
    (["weights.bin", "out"], "is a pickle, which is never read"),
])
def test_what_cannot_be_converted_is_named_and_nothing_is_left(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("here")
    (tmp_path / "weights.bin").write_bytes(b"")
    assert run("convert", *words) == cli.WRONG_USAGE
    assert message in " ".join(capsys.readouterr().err.split())
    assert {path.name for path in tmp_path.iterdir()} == {"full", "weights.bin"}


def test_an_interruption_leaves_nothing_and_an_empty_directory_is_taken(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    real = command.save_hugging_face

    def interrupted(*arguments, **options):
        real(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "save_hugging_face", interrupted)
    assert run("convert", "llama-nano", out) == cli.INTERRUPTED
    assert os.listdir(tmp_path) == ["out"] and not os.listdir(out)
    monkeypatch.undo()
    assert run("convert", "llama-nano", out) == cli.OK
    equal_to_theirs(out)
