"""`byhand draw experts`: which expert each token of a text goes to, and how evenly a run used its experts, as a PNG or SVG."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console

from byhand.checks import choice, demand, fail
from byhand.commands.adapters import with_adapter
from byhand.commands.draw import numbered
from byhand.commands.finetune_backends import numpy_base, quantization
from byhand.expert_figure import draw_experts as draw
from byhand.expert_maps import ExpertMap, expert_maps
from byhand.finetune_config import config_of_run
from byhand.finetuning.base import open_base
from byhand.model_source import Source, open_model
from byhand.routing_metrics import LayerRouting
from byhand.run_config import read
from byhand.run_directory import RunDirectory

_ENDINGS = (".png", ".svg")
_LONGEST = 512  # tokens
_Named = TypeVar("_Named")


def draw_experts(run: str, *, text: str, ids: str | None, layer: str | None, show: str, out: Path, seed: int) -> None:
    """Run the model on the text and draw the experts of every token, and the use of experts over the run that made it.

    Raises
    ------
    ValueError   if the model cannot be opened, does not take the text, has no experts or no such layer, or its run told nothing of them
    """
    choice("draw", _ENDINGS, **{f"{out}, a picture with an ending": out.suffix.lower()})
    choice("draw", ("both", "tokens", "training"), show=show)
    steps: dict[int, Sequence[LayerRouting]] = {} if show == "tokens" else {
        step: _chosen(layers, layer) for step, layers in _history(Path(run)).items()
    }
    demand("draw", bool(steps) or show != "training", "a run whose metrics tell of its routers, for its training", run=run)
    maps: list[ExpertMap] = []
    written: Sequence[str] = ()
    title = run
    if show != "training":
        source = _source(run, seed)
        numbers, written = numbered(ids) if ids is not None else source.tokenize(text)
        demand("draw", 1 <= len(numbers) <= _LONGEST, f"a text of 1 to {_LONGEST} tokens", tokens=len(numbers))
        with np.errstate(all="ignore"):
            maps, title = _chosen(expert_maps(source.model, np.array(numbers, np.int64)), layer), source.title
    if out.parent != Path():
        out.parent.mkdir(parents=True, exist_ok=True)
    draw(out, maps=maps, tokens=written, steps=steps, title=title)
    shown = [f"{len(maps)} {'layer' if len(maps) == 1 else 'layers'} on {len(written)} tokens"] if maps else []
    shown += [f"{len(steps)} steps of training"] if steps else []
    Console(highlight=False, soft_wrap=True).print(f"{out}: {title}; {', '.join(shown)}", markup=False)


def _source(run: str, seed: int) -> Source:
    """The model of a `byhand finetune` with its adapter, or whatever else can be opened."""
    path = Path(run)
    if not (path / "config.json").is_file() or not read("draw", path / "config.json").keys() >= {"base", "method"}:
        return open_model(run, seed=seed)
    tuning = config_of_run(path, who="draw")
    base = open_base(str(tuning.base))
    model = numpy_base(base, quantization(tuning, base), dtype=tuning.dtype, rng=np.random.default_rng(tuning.seed))
    return Source(with_adapter("draw", model, base, run, tuning), f"{tuning.method} on {base.title}", base.tokenize)


def _history(run: Path) -> dict[int, list[LayerRouting]]:
    """What the routers did by step, of the first implementation that trained; empty where there is no such run."""
    if not (run / "metrics.jsonl").is_file():
        return {}
    records = [record for record in RunDirectory.metrics(run) if record.get("routing")]
    return {record["step"]: [LayerRouting.read(layer) for layer in record["routing"]] for record in records
            if record["backend"] == records[0]["backend"]}


def _chosen(layers: Sequence[_Named], layer: str | None) -> list[_Named]:
    """All layers, or those of the block of that number, or the one of that name."""
    if layer is None:
        return list(layers)
    names = [one.layer for one in layers]  # type: ignore[attr-defined]
    wanted = [layer] if not layer.isdecimal() else [name for name in names if re.findall(r"\d+", name)[:1] == [str(int(layer))]]
    found = [one for one, name in zip(layers, names, strict=True) if name in wanted]
    if not found:
        fail("draw", f"a layer with experts, by name or by the number of its block, from {', '.join(names)}", f"layer={layer!r}")
    return found
