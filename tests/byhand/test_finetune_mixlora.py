"""`byhand finetune --method mixlora`: both implementations, quantized bases, resuming, generating with experts in files, and refusals."""

import json
import re
import shutil
from pathlib import Path

import pytest

from byhand import checkpoint, cli
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.expert_files import ExpertFiles
from byhand.run_config import resolve

MIXLORA = {"--base": "llama-nano", "--method": "mixlora", "--experts": "4", "--r": "2", "--batch": "2", "--length": "16", "--lr": "0.1",
           "--validation-batches": "1", "--sample": "0", "--every": "100", "--text": __file__}


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def mixlora(*more):
    """The words of a run with these options besides, or instead."""
    return ["finetune", *(word for pair in MIXLORA.items() if pair[0] not in more for word in pair), *more]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run that has ended, with attention adapted too."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run(*mixlora("--steps", 6, "--lr", "0.5", "--text", "list-operations", "--targets", "q_proj", "--out", out)) == cli.OK
    return out


@pytest.mark.parametrize("extra", [
    ["--adapter-dropout", "0.2", "--dropout", "0.1", "--accumulate", "2", "--targets", "q_proj", "v_proj"],
    ["--quantize", "nf4", "--top-k", "3", "--balance", "0.1", "--recompute"],
    ["--experts", "1", "--top-k", "1", "--rslora", "--lora-plus", "4"],
], ids=lambda extra: " ".join(extra).replace("--", ""))
def test_in_float64_both_implementations_walk_one_curve(extra, tmp_path, capsys):
    assert run(*mixlora("--steps", 3, "--backend", "both", "--dtype", "float64", "--out", tmp_path / "run", *extra)) == cli.OK
    printed = capsys.readouterr().out
    assert "The curves lie on each other" in printed and "to the bit" in printed and "NOT what they were" not in printed
    first, second = (ExpertFiles(tmp_path / "run" / name) for name in ("adapter", "adapter-torch"))
    assert first.config == second.config and first.layers == ("blocks.0.mlp", "blocks.1.mlp")


