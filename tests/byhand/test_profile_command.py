"""`byhand profile`: tables, files and refusals."""

import json
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest

from byhand import cli

QUICK = ["--runs", "2", "--warmup", "1"]
STEP = ["--batch", "2", "--length", "8", *QUICK]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def profile(*arguments):
    return cli.main(["profile", *map(str, arguments)])


def table_of(printed, title):
    """name -> the cells behind it, of the lines below the title up to an empty one."""
    lines = printed.split(title, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return {cells[0].strip(): cells[1:] for cells in (re.split(r"  +", line.rstrip()) for line in lines if line.strip())}


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_step_is_told_in_a_table_and_drawn(here, capsys, backend):
    trace = ["--trace", "new/trace.json"] * (backend == "torch")
    assert profile("step", "gpt2-nano", "--backend", backend, "--out", "a/flame.svg", "--out", "flame.json", "--out", "flame.folded",
                   "--json", "numbers.json", "--rows", 8, *STEP, *trace) == 0
    printed = capsys.readouterr()
    assert "2 × 8 tokens" in printed.err and "Traceback" not in printed.err

    told = json.loads((here / "numbers.json").read_text())
    assert sum(row["self_ms"] for row in told["components"]) == pytest.approx(told["total_ms"], rel=1e-9)
    by_name = {f"{row['name']} {row['phase'] or ''}".strip(): row for row in told["components"]}
    for name in ("ops.linear", "ops.layer_norm", "attention.scaled_dot_product", "layers.Block", "models.GPT2", "ops.dropout"):
        forward, backward = by_name[f"{name} forward"], by_name[f"{name} backward"]
        assert 0 < forward["self_ms"] <= forward["total_ms"] and 0 <= backward["self_ms"] <= backward["total_ms"]
        assert forward["peak_bytes"] >= 0
    assert by_name["train.train_step"]["calls"] == by_name["optim.AdamW"]["calls"] == 1
    assert by_name["layers.Block forward"]["calls"] == by_name["layers.Block backward"]["calls"] == 2
    assert told["peak_bytes"] > 100_000 and told["plain_ms"] > 0 and told["watched_ms"] > 0
    assert bool(told["operators"]) == (backend == "torch")

    shown = table_of(printed.out, "A step by component")
    assert len(shown) == 8 + 2                              # the rows asked for, the others, and the sum
    assert list(shown)[:8] == [f"{row['name']} {row['phase'] or ''}".strip() for row in told["components"]][:8]
    assert shown["all"][2] == "100.0%"
    assert re.search(r"A plain step took [\d.,]+ ms, a watched one [\d.,]+ ms \([+-]\d+%\)", printed.out)
    assert "aten::mm" in [row["name"] for row in told["operators"]] or backend == "numpy"
    assert ("PyTorch's operators" in printed.out) == (backend == "torch")

    boxes = ElementTree.parse(here / "a" / "flame.svg").getroot().findall("{http://www.w3.org/2000/svg}svg")
    assert len(boxes) > 20
    (sampled,) = json.loads((here / "flame.json").read_text())["profiles"]
    assert sum(sampled["weights"]) == pytest.approx(told["total_ms"] * 1e6, rel=1e-9)
    assert all(re.fullmatch(r"step(;[\w.:# /]+)* \d+", line) for line in (here / "flame.folded").read_text().splitlines())
    if backend == "torch":
        names = {event.get("name") for event in json.loads((here / "new" / "trace.json").read_text())["traceEvents"]}
        assert {"ops.linear forward", "aten::addmm", "step"} <= names


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_generation_by_component(here, capsys, backend):
    assert profile("generate", "gpt2-nano", "def f(", "--max-new-tokens", 5, "--backend", backend, "--json", "n.json", *QUICK) == 0
    printed = capsys.readouterr()
    assert "6 tokens read, 5 written" in printed.out and "A generation by component" in printed.out
    calls = {(row["name"], row["phase"]): row["calls"] for row in json.loads((here / "n.json").read_text())["components"]}
    assert calls["decode.generate", None] == 1 and calls["decode.process", None] == 5
    assert calls["layers.Block", "forward"] == 5 * 2 and not any(phase == "backward" for _, phase in calls)
    assert (here / "profile.svg").is_file()


def test_a_generation_takes_the_options_of_generate(here, capsys):
    assert profile("generate", "gpt2-nano", "ab", "--count", 3, "--beams", 2, "--json", "n.json", *QUICK) == 0
    rows = {row["name"] for row in json.loads((here / "n.json").read_text())["components"]}
    assert "decode.beam_search" in rows and "decode.generate" not in rows


def test_a_run_directory_is_a_model(here, capsys):
    text = here / "text.txt"
    text.write_text("def add(a, b):\n    return a + b\n" * 60)
    assert cli.main(["train", "--text", str(text), "--preset", "gpt2-nano", "--out", "run", "--steps", "1", "--batch", "2", "--length", "8",
                     "--validation-batches", "1", "--sample", "0"]) == 0
    before = {file.name: file.read_bytes() for file in (here / "run").iterdir()}
    assert profile("step", "run", "--rows", 3, *STEP) == 0
    assert "run/numpy-best.safetensors" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in (here / "run").iterdir()} == before


