"""`byhand finetune` killed at any moment: what is resumed ends with the bits of a run that was left alone."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from byhand import checkpoint, cli

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and fork")
RUN = ["finetune", "--base", "llama-nano", "--text", __file__, "--batch", "2", "--length", "16", "--adapter-dropout", "0.1",
       "--save-every", "2", "--validate-every", "4", "--validation-batches", "1", "--sample", "0", "--every", "100"]
# A process that has imported everything already forks one child a line; a line is [arguments, seconds until SIGKILL or None, call at which
# the child kills itself or None], and is answered by [return code, what was said].
SERVER = """
import json, os, pathlib, signal, sys, tempfile, time
import byhand.commands.finetune, byhand.hugging_face.adapter, numpy_impl.models.llama, numpy_impl.finetune.manager
import numpy_impl.optim.paged_adamw, numpy_impl.optim.master_weights, numpy_impl.train.loop, numpy_impl.optim.warmup_schedules
import matplotlib.figure, matplotlib.backends.backend_agg, rich.table
from byhand import cli

def dies_at(call):
    left = [call]
    def watched(function):
        def wrapper(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return wrapper
    for module, name in ((os, "replace"), (os, "rename"), (os, "fsync"), (os, "mkdir"), (os, "rmdir"), (os, "unlink")):
        setattr(module, name, watched(getattr(module, name)))

for line in sys.stdin:
    arguments, seconds, call = json.loads(line)
    said = tempfile.TemporaryFile("w+")
    begun = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        if call is not None:
            dies_at(call)
        os._exit(cli.main(arguments))
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said.seek(0)
    print(json.dumps([os.waitstatus_to_exitcode(status), said.read(), time.perf_counter() - begun]), flush=True)
"""


@pytest.fixture(scope="module")
def serve():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(arguments, seconds=None, call=None):
        process.stdin.write(json.dumps([[str(argument) for argument in arguments], seconds, call]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    with process:
        yield ask
        process.stdin.close()


def outcome(run):
    """All that a run leaves, but for wall time and the directory's name."""
    latest = checkpoint.load(checkpoint.latest(run / "checkpoints"))
    arrays = {f"{group}/{name}": array.tobytes() for group, members in latest.arrays.items() for name, array in members.items()}
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    adapter = {file.name: file.read_bytes() for file in (run / "adapter").iterdir()}
    config = json.loads((run / "config.json").read_text()) | {"out": None}
    about = json.loads((run / "about.json").read_text())
    return arrays, latest.values, [record | {"seconds": None} for record in log], adapter, config, about


def resumed(serve, run, begin):
    """Resume until the run has ended; begin anew where it says so."""
    code, said, _ = serve(["finetune", "--resume", run])
    if code == cli.WRONG_USAGE:
        assert not (run / "config.json").exists() and not (run / "checkpoints").exists(), said
        assert not (run / "metrics.jsonl").exists() or "remove it, and begin anew" in said
        shutil.rmtree(run, ignore_errors=True)
        code, said, _ = serve(begin)
    assert code == cli.OK, said
    return outcome(run)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [["--paged", "--quantize", "nf4"], ["--adapter-dtype", "bfloat16", "--dropout", "0.1"]])
def test_killed_at_random_moments_it_ends_with_the_same_bits(extra, serve, tmp_path):
    import random

    def begin(out):
        return [*RUN, "--steps", 12, "--out", out, *extra]

    serve(begin(tmp_path / "warm"))
    code, said, seconds = serve(begin(tmp_path / "whole"))
    assert code == cli.OK, said
    whole, moments, killed = outcome(tmp_path / "whole"), random.Random(0), 0
    while killed < 10:
        run = tmp_path / f"run{killed}"
        code, said, _ = serve(begin(run), seconds=moments.uniform(0, seconds))
        if code != 0:                                                  # else it was faster than usual
            killed += 1
            if moments.random() < 0.5 and (run / "config.json").exists():
                serve(["finetune", "--resume", run], seconds=moments.uniform(0, seconds))
            assert resumed(serve, run, begin(run)) == whole
        shutil.rmtree(run, ignore_errors=True)


@pytest.mark.slow
def test_killed_before_any_change_of_the_disk_it_ends_with_the_same_bits(serve, tmp_path):
    def begin(out):
        return [*RUN, "--steps", 4, "--out", out, "--keep", 1]

    assert serve(begin(tmp_path / "whole"))[0] == cli.OK
    whole, calls = outcome(tmp_path / "whole"), 0
    while True:
        calls += 1
        run = tmp_path / "run"
        code, said, _ = serve(begin(run), call=calls)
        if code == cli.OK:
            break
        assert code < 0, said
        assert resumed(serve, run, begin(run)) == whole, f"killed at call {calls}"
        shutil.rmtree(run)
    assert calls > 40


def test_a_run_that_has_ended_ends_again_with_the_same_bits(serve, tmp_path):
    assert serve([*RUN, "--steps", 3, "--out", tmp_path / "run"])[0] == cli.OK
    before = outcome(tmp_path / "run")
    code, said, _ = serve(["finetune", "--resume", tmp_path / "run"])
    assert code == cli.OK and "goes on after step 3 of 3" in said and outcome(tmp_path / "run") == before


@pytest.mark.parametrize("extra", [
    ["--backend", "both", "--paged", "--adapter-dtype", "bfloat16"],
    ["--backend", "torch", "--dtype", "float64", "--start", "pissa", "--lora-plus", "4"],
    ["--method", "prompt", "--accumulate", "2"],
    ["--method", "full", "--dropout", "0.1"],
    ["--quantize", "fp4", "--double", "--dora", "--bias", "all"],
], ids=lambda extra: " ".join(extra).replace("--", ""))
def test_from_the_checkpoint_before_the_last_it_ends_with_the_same_bits(extra, tmp_path):
    run = tmp_path / "run"
    assert cli.main([*RUN, "--steps", "5", "--out", str(run), *extra]) == cli.OK

    def all_of_it():
        latest = checkpoint.load(checkpoint.latest(run / "checkpoints"))
        arrays = {f"{group}/{name}": array.tobytes() for group, members in latest.arrays.items() for name, array in members.items()}
        log = [json.loads(line) | {"seconds": None} for line in (run / "metrics.jsonl").read_text().splitlines()]
        return arrays, log, {str(path): path.read_bytes() for path in [*run.glob("adapter*"), *run.glob("adapter*/*")] if path.is_file()}

    before = all_of_it()
    shutil.rmtree(run / "checkpoints" / "step-000005")
    for path in run.glob("adapter*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert cli.main(["finetune", "--resume", str(run)]) == cli.OK
    assert all_of_it() == before and before[2]
