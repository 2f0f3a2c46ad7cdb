"""What `byhand finetune` refuses: by name, with exit code 2, and before anything is written."""

import json
import math
import os
import shutil

import numpy as np
import pytest

from byhand import checkpoint, cli
from byhand.run_directory import load_weights, save_weights

SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--every", "100", "--text", __file__]


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    """The complaint of a command that must be refused."""
    capsys.readouterr()
    assert run(*arguments) == cli.WRONG_USAGE
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    return printed.err


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of four steps with two checkpoints."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run("finetune", "--base", "llama-nano", "--steps", 4, "--save-every", 2, "--out", out, *SMALL) == cli.OK
    return out


@pytest.fixture
def stopped(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


@pytest.mark.parametrize(("options", "complaint"), [
    (["--targets", "q_prj"], "'q_prj', which matches none (near: q_proj"),
    (["--targets", "q_proj", "wq"], "'wq', which matches none"),
    (["--method", "ia3", "--targets", "k_prj"], "near: "),
    (["--method", "bottleneck", "--targets", "o_prj"], "near: "),
    (["--exclude", "*_proj"], "got "),
    (["--layers", "7"], "layers among [0, 1]"),
    (["--rank-pattern.foo", "3"], "pattern keys that match a target; got 'foo'"),
    (["--r", "-1"], "r as an integer >= 0; got r=-1"),
    (["--alpha", "0"], "alpha > 0 and finite"),
    (["--alpha", "nan"], "alpha > 0 and finite"),
    (["--block", "0"], "block as an integer >= 1; got block=0"),
    (["--quantize", "nf4", "--block", "-64"], "block as an integer >= 1; got block=-64"),
    (["--quantize", "nf5"], 'Did you mean "nf4"'),
    (["--method", "full", "--quantize", "nf4"], "4-bit weights do not train"),
    (["--method", "ia3", "--budget", "5%"], "method 'lora' for a budget"),
    (["--budget", "lots"], "a budget such as '20000 parameters'"),
    (["--budget", "5 parameters"], "at least"),
    (["--start", "loftq", "--quantize", "nf4"], "quantize 'none' for start 'loftq'"),
    (["--start", "pissa", "--adapter-dtype", "bfloat16"], "adapter_dtype 'float32' for start 'pissa'"),
    (["--method", "prefix", "--adapter-dtype", "bfloat16"], "method 'lora' for adapters in bfloat16"),
    (["--lora-plus", "0"], "lora_plus > 0"),
    (["--adapter-dropout", "1.5"], "adapter_dropout in [0, 1]"),
    (["--method", "prompt", "--length", "128"], "length <= 120, the longest sequence of the base, behind 8 virtual tokens"),
    (["--method", "prompt", "--virtual-tokens", "128"], "length <= 0"),
    (["--length", "1000"], "length <= 128, the longest sequence of the base"),
    (["--stpes", "3"], "Did you mean --steps"),
    (["--device", "cuda"], "device 'cpu' for the numpy backend"),
    (["--text", "/no/such"], "a file or a directory that exists"),
    (["--base", "llama-nan"], "did you mean 'llama-nano'?"),
    (["--base", os.path.dirname(__file__)], "a directory without one"),
    (["--config", "/no/such.yaml"], "No such file"),
    (["--save-every", "0"], "save_every as an integer >= 1"),
])
def test_an_option_that_will_not_do(options, complaint, tmp_path, capsys):
    given = {"--base": "llama-nano", "--steps": "1", "--out": str(tmp_path / "run")}
    pairs = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | given
    words = [word for pair in pairs.items() if pair[0] not in options for word in pair]
    assert complaint in refused(capsys, "finetune", *words, *options).replace("\n", " ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "complaint"), [
    ("lr: 1e-4", "YAML takes 1e-4 for text; write 1.0e-4"),
    ("lr: '1.0e-4'", "lr > 0 and finite; got lr='1.0e-4'"),
    ("targets: [q_proj", "line "),
    ("r: 3\nr: 4", "line 2: 'r' is given a second time, first in line 1"),
    ("rank_pattern: {q_proj: 3, q_proj: 4}", "given a second time"),
    ("rr: 3", "unknown option 'rr' (did you mean 'r'?)"),
    ("learning_rate: 3", "unknown option 'learning_rate'"),
    ("r: x", "r as an integer >= 0"),
    ("r: true", "r as an integer >= 0"),
    ("steps: 2.5", "steps as an integer >= 1"),
    ("targets: 5", "targets as a list of names"),
    ("targets: 2.5", "targets as a list of names"),
    ("targets: {q_proj: 3}", "targets as a list of names"),
    ("exclude:", "exclude as a list of names"),
    ("layers: 2.5", "layer as an integer >= 0"),
    ("layers: [0, x]", "layer as an integer >= 0"),
    ("dora: 1", "dora as true or false"),
    ("rank_pattern: [3]", "rank_pattern as a dict"),
    ("method: lor", "did you mean 'lora'?"),
    ("- lr", "names and values"),
    ("lr: 1.0\n---\nlr: 2.0", "another document"),
    ("lr: !!python/object:os.system {}", "tag"),
])
def test_a_file_that_will_not_do(text, complaint, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(text)
    given = ["--config", tmp_path / "c.yaml", "--base", "llama-nano", "--out", tmp_path / "run"]
    assert complaint in refused(capsys, "finetune", *given)
    assert not (tmp_path / "run").exists()


def test_without_a_base_it_says_what_one_is(capsys):
    assert "--base: the directory of a `byhand train`" in refused(capsys, "finetune")


def test_a_directory_that_holds_a_run_is_left_alone(kept, capsys):
    before = (kept / "metrics.jsonl").read_bytes()
    assert "already holds one" in refused(capsys, "finetune", "--base", "llama-nano", "--out", kept, *SMALL)
    assert (kept / "metrics.jsonl").read_bytes() == before


def test_resuming_takes_no_other_options(stopped, capsys):
    assert "--resume without other options" in refused(capsys, "finetune", "--resume", stopped, "--steps", 9)


@pytest.mark.parametrize("where", ["/no/such/run", os.path.dirname(__file__)])
def test_what_is_no_run_is_not_resumed(where, capsys):
    assert "the directory of a run" in refused(capsys, "finetune", "--resume", where)


def test_a_run_without_a_configuration_says_begin_anew(stopped, capsys):
    (stopped / "config.json").unlink()
    assert "remove it, and begin anew" in refused(capsys, "finetune", "--resume", stopped)


def test_a_run_that_met_nothing_yet_begins_with_its_configuration(stopped, kept):
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "about.json").unlink()
    assert run("finetune", "--resume", stopped) == cli.OK
    assert (stopped / "about.json").read_bytes() == (kept / "about.json").read_bytes()
    assert (stopped / "adapter" / "adapter_model.safetensors").read_bytes() == (kept / "adapter" / "adapter_model.safetensors").read_bytes()


