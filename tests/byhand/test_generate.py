"""`byhand generate`: the base alone, with an adapter, and what does not go together."""

import re
import shutil

import numpy as np
import pytest

from byhand import cli
from byhand.commands.adapters import _model, _run_of, with_adapter
from byhand.finetuning.base import open_base

SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--text", __file__, "--lr", "0.5"]


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def texts(capsys, *arguments):
    """{title: continuation} of a command that must work."""
    capsys.readouterr()
    assert run("generate", *arguments, "--compare") == cli.OK
    return dict(re.findall(r"^(.+):\n  \| ([^\n]*)", capsys.readouterr().out, re.MULTILINE))


def refused(capsys, *arguments):
    capsys.readouterr()
    assert run("generate", *arguments) == cli.WRONG_USAGE
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    return " ".join(printed.err.split())


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Runs on a small Llama and on a quantized copy of it."""
    root = tmp_path_factory.mktemp("runs")
    train = ["--preset", "llama-nano", "--text", __file__, "--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0"]
    assert run("train", *train, "--steps", 1, "--lr", 1e-4, "--out", root / "base") == cli.OK
    assert run("quantize", root / "base", "--out", root / "small", "--double") == cli.OK
    for name, base, extra in (("run", "base", []), ("qlora", "small", []), ("ia3", "base", ["--method", "ia3"]),
                              ("prompt", "base", ["--method", "prompt"]), ("torch", "base", ["--backend", "torch"])):
        assert run("finetune", "--base", root / base, "--steps", 4, "--out", root / name, *SMALL, *extra) == cli.OK
    return root


@pytest.mark.parametrize("name", ["run", "qlora", "ia3", "prompt", "torch"])
def test_with_the_adapter_it_is_another_model_than_without(name, tuned, capsys):
    found = texts(capsys, "--adapter", tuned / name, "--count", 24)
    base, adapted = found.values()
    assert list(found)[1] == f"with {tuned / name}" and base.startswith("def ")
    assert base != adapted or name in ("ia3", "prompt")              # which move so small a model's logits, and not its first choices
    start, tuning = open_base(str(_run_of("generate", str(tuned / name)).base)), _run_of("generate", str(tuned / name))
    ids = np.arange(12)[None]
    plain = _model(start, tuning, 0)(ids)
    assert np.abs(with_adapter("generate", _model(start, tuning, 0), start, str(tuned / name), tuning)(ids) - plain).max() > 1e-3


def test_a_run_and_its_files_say_the_same_and_alone_the_base_does(tuned, capsys):
    by_run, by_files = (texts(capsys, tuned / "base", "--adapter", adapter, "--count", 24) for adapter in
                        (tuned / "run", tuned / "run" / "adapter"))
    assert list(by_run.values()) == list(by_files.values())
    assert list(texts(capsys, tuned / "base", "--count", 24).values()) == list(by_run.values())[:1]


def test_a_merged_model_says_what_the_adapter_did(tuned, tmp_path, capsys):
    assert run("merge", "--adapter", tuned / "run", "--out", tmp_path / "merged") == cli.OK
    assert list(texts(capsys, tmp_path / "merged", "--count", 24).values()) == list(texts(capsys, "--adapter", tuned / "run", "--count", 24)
                                                                                    .values())[1:]


def test_a_prompt_of_the_users(tuned, capsys):
    assert next(iter(texts(capsys, tuned / "base", "--prompt", "import re", "--count", 5).values())).startswith("import re")


@pytest.mark.parametrize(("words", "complaint"), [
    ([], "neither"),
    (["llama-nano", "--count", "0"], "count as an integer >= 1"),
    (["llama-nano", "--prompt", ""], "a prompt of at least one byte"),
    (["llama-nano", "--adapter", "/no/such"], "the directory of an adapter"),
    (["/no/such"], "a preset, or a directory or file that exists"),
])
def test_what_will_not_do(words, complaint, capsys):
    assert complaint in refused(capsys, *words)


def test_an_adapter_of_another_base_or_shape(tuned, capsys):
    assert "the base that" in refused(capsys, tuned / "small", "--adapter", tuned / "run")
    assert "the base that" in refused(capsys, "llama-nano", "--adapter", tuned / "run")
    assert "adapters for the modules of this model" in refused(capsys, "gpt2-nano", "--adapter", tuned / "run" / "adapter")
    assert "adapters for the modules of this model" in refused(capsys, "llama-1m", "--adapter", tuned / "run" / "adapter")
    assert "the directory of a `byhand finetune`" in refused(capsys, "--adapter", tuned / "base")


@pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/manifest.json",
                                  "checkpoints/step-000004/numpy-trained.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "flip"])
def test_damaged_files_are_named(file, harm, tuned, tmp_path, capsys):
    path = shutil.copytree(tuned / "run", tmp_path / "run") / file
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 16
    path.write_bytes(content if harm == "flip" else content[:-5])
    adapter = tmp_path / "run" / "adapter" if file.startswith("adapter") else tmp_path / "run"
    for command in ("generate", "merge"):
        more = ["--out", tmp_path / "merged"] if command == "merge" else []
        capsys.readouterr()
        assert run(command, tuned / "base", "--adapter", adapter, *more) == cli.WRONG_USAGE
        printed = capsys.readouterr()
        assert path.name in printed.err and printed.out == "" and not (tmp_path / "merged").exists()


def test_a_run_without_a_checkpoint_says_how_to_go_on(tuned, tmp_path, capsys):
    run_ = shutil.copytree(tuned / "run", tmp_path / "run")
    shutil.rmtree(run_ / "checkpoints")
    assert f"byhand finetune --resume {run_}" in refused(capsys, "--adapter", run_)


@pytest.mark.parametrize("name", ["run", "qlora", "ia3", "prompt", "torch"])
def test_alone_the_adapters_text_is_streamed_and_both_sides_write_it(name, tuned, capsys):
    _, want = texts(capsys, "--adapter", tuned / name, "--count", 16).values()
    for options in ([], ["--backend", "torch"], ["--dtype", "float64"], ["--backend", "torch", "--dtype", "float64"]):
        capsys.readouterr()
        assert run("generate", "--adapter", tuned / name, "--count", 16, *options) == cli.OK
        assert ("def " + capsys.readouterr().out.removesuffix("\n")).split("\n")[0] == want
    assert run("generate", "--adapter", tuned / name, "--count", 4, "--beams", 2, "--backend", "torch") == cli.OK
    by_torch = capsys.readouterr().out
    assert run("generate", "--adapter", tuned / name, "--count", 4, "--beams", 2) == cli.OK
    assert capsys.readouterr().out == by_torch


def test_the_files_of_an_adapter_on_both_sides(tuned, capsys):
    found = []
    for options in ([], ["--backend", "torch"], ["--dtype", "float64"]):
        assert run("generate", tuned / "base", "--adapter", tuned / "run" / "adapter", "--count", 16, *options) == cli.OK
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] == found[2]
    assert run("generate", tuned / "small", "--count", 16) == cli.OK
    small = capsys.readouterr().out
    assert run("generate", tuned / "small", "--count", 16, "--backend", "torch") == cli.OK
    assert capsys.readouterr().out == small
