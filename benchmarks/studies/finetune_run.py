"""The parts of `python -m benchmarks finetune` measured one after the other, and kept as JSON as soon as each is done."""

import datetime
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.studies import finetune, finetune_cost
from byhand.checks import demand, size
from byhand.finetuning.base import open_base
from byhand.tiers.run import pretrain

PARTS: dict[str, Callable[[finetune.Bench], dict[str, Any]]] = {
    "qlora": finetune.qlora, "ranks": finetune.ranks, "quantized": finetune.quantized, "tiers": finetune.tiers, "peft": finetune_cost.peft,
    "cost": finetune_cost.cost,
}


def measure_parts(parts: Sequence[str], *, base: str | None, steps: int, seeds: int, rounds: int, json_: Path | None, log: Console
                  ) -> dict[str, Any]:
    """The figures of each part, with the machine that they are of; written into `json_` beside those that are there of other parts."""
    size("benchmarks finetune", steps=steps, seeds=seeds, rounds=rounds)
    where = base or str(pretrain(lambda said: log.print(said, markup=False)))
    bench = finetune.Bench(open_base(where), where, steps, seeds, rounds, log)
    found: dict[str, Any] = {}
    for part in parts:
        log.print(f"{part}:", style="bold")
        found[part] = json.loads(json.dumps({"machine": _machine(where)} | PARTS[part](bench)))        # as it will be read back
        if json_ is not None:
            json_.write_text(json.dumps(_written(json_) | found, indent=1) + "\n", encoding="utf-8")
    return found


def read_parts(parts: Sequence[str], json_: Path | None) -> dict[str, Any]:
    """What was measured before, of these parts as far as it was.

    Raises
    ------
    ValueError   if there is no file
    """
    demand("benchmarks finetune", json_ is not None and json_.is_file(), "a file of figures to reuse, --json FILE", json=json_)
    assert json_ is not None
    return {part: figures for part, figures in _written(json_).items() if part in parts}


def _written(json_: Path) -> dict[str, Any]:
    return json.loads(json_.read_text(encoding="utf-8")) if json_.is_file() else {}


def _machine(where: str) -> dict[str, Any]:
    from benchmarks.about import describe
    from parity.report import device_name

    return {"cpu": device_name("cpu"), "cores": os.cpu_count(), "threads": int(os.environ.get("OMP_NUM_THREADS", 1)),
            "date": datetime.date.today().isoformat(), "load": round(os.getloadavg()[0], 1),
            "processes": describe(), "base": _about(Path(where))}


def _about(path: Path) -> str:
    """The base in a line: how it was trained, where it is a run."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        text = "the standard library's source" if config["text"] in (None, "library") else config["text"]
        return f"{config['preset']}, pre-trained for {config['steps']} steps of {config['batch']} × {config['length']} bytes of {text}"
    except (OSError, ValueError, KeyError):
        return f"{path.name}, as it is"