def test_checkpoints_without_what_they_stood_on_are_not_resumed(stopped, capsys):
    (stopped / "about.json").unlink()
    assert "about.json, which tells what the run began with" in refused(capsys, "finetune", "--resume", stopped)


@pytest.mark.parametrize("name", ["config.json", "about.json"])
def test_json_that_is_cut_short(name, stopped, capsys):
    (stopped / name).write_text((stopped / name).read_text()[:-20])
    assert name in refused(capsys, "finetune", "--resume", stopped)


@pytest.mark.parametrize("file", ["numpy-trained.safetensors", "numpy-optimizer.safetensors", "progress.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_is_named_and_its_way_out_is_told(file, harm, stopped, capsys):
    path = stopped / "checkpoints" / "step-000004" / file
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 4
    path.write_bytes(content[:-3] if harm == "cut" else content)
    if harm == "gone":
        path.unlink()
    metrics = (stopped / "metrics.jsonl").read_bytes()
    complaint = refused(capsys, "finetune", "--resume", stopped)
    assert file in complaint and "step-000004 to go on from step-000002" in complaint.replace("\n", " ")
    assert (stopped / "metrics.jsonl").read_bytes() == metrics
    shutil.rmtree(path.parent)
    assert run("finetune", "--resume", stopped) == cli.OK


def test_another_text_is_not_gone_on_with(tmp_path, capsys):
    text, options = tmp_path / "words.txt", [word for word in SMALL if word not in ("--text", __file__)]
    text.write_text("one two three four\n" * 200)
    assert run("finetune", "--base", "llama-nano", "--steps", 2, "--text", text, "--out", tmp_path / "run", *options) == cli.OK
    text.write_text("one two three five\n" * 200)
    assert "the text that the run began with" in refused(capsys, "finetune", "--resume", tmp_path / "run")


def test_another_base_is_not_gone_on_with(tmp_path, capsys):
    base = tmp_path / "base"
    train = ["--preset", "llama-nano", "--text", __file__, "--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0"]
    assert run("train", *train, "--steps", 1, "--out", base) == cli.OK
    assert run("finetune", "--base", base, "--steps", 2, "--out", tmp_path / "run", *SMALL) == cli.OK
    weights = load_weights(base / "numpy-best.safetensors")
    weights["norm.weight"][0] = np.nextafter(weights["norm.weight"][0], 2)                   # by one bit
    save_weights(base / "numpy-best.safetensors", weights)
    assert "the base that the run began with" in refused(capsys, "finetune", "--resume", tmp_path / "run")
    assert "the base that" in refused(capsys, "generate", "--adapter", tmp_path / "run")
    shutil.rmtree(base)
    assert "a model's directory with its config.json" in refused(capsys, "finetune", "--resume", tmp_path / "run")


def test_a_loss_that_is_not_finite_leaves_the_last_checkpoint(tmp_path, capsys, monkeypatch):
    from numpy_impl.models.llama import Llama

    real, calls = Llama.loss, []

    def loss(self, *args, **options):
        value, backward = real(self, *args, **options)
        calls.append(options.get("run"))
        return (value * math.nan if calls.count("keep") == 4 else value), backward

    monkeypatch.setattr(Llama, "loss", loss)
    out = tmp_path / "run"
    assert run("finetune", "--base", "llama-nano", "--steps", 9, "--save-every", 2, "--out", out, *SMALL) == cli.FAILED
    said = " ".join(capsys.readouterr().err.split())
    assert "before the update of step 3: the loss is not finite" in said and f"byhand finetune --resume {out}" in said
    assert checkpoint.latest(out / "checkpoints").name == "step-000002" and not (out / "adapter").exists()
    monkeypatch.undo()
    assert run("finetune", "--resume", out) == cli.OK


def test_weights_that_are_not_finite_are_not_quantized(tmp_path, capsys):
    base = tmp_path / "base"
    train = ["--preset", "llama-nano", "--text", __file__, "--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0"]
    assert run("train", *train, "--steps", 1, "--out", base) == cli.OK
    weights = load_weights(base / "numpy-best.safetensors")
    weights["blocks.1.mlp.up_proj.weight"][2, 3] = np.nan
    save_weights(base / "numpy-best.safetensors", weights)
    said = refused(capsys, "finetune", "--base", base, "--quantize", "nf4", "--out", tmp_path / "run", *SMALL)
    assert "finite" in said and "up_proj" in said and not (tmp_path / "run").exists()
    said = refused(capsys, "quantize", base, "--out", tmp_path / "small")
    assert "finite" in said and "up_proj" in said and not (tmp_path / "small").exists()


def test_metrics_are_whole_lines(stopped):
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "back')
    assert run("finetune", "--resume", stopped) == cli.OK
    assert [json.loads(line)["step"] for line in (stopped / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def test_interrupted_it_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    from byhand.commands.display import Display

    def step(self, together, routings=()):
        if together[0].step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Display, "step", step)
    out = tmp_path / "run"
    assert run("finetune", "--base", "llama-nano", "--steps", 4, "--save-every", 2, "--out", out, *SMALL) == cli.INTERRUPTED
    assert f"byhand finetune --resume {out}" in " ".join(capsys.readouterr().err.split())
    monkeypatch.undo()
    assert run("finetune", "--resume", out) == cli.OK