def test_the_balance_loss_is_part_of_what_is_trained(tmp_path):
    losses = []
    for balance in ("0", "1"):
        assert run(*mixlora("--steps", 1, "--balance", balance, "--out", tmp_path / balance)) == cli.OK
        losses.append(json.loads((tmp_path / balance / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert losses[1] - losses[0] >= 0.99 * 2 * 2               # two layers, and k for each whose experts are equally busy


def test_the_configuration_that_ships_runs(tmp_path):
    file = Path(__file__).resolve().parent.parent.parent / "examples" / "configs" / "mixlora.yaml"
    small = [word for name in ("--base", "--batch", "--length", "--validation-batches", "--sample") for word in (name, MIXLORA[name])]
    assert run("finetune", "--config", file, *small, "--steps", 1, "--out", tmp_path / "run") == cli.OK
    assert ExpertFiles(tmp_path / "run" / "adapter").config == resolve(FinetuneConfig, file, base="llama-nano").mixlora


def everything(run_):
    newest = checkpoint.latest(run_ / "checkpoints")
    assert newest is not None
    latest = checkpoint.load(newest)
    arrays = {f"{group}/{name}": array.tobytes() for group, members in latest.arrays.items() for name, array in members.items()}
    log = [json.loads(line) | {"seconds": None} for line in (run_ / "metrics.jsonl").read_text().splitlines()]
    return arrays, log, {path.name: path.read_bytes() for path in (run_ / "adapter").iterdir()}


@pytest.mark.parametrize("extra", [["--adapter-dropout", "0.1", "--paged"], ["--backend", "torch", "--quantize", "nf4"]],
                         ids=lambda extra: " ".join(extra).replace("--", ""))
def test_from_the_checkpoint_before_the_last_it_ends_with_the_same_bits(extra, tmp_path):
    out = tmp_path / "run"
    assert run(*mixlora("--steps", 5, "--save-every", 2, "--out", out, *extra)) == cli.OK
    before = everything(out)
    shutil.rmtree(out / "checkpoints" / "step-000005")
    (out / "adapter" / "blocks.1.mlp.expert-002.safetensors").unlink()
    assert run("finetune", "--resume", out) == cli.OK
    assert everything(out) == before


def said(capsys, *arguments):
    capsys.readouterr()
    assert run("generate", *arguments, "--count", 12, "--compare") == cli.OK
    printed = capsys.readouterr().out
    return re.findall(r"^  \| ([^\n]*)", printed, re.MULTILINE), printed


def test_generating_holds_no_more_experts_than_allowed(tuned, tmp_path, capsys):
    (base, adapted), printed = said(capsys, "--adapter", tuned)
    assert base != adapted and "8 files of experts" in printed
    one = sum(array.nbytes for array in ExpertFiles(tuned / "adapter")("blocks.0.mlp", 0).values())
    (_, little), printed = said(capsys, "--adapter", tuned, "--expert-memory", f"{2 * one}B")
    assert little == adapted and f"{2 * one:,} bytes of them at once" in printed
    assert said(capsys, "llama-nano", "--adapter", tuned / "adapter")[0] == [base, adapted]
    shutil.rmtree((stopped := shutil.copytree(tuned, tmp_path / "stopped")) / "adapter")
    assert said(capsys, "--adapter", stopped)[0] == [base, adapted]                           # from its checkpoint


def refused(capsys, *arguments):
    capsys.readouterr()
    assert run(*arguments) == cli.WRONG_USAGE
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    return " ".join(printed.err.split())


@pytest.mark.parametrize(("options", "complaint"), [
    (["--top-k", "5"], "k <= n_experts"),
    (["--experts", "0"], "n_experts as an integer >= 1"),
    (["--balance", "-1"], "balance in [0, 1e+09]"),
    (["--r", "0"], "r as an integer >= 1"),
    (["--targets", "up_proj"], "attention targets outside the feed-forward layers"),
    (["--targets", "q_prj"], "near: q_proj"),
    (["--targets", "all-linear"], "targets by name for method 'mixlora'"),
    (["--base", "gpt2-nano"], "a model with gated feed-forward layers"),
    (["--base", "mixtral-nano"], "a model whose feed-forward layers have no experts; got experts ['blocks.0.mlp"),
    (["--base", "deepseek-nano"], "a model whose feed-forward layers have no experts; got experts ['blocks.1.mlp']"),
    (["--dora"], "dora False for method 'mixlora'"),
    (["--start", "pissa"], "start 'kaiming' for method 'mixlora'"),
    (["--budget", "5%"], "method 'lora' for a budget"),
])
def test_an_option_that_will_not_do(options, complaint, tmp_path, capsys):
    assert complaint in refused(capsys, *mixlora("--steps", 1, "--out", tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


def test_what_generate_and_merge_refuse(tuned, tmp_path, capsys):
    for amount in ("5%", "lots", "64"):
        complaint = refused(capsys, "generate", "--adapter", tuned, "--expert-memory", amount)
        assert "generate needs expert_memory as a number of bytes, 64MB say; got " in complaint and f"'{amount}'" in complaint
    assert "memory for an expert" in refused(capsys, "generate", "--adapter", tuned, "--expert-memory", "10B")
    assert "an adapter of MixLoRA" in refused(capsys, "generate", "llama-nano", "--expert-memory", "5MB")
    for options in (["--backend", "torch"], ["--dtype", "float64"]):
        assert "--backend numpy in float32 for an adapter of MixLoRA" in refused(capsys, "generate", "--adapter", tuned, *options)
    for adapter in (tuned, tuned / "adapter"):
        complaint = refused(capsys, "merge", "llama-nano", "--adapter", adapter, "--out", tmp_path / "merged")
        assert "LoRA, which can be added into weights" in complaint
    spoilt = shutil.copytree(tuned, tmp_path / "spoilt")
    (spoilt / "adapter" / "blocks.1.mlp.expert-002.safetensors").unlink()
    complaint = refused(capsys, "generate", "--adapter", spoilt)
    assert "blocks.1.mlp.expert-002.safetensors" in complaint and "adapter; got none of that name" in complaint
