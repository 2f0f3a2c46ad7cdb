"""The tier resume: a run that is killed and goes on must end with the bits of one that was left alone."""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from byhand import checkpoint
from byhand.checks import demand
from byhand.finetune_config import FinetuneConfig
from byhand.run_directory import RunDirectory
from byhand.tiers.watched import Check


def interrupted(config: FinetuneConfig) -> list[Check]:
    """`byhand finetune` three times, in processes of their own: to the end; killed half-way (SIGKILL); and resumed after that.

    Raises
    ------
    ValueError   if a process fails
    """
    with tempfile.TemporaryDirectory(prefix="byhand-resume-") as folder:
        whole, cut = Path(folder, "whole"), Path(folder, "cut")
        _finish(_start(_written(config, whole)))
        done, left = _kill(_start(_written(config, cut)), cut, at=config.steps // 2)
        if not left:
            return [Check("a run that is killed half-way", "it had ended before; ask for more --steps", False)]
        began = checkpoint.latest(cut / "checkpoints")
        _finish(_start(["--resume", str(cut)]))
        stopped = Check("a run is killed half-way", f"after {done} of {config.steps} steps; it goes on from "
                        + ("the beginning" if began is None else began.name), None)
        return [stopped, *_compared(whole, cut)]


def _written(config: FinetuneConfig, out: Path) -> list[str]:
    file = out.with_suffix(".json")
    file.write_text(json.dumps(dataclasses.asdict(config) | {"out": str(out)}), encoding="utf-8")
    return ["--config", str(file)]


def _start(arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "byhand", "finetune", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen) -> None:
    _, said = process.communicate()
    demand("validate", process.returncode == 0, "a run that ends well", code=process.returncode, said=said[-800:])


def _kill(process: subprocess.Popen, out: Path, *, at: int) -> tuple[int, bool]:
    """(steps that were done, whether there was still something to kill)."""
    while process.poll() is None and _steps(out) < at:
        time.sleep(0.002)
    process.kill()
    _, said = process.communicate()
    demand("validate", process.returncode in (0, -9), "a run that goes well until it is killed", code=process.returncode, said=said[-800:])
    return _steps(out), process.returncode != 0


def _steps(out: Path) -> int:
    try:
        return (out / "metrics.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def _compared(whole: Path, cut: Path) -> list[Check]:
    kept: list[Any] = [checkpoint.load(path) for path in (checkpoint.latest(run / "checkpoints") for run in (whole, cut)) if path]
    demand("validate", len(kept) == 2, "a checkpoint of either run", found=len(kept))
    one, other = kept
    checks = []
    for group, title in [(name, name.replace("-", ": ")) for name in sorted(one.arrays)]:
        mine, theirs = one.arrays[group], other.arrays.get(group, {})
        same = [name for name in mine if name in theirs and mine[name].dtype == theirs[name].dtype and mine[name].tobytes() ==
                theirs[name].tobytes()]
        checks.append(Check(f"bit-identical in the end, {title}", f"{len(same)} of {len(mine)} arrays",
                            len(same) == len(mine) and mine.keys() == theirs.keys()))
    checks.append(Check("bit-identical in the end, where noise and data go on", f"{one.values['progress']}, {other.values['progress']}",
                        one.values == other.values))
    logs = [[{name: value for name, value in record.items() if name != "seconds"} for record in RunDirectory.metrics(run)]
            for run in (whole, cut)]
    same_lines = sum(a == b for a, b in zip(*logs, strict=False))
    checks.append(Check("the same metrics at every step, wall time apart", f"{same_lines} of {len(logs[0])} lines", logs[0] == logs[1]))
    files = sorted(path.relative_to(whole) for path in whole.glob("adapter*/*")) or [Path("adapter.safetensors")]
    equal = [path for path in files if (cut / path).is_file() and (cut / path).read_bytes() == (whole / path).read_bytes()]
    checks.append(Check("the same adapter, file by file", f"{len(equal)} of {len(files)} files", len(equal) == len(files)))
    return checks
