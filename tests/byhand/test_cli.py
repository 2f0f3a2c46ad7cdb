"""The command line: what it prints where, what it leaves behind, and how it ends."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from byhand import cli
from byhand.run_directory import load_weights

SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "8", "--every", "1"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("def add(a, b):\n    return a + b\n" * 60)
    return path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def losses(printed):
    return {int(step): [float(v) for v in rest.split()] for step, rest in re.findall(r"^ +(\d+)((?: +[-+\d.e]+)+)$", printed, re.MULTILINE)}


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_with_both_prints_them_side_by_side_and_leaves_everything(tmp_path, text, capsys):
    out = tmp_path / "run"
    assert run("train", "--backend", "both", "--text", text, "--out", out, "--steps", 5, "--validate-every", 2, *SMALL) == 0
    printed = capsys.readouterr()
    table = losses(printed.out)
    assert list(table) == [1, 2, 3, 4, 5] and all(len(row) == 3 for row in table.values())
    assert all(abs(row[0] - row[1]) <= 1e-4 and row[2] <= 1e-4 for row in table.values())
    assert "Traceback" not in printed.err and "step 5 of 5" in printed.err and "step 5 of 5" not in printed.out
    samples = re.findall(r"(\w+) continues 'def ':\n((?:  \| .*\n)+)", printed.out)
    assert [name for name, _ in samples] == ["numpy", "torch"]
    assert "They are equal" in printed.out or "They part" in printed.out

    assert sorted(file.name for file in out.iterdir()) == [
        "about.json", "config.json", "losses.png", "metrics.jsonl",
        "numpy-best.safetensors", "numpy-last.safetensors", "torch-best.safetensors", "torch-last.safetensors",
    ]
    assert (out / "losses.png").read_bytes().startswith(b"\x89PNG")
    records = metrics(out)
    assert [(r["step"], r["backend"]) for r in records] == [(step, name) for step in range(1, 6) for name in ("numpy", "torch")]
    for record in records:
        assert record.keys() == {
            "step", "backend", "loss", "lr", "grad_norm", "param_norm", "loss_scale", "tokens", "seconds", "tokens_per_second",
                "validation",
        }
        assert (record["validation"] is not None) == (record["step"] in (2, 4, 5)) and record["tokens"] == 32
    one, other = load_weights(out / "numpy-last.safetensors"), load_weights(out / "torch-last.safetensors")
    assert one.keys() == other.keys() and all(one[name].shape == other[name].shape for name in one)

    again = tmp_path / "again"                              # the resolved configuration is a configuration
    assert run("train", "--config", out / "config.json", "--out", again) == 0
    assert [r["loss"] for r in metrics(again)] == [r["loss"] for r in records]


def test_in_float64_the_curves_agree(tmp_path, text, capsys):
    out = tmp_path / "run"
    assert run("train", "--backend", "both", "--dtype", "float64", "--text", text, "--out", out, "--steps", 10, *SMALL) == 0
    records = metrics(out)
    for one, other in zip(records[::2], records[1::2], strict=True):
        for name in ("loss", "grad_norm", "param_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-9, abs=0)
    assert "lie on each other" in capsys.readouterr().out


@pytest.mark.slow
def test_in_float64_the_curves_agree_for_a_hundred_steps_and_the_loss_falls(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "byhand", "train", "--backend", "both", "--dtype", "float64", "--out", str(out), "--batch", "12"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    records = metrics(out)
    one, other = ([r["loss"] for r in records if r["backend"] == name] for name in ("numpy", "torch"))
    assert len(one) == 100 and max(abs(a - b) for a, b in zip(one, other, strict=True)) <= 1e-9
    assert one[-1] < 0.6 * one[0]
    assert "They are equal because" in printed
    samples = re.findall(r"continues 'def ':\n((?:  \| .*\n)+)", printed)
    assert samples[0] == samples[1]


def test_recompute_changes_no_bit_of_a_run(tmp_path, text):
    for name, extra in (("kept", []), ("again", ["--recompute"])):
        assert run("train", "--text", text, "--out", tmp_path / name, "--steps", 3, *SMALL, *extra) == 0
    kept, again = (load_weights(tmp_path / name / "numpy-last.safetensors") for name in ("kept", "again"))
    assert all(np.array_equal(kept[name], again[name]) for name in kept)
    assert [r["loss"] for r in metrics(tmp_path / "kept")] == [r["loss"] for r in metrics(tmp_path / "again")]


def test_the_best_weights_stay_when_the_last_are_worse(tmp_path, text, monkeypatch):
    from numpy_impl.train import loop

    heights = iter([2.0, 1.0, 3.0])
    monkeypatch.setattr(loop, "evaluate", lambda model, batches: next(heights))
    assert run("train", "--text", text, "--out", tmp_path / "run", "--steps", 3, "--validate-every", 1, *SMALL) == 0
    best = (tmp_path / "run" / "numpy-best.safetensors").read_bytes()
    assert b'"validation":"1.0"' in best and b'"step":"2"' in best
    assert b'"step":"3"' in (tmp_path / "run" / "numpy-last.safetensors").read_bytes()


def test_a_loss_that_is_not_finite_ends_with_1_and_the_weights_before_it(tmp_path, text, capsys, monkeypatch):
    from numpy_impl.models.gpt2 import GPT2

    real, calls = GPT2.loss, []

    def loss(self, *args, **options):
        value, backward = real(self, *args, **options)
        calls.append(options.get("run"))
        return (value * math.nan if calls.count("keep") == 3 else value), backward

    monkeypatch.setattr(GPT2, "loss", loss)
    out = tmp_path / "run"
    assert run("train", "--text", text, "--out", out, "--steps", 9, *SMALL) == 1
    assert f"before the update of step 2: the loss is not finite. The weights before it are in {out}." in capsys.readouterr().err
    assert len(metrics(out)) == 2
    assert all(np.isfinite(array).all() for array in load_weights(out / "numpy-last.safetensors").values())


def test_curves_that_part_end_with_1(tmp_path, text, capsys, monkeypatch):
    from byhand.commands import history

    monkeypatch.setattr(history, "PROMISED_FLOAT32", -1.0)
    assert run("train", "--backend", "both", "--text", text, "--out", tmp_path / "run", "--steps", 1, *SMALL) == 1
    assert "PART at the first step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["trian"], 'Did you mean "train"'),
        (["train", "--stpes", "3"], 'Did you mean "?--steps'),
        (["train", "--steps", "three"], 'unable to convert "three" into int'),
        (["train", "--steps", "0"], "steps as an integer >= 1; got steps=0"),
        (["train", "--backend", "jax"], 'Choose from: "numpy", "torch", "both"'),
        (["train", "stray"], "stray"),
        (["train", "--text", "/no/such/text"], "a file or a directory that exists"),
        (["train", "--text", os.devnull], "holds no files of text|directories that can be read"),
        (["train", "--config", "/no/such.json"], "No such file"),
        (["train", "--preset", "gpt2-1n"], "did you mean 'gpt2-1m'"),
        (["train", "--length", "100000"], "the longest sequence of gpt2-1m"),
        (["train", "--device", "cuda"], "device 'cpu' for the numpy backend"),
        (["train", "--dropout", "1.5"], r"dropout in \[0, 1\]"),
        (["train", "--out", os.devnull], "a directory it can write to"),
    ],
)
def test_wrong_usage_ends_with_2(arguments, complaint, capsys):
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert re.search(complaint, printed.err) and printed.out == ""
    assert printed.err.startswith("byhand: ") and "Traceback" not in printed.err


def test_a_text_too_short_is_refused_before_anything_is_made(tmp_path, capsys):
    (tmp_path / "short").write_text("x" * 40)
    assert run("train", "--text", tmp_path / "short", "--out", tmp_path / "run") == 2
    assert "a text of more than" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_an_unknown_key_of_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "run.json").write_text('{"step": 3}')
    assert run("train", "--config", tmp_path / "run.json") == 2
    assert "did you mean 'steps'" in capsys.readouterr().err


def test_without_torch_numpy_trains_and_the_others_say_what_is_missing(tmp_path, text, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("train", "--text", text, "--out", tmp_path / "run", "--steps", 1, *SMALL) == 0
    assert run("train", "--backend", "both", "--text", text, "--out", tmp_path / "two", "--steps", 1, *SMALL) == 2
    assert "pip install 'byhand[torch]'" in capsys.readouterr().err


def test_without_matplotlib_everything_but_the_figure_is_there(tmp_path, text, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run("train", "--text", text, "--out", tmp_path / "run", "--steps", 1, *SMALL) == 0
    assert "pip install 'byhand[plot]'" in capsys.readouterr().out
    assert not (tmp_path / "run" / "losses.png").exists() and (tmp_path / "run" / "numpy-best.safetensors").exists()


def test_version_and_help(capsys):
    assert run("--version") == 0
    assert re.match(r"byhand[ ,]", capsys.readouterr().out)
    assert run("train", "--help") == 0
    printed = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "--steps INT" in printed and "Default: 100." in printed and "--no-recompute" in printed
    assert run() == 0


def test_the_command_does_not_import_numpy_before_it_chose_the_kernels():
    code = "import sys, byhand.cli; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_or_killed_run_leaves_whole_weights(tmp_path, text, sent, code):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "byhand", "train", "--text", text, "--out", out, "--steps", "1000000", "--validate-every", "1", *SMALL]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "numpy-best.safetensors").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err
    assert sent != signal.SIGINT or err.endswith(f"byhand: interrupted. What was saved last is whole, in {out}.\n")
    assert len(load_weights(out / "numpy-last.safetensors")) == len(load_weights(out / "numpy-best.safetensors")) > 5
    assert json.loads((out / "config.json").read_text())["steps"] == 1000000
    for line in (out / "metrics.jsonl").read_text().split("\n")[:-1]:   # only the last can be cut short
        assert json.loads(line)["loss"] > 0


def test_what_nobody_reads_on_is_no_error(text, tmp_path):
    command = [sys.executable, "-m", "byhand", "train", "--text", text, "--out", tmp_path / "run", "--steps", "200", *SMALL]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode in (0, 1) and b"Traceback" not in err and b"Exception ignored" not in err
