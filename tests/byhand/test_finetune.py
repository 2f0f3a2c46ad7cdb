"""`byhand finetune`: every method on every kind of base, both implementations, options in their order, the configurations that ship."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from byhand import checkpoint, cli
from byhand.cli_adapters import is_large
from byhand.finetune_config import FinetuneConfig, config_of_run
from byhand.run_config import resolve

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIGS = sorted((ROOT / "examples" / "configs").glob("lora_*.yaml"))
SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--every", "100", "--text", "list-operations"]
METHODS = {
    "lora": ["--adapter-dropout", "0.2"],
    "dora": ["--dora", "--adapter-dropout", "0.2", "--bias", "all"],
    "ia3": ["--method", "ia3"],
    "prefix": ["--method", "prefix", "--virtual-tokens", "3"],
    "prompt": ["--method", "prompt", "--virtual-tokens", "3"],
    "bottleneck": ["--method", "bottleneck", "--bottleneck", "4"],
    "full": ["--method", "full"],
}


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("base", ["llama-nano", "gpt2-nano"])
@pytest.mark.parametrize("method", METHODS)
def test_in_float64_both_implementations_walk_one_curve(method, base, tmp_path, capsys):
    (tmp_path / "text").write_text("ab" * 999)                                         # so that every batch is as hard as the last
    small = [tmp_path / "text" if word == "list-operations" else word for word in SMALL]
    options = ["--backend", "both", "--dtype", "float64", "--dropout", "0.1", "--lr", "0.02", "--accumulate", "2"]
    assert run("finetune", "--base", base, "--steps", 4, "--out", tmp_path / "run", *small, *options, *METHODS[method]) == cli.OK
    printed = capsys.readouterr().out
    assert "The curves lie on each other" in printed and "NOT what they were" not in printed
    records = metrics(tmp_path / "run")
    assert [record["step"] for record in records] == [1, 1, 2, 2, 3, 3, 4, 4]
    for one, other in zip(records[::2], records[1::2], strict=True):
        for name in ("loss", "grad_norm", "param_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-9, abs=0)
        assert one["loss_scale"] == 1.0
    assert records[-1]["loss"] < records[0]["loss"]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "full"])
@pytest.mark.parametrize("extra", [["--quantize", "nf4"], ["--quantize", "fp4", "--double", "--paged", "--block", "32"]])
def test_a_quantized_base_trains_the_same_in_both(method, extra, tmp_path, capsys):
    options = ["--backend", "both", "--dtype", "float64", *extra]
    assert run("finetune", "--base", "gpt2-nano", "--steps", 2, "--out", tmp_path / "run", *SMALL, *options, *METHODS[method]) == cli.OK
    assert "The curves lie on each other" in capsys.readouterr().out


@pytest.mark.parametrize("r", [4, 8, 16, 32])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_ship_run_with_each_rank(path, r, tmp_path):
    out = tmp_path / "run"
    assert run("finetune", "--config", path, "--base", "llama-nano", "--r", r, "--steps", 2, "--out", out, *SMALL) == cli.OK
    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == r and set(config["target_modules"]) == set(resolve(FinetuneConfig, path, base="llama-nano").targets)


def test_four_configurations_ship():
    assert [path.stem for path in CONFIGS] == ["lora_full_attention", "lora_minimal", "lora_mlp", "lora_standard"]


def test_the_commands_in_the_documents_are_commands():
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("docs/finetuning.md", "README.md")]
    shell = "\n".join(block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in shell.splitlines() if re.match(r"(\.venv/bin/)?byhand ", line)]
    assert len(commands) > 15
    for words in commands:
        if words[1] != "experiment":                                  # which registers its own only when it is asked for
            cli.app.parse_args(words[1:], exit_on_error=False, print_error=False)
            for word in words:
                assert not word.startswith("examples/") or (ROOT / word).is_file()


def test_defaults_then_the_file_then_the_command_line(tmp_path):
    (tmp_path / "c.yaml").write_text("base: llama-nano\nr: 3\nalpha: 6\nsteps: 2\nsave_every: 7\n")
    assert run("finetune", "--config", tmp_path / "c.yaml", "--r", 5, "--out", tmp_path / "run", *SMALL) == cli.OK
    kept = config_of_run(tmp_path / "run")
    assert (kept.r, kept.alpha, kept.steps, kept.save_every, kept.keep) == (5, 6.0, 2, 7, FinetuneConfig.keep)
    assert run("finetune", "--config", tmp_path / "run" / "config.json", "--out", tmp_path / "again") == cli.OK
    assert [record | {"seconds": 0} for record in metrics(tmp_path / "run")] == [
        record | {"seconds": 0} for record in metrics(tmp_path / "again")]
    assert config_of_run(tmp_path / "again") == FinetuneConfig(**kept.as_dict() | {"out": str(tmp_path / "again")})


def test_targets_are_the_users_or_the_methods(tmp_path):
    def trained(name, *options):
        assert run("finetune", "--base", "llama-nano", "--steps", 1, "--out", tmp_path / name, *SMALL, *options) == cli.OK
        arrays = checkpoint.load(checkpoint.latest(tmp_path / name / "checkpoints")).arrays["numpy-trained"]
        return {part for array in arrays for part in array.split(".") if part.endswith("_proj")}

    assert trained("lora") == {"q_proj", "v_proj"}
    assert trained("ia3", "--method", "ia3") == {"k_proj", "v_proj", "down_proj"}
    assert trained("ia3 chosen", "--method", "ia3", "--targets", "q_proj", "v_proj") == {"q_proj", "v_proj", "down_proj"}
    assert trained("bottleneck", "--method", "bottleneck") == {"o_proj", "down_proj"}
    assert trained("comma", "--targets", "q_proj,o_proj", "--exclude", "blocks.0.*.o_proj") == {"q_proj", "o_proj"}
    assert config_of_run(tmp_path / "ia3").targets is None and config_of_run(tmp_path / "comma").targets == ("q_proj", "o_proj")


def test_a_run_keeps_absolute_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("one two three four\n" * 200)
    options = [word for word in SMALL if word not in ("--text", "list-operations")]
    assert run("train", "--preset", "llama-nano", "--text", "words.txt", "--steps", 1, "--out", "base", *options) == cli.OK
    assert run("finetune", "--base", "base", "--text", "words.txt", "--steps", 2, "--out", "run", *options) == cli.OK
    before = {file.name: file.read_bytes() for file in Path("run/adapter").iterdir()}
    monkeypatch.chdir("/")
    assert run("finetune", "--resume", tmp_path / "run") == cli.OK
    assert {file.name: file.read_bytes() for file in (tmp_path / "run" / "adapter").iterdir()} == before


def test_the_loss_scale_of_a_power_of_two_changes_no_bit(tmp_path):
    for name, extra in (("one", []), ("scaled", ["--loss-scale", "1024"]), ("again", ["--recompute"])):
        assert run("finetune", "--base", "llama-nano", "--steps", 3, "--out", tmp_path / name, *SMALL, *extra) == cli.OK
    one, scaled, again = ((tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("one", "scaled", "again"))
    assert one == scaled == again and {record["loss_scale"] for record in metrics(tmp_path / "scaled")} == {1024.0}


@pytest.mark.parametrize(("budget", "most"), [("3000", 3000), ("2kB", 125), ("3%", 3560)])
def test_a_budget_is_kept(budget, most, tmp_path):
    base = ["--base", "llama-nano", "--targets", "q_proj" if budget == "2kB" else "all-linear"]
    code = run("finetune", *base, "--budget", budget, "--steps", 2, "--out", tmp_path / "run", *SMALL)
    if budget == "2kB":
        assert code == cli.WRONG_USAGE and not (tmp_path / "run").exists()
    else:
        assert code == cli.OK
        trained = checkpoint.load(checkpoint.latest(tmp_path / "run" / "checkpoints")).arrays["numpy-trained"]
        assert 0.5 * most < sum(array.size for array in trained.values()) <= most


def test_rank_zero_changes_nothing_and_says_so(tmp_path, capsys):
    assert run("finetune", "--base", "llama-nano", "--r", 0, "--steps", 2, "--out", tmp_path / "run", *SMALL) == cli.OK
    assert "every adapter has rank 0" in capsys.readouterr().out and not (tmp_path / "run" / "adapter").exists()


def test_adapters_in_bfloat16_hold_nothing_else(tmp_path):
    options = ["--adapter-dtype", "bfloat16", "--lr", "0.01"]
    assert run("finetune", "--base", "llama-nano", "--steps", 3, "--out", tmp_path / "run", *SMALL, *options) == cli.OK
    arrays = checkpoint.load(checkpoint.latest(tmp_path / "run" / "checkpoints")).arrays
    for name, array in arrays["numpy-trained"].items():
        assert array.any() and not (array.view(np.uint32) & 0xFFFF).any()          # the lower half of every float32
        assert (arrays["numpy-optimizer"][f"{name}.master"].view(np.uint32) & 0xFFFF).any()


def test_threads_are_the_runs_own_when_it_is_resumed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cli.blas, "threads", seen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run("finetune", "--base", "llama-nano", "--threads", 2, "--steps", 2, "--out", tmp_path / "run", *SMALL) == cli.OK
    assert run("finetune", "--resume", tmp_path / "run") == cli.OK
    assert seen == [2, 2]
    assert is_large("gpt2") and not is_large("llama-nano") and not is_large(str(tmp_path))