@pytest.mark.parametrize("arguments, complaint", [
    (["step", "gpt2-nan"], "did you mean 'gpt2-nano'"),
    (["step", "minilm"], "preset"),
    (["step", "gpt2-nano", "--length", "129"], "length <= 128"),
    (["step", "gpt2-nano", "--batch", "0"], "batch as an integer >= 1"),
    (["step", "gpt2-nano", "--runs", "0"], "runs as an integer >= 1"),
    (["step", "gpt2-nano", "--warmup", "-1"], "warmup as an integer >= 0"),
    (["step", "gpt2-nano", "--dropout", "1.5"], "dropout"),
    (["step", "gpt2-nano", "--threads", "0"], "threads as an integer >= 1"),
    (["step", "gpt2-nano", "--out", "flame.png"], ".svg"),
    (["step", "gpt2-nano", "--out", "."], ".svg"),
    (["step", "gpt2-nano", "--out", "file/flame.svg"], "in directories"),
    (["step", "gpt2-nano", "--out", "a.json", "--json", "a.json"], "a file of its own"),
    (["step", "gpt2-nano", "--json", "folder"], "files to write to"),
    (["step", "gpt2-nano", "--trace", "t.json"], "--backend torch for a --trace"),
    (["step", "gpt2-nano", "--device", "cuda"], "--backend torch for another device"),
    (["generate", "gpt2-nano", ""], "a prompt of at least one byte"),
    (["generate", "gpt2-nano", "x", "--count", "0"], "count as an integer >= 1"),
    (["generate", "gpt2-nano", "x", "--temperature", "-1"], "temperature"),
    (["generate", "nothing-like-it", "x"], "preset"),
    (["generate", "gpt2-nano", "x", "--compare"], "compare"),
    (["stepp"], "stepp"),
])
def test_what_will_not_do_is_told_in_a_line_before_anything_is_written(here, capsys, arguments, complaint):
    (here / "file").write_text("")
    (here / "folder").mkdir()
    assert profile(*arguments) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err and "Traceback" not in printed.err and not printed.out
    assert sorted(file.name for file in here.iterdir()) == ["file", "folder"]


def test_a_model_that_tells_no_next_token_has_no_such_step(here, capsys):
    transformers = pytest.importorskip("transformers")
    tiny = dict(vocab_size=256, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.BertForMaskedLM(transformers.BertConfig(**tiny)).save_pretrained("bert")
    assert profile("step", "bert", *STEP) == 2
    assert "a model that tells the next token" in capsys.readouterr().err


def test_ctrl_c_ends_it_and_leaves_nothing(here):
    command = [sys.executable, "-m", "byhand", "profile", "step", "gpt2-nano", "--runs", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "runs to warm up" in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err and not out
    assert not list(here.iterdir())
