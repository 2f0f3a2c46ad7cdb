"""`byhand finetune`: adapters trained on a frozen base, by one implementation or by both, in a run that can be killed at any moment."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand import checkpoint, corpus
from byhand.checks import NonFiniteError, demand
from byhand.commands.display import Display
from byhand.commands.finetune_backends import NumpyTuned, TorchTuned, Tuned, digest, quantization
from byhand.commands.history import PROMISED_FLOAT64, History
from byhand.continuation import compare, continue_greedily
from byhand.curves import draw_losses
from byhand.finetune_config import FinetuneConfig, config_of_run, settled
from byhand.finetuning.base import Base, Quantization, open_base
from byhand.finetuning.expert_files import save_experts
from byhand.finetuning.peft_files import write_for_peft
from byhand.finetuning.report import EfficiencyReport, efficiency_report, freeze_report
from byhand.finetuning.sizes import Storage, inventory, weight_shapes
from byhand.model_source import as_bytes
from byhand.routing_metrics import RoutingWatch, logged
from byhand.run_directory import RunDirectory

_CHECKPOINTS = "checkpoints"


class Outcome(NamedTuple):
    """What a run came to.

    path : its directory
    kept : whether two implementations kept what was promised, and no frozen bit has changed
    losses, validation : by implementation, as History has them
    """

    path: Path
    kept: bool
    losses: dict[str, list[float]]
    validation: dict[str, dict[int, float]]


def finetune(config: FinetuneConfig) -> Outcome:
    """Fine-tune, print, and leave a run directory with checkpoints and the adapter.

    Raises
    ------
    ValueError       if the configuration, the base, the text or the installation will not do
    NonFiniteError   if a loss or a gradient is not finite; the last checkpoint is whole
    """
    stopped = None if config.resume is None else _Stopped.read(config.resume)
    config = settled(config) if stopped is None else stopped.config
    base = open_base(str(config.base))
    longest = base.config.max_length - (config.virtual_tokens if config.method == "prompt" else 0)
    behind = f", behind {config.virtual_tokens} virtual tokens" if config.method == "prompt" else ""
    demand("finetune", config.length <= longest, f"length <= {longest}, the longest sequence of the base{behind}", length=config.length)
    text = corpus.load(config.text)
    training, kept_apart = corpus.split(_tokens(base, text))
    validation = corpus.spread(kept_apart, batch=config.batch, length=config.length, count=config.validation_batches)

    def batches(step: int) -> list[corpus.Batch]:
        ids, targets = corpus.draw(training, batch=config.batch, length=config.length, seed=config.seed, step=step)
        return list(zip(np.array_split(ids, config.accumulate), np.array_split(targets, config.accumulate), strict=True))

    batches(0)  # a text too short for a window is refused before anything is built
    if stopped is not None:
        stopped.check(text=text.digest)
    tuned, base_digest = _tuned(config, base)
    names = [one.name for one in tuned]
    frozen = {one.name: digest(one.state(), one.trained()) for one in tuned}
    if stopped is not None:
        stopped.check(base=base_digest, frozen=frozen)
    begun = {one.name: {name: array.copy() for name, array in one.trained().items()} for one in tuned}
    history = History(names)
    directory = RunDirectory(config.name, out=config.out) if stopped is None else stopped.reopen()
    with directory as run, Display(config.steps, config.every, names) as display:
        if stopped is None:
            run.describe("config", config.as_dict())
        if stopped is None or stopped.about is None:
            seen = dict(name=text.name, bytes=len(text.tokens), sha256=text.digest)
            about = dict(base=base.title, base_sha256=base_digest, text=seen, frozen=frozen, threads=os.environ.get("OMP_NUM_THREADS"))
            run.describe("about", about)
        if stopped is not None:
            display.say(stopped.restore(tuned, history))
        display.say(f"{config.method} on {base.title}; {config.steps} steps of {config.batch} × {config.length} tokens of {text.name}")
        display.show(freeze_report(inventory(tuned[0].model)).table())
        if tuned[0].lora is not None:
            display.show(_efficiency(config, base, tuned[0]).table())
        display.say()
        watches = [RoutingWatch(one.model) for one in tuned]
        display.header(routed=bool(watches[0].layers))
        after = None if stopped is None else stopped.after
        try:
            for together in zip(*(one.fit(batches, validation, after) for one in tuned), strict=True):
                routings = [watch.take() for watch in watches]
                for one, progress, routing in zip(tuned, together, routings, strict=True):
                    history.add(one.name, progress, routing)
                    run.log(step=progress.step + 1, backend=one.name, **progress.metrics._asdict(), validation=progress.validation,
                            **logged(routing))
                display.step(together, routings)
                if (together[0].step + 1) % config.save_every == 0 or together[0].step + 1 == config.steps:
                    _save(run, config, tuned, together)
        except (NonFiniteError, KeyboardInterrupt) as ended:
            ended.add_note(f"The last checkpoint is whole: byhand finetune --resume {run.path}")
            raise
        display.say()
        for line in history.summary():
            display.say(line)
        kept = _unchanged(display, tuned, frozen, begun)
        if len(tuned) == 2:
            agreed, verdict = history.verdict(config.dtype)
            kept &= agreed
            display.say(verdict)
        for one in tuned:
            name = "adapter" if one is tuned[0] else f"adapter-{one.name}"
            display.say(_keep_adapter(run, config, base, one, begun[one.name], name))
        if config.sample:
            _sample(display, config, base, tuned)
        _draw(display, run, config, base, history)
        display.say(f"\n{run.path}: {', '.join(sorted(file.name for file in run.path.iterdir()))}")
    return Outcome(run.path, kept, history.losses, history.validation)


class _Stopped(NamedTuple):
    """A run that is to go on: its directory and configuration, what it met, None if it did not come so far, and its last checkpoint,
    None before the first."""

    path: Path
    config: FinetuneConfig
    about: dict[str, Any] | None
    last: checkpoint.Checkpoint | None

    @classmethod
    def read(cls, where: str) -> "_Stopped":
        config, path = config_of_run(where), Path(where)
        latest = checkpoint.latest(path / _CHECKPOINTS)
        about = RunDirectory.read(path / "about.json") if (path / "about.json").is_file() else None
        demand("finetune", about is not None or latest is None, f"{path / 'about.json'}, which tells what the run began with", resume=where)
        return cls(path, config, about, None if latest is None else checkpoint.load(latest))

    @property
    def after(self) -> tuple[int, float, int] | None:
        if self.last is None:
            return None
        progress = self.last.values["progress"]
        return progress["step"], progress["lowest"], progress["forwards"]

    def check(self, *, text: str | None = None, base: str | None = None, frozen: Mapping[str, str] | None = None) -> None:
        """What the run stands on must be what it stood on."""
        if self.about is None:
            return
        same = text is None or self.about["text"]["sha256"] == text
        demand("finetune", same, f"the text that the run began with, {self.about['text']['name']}", sha256=text)
        same = base is None or self.about.get("base_sha256", base) == base
        demand("finetune", same, f"the base that the run began with, {self.about['base']}, to the bit", sha256=base)
        threads = self.about.get("threads")
        demand("finetune", frozen is None or self.about["frozen"] == frozen,
               f"what {self.config.start} made of the base when the run began, to the bit, with OMP_NUM_THREADS={threads}",
               threads=os.environ.get("OMP_NUM_THREADS"))

    def reopen(self) -> RunDirectory:
        done = 0 if self.after is None else self.after[0] + 1
        return RunDirectory.reopen(self.path, lambda record: record["step"] <= done)

    def restore(self, tuned: Sequence[Tuned], history: History) -> str:
        """Put back what the checkpoint holds; a sentence about it."""
        threads = None if self.about is None else self.about.get("threads")
        other = threads is not None and threads != os.environ.get("OMP_NUM_THREADS")
        note = f" (it began with OMP_NUM_THREADS={threads}, so that its last bits will be others)" if other else ""
        if self.last is None:
            return f"{self.path} has no checkpoint yet: from the beginning{note}"
        for one in tuned:
            one.restore(self.last.arrays[f"{one.name}-trained"], self.last.arrays[f"{one.name}-optimizer"])
        for record in RunDirectory.metrics(self.path):
            history.remember(record)
        return f"{self.path} goes on after step {self.last.step} of {self.config.steps}{note}"


def _tuned(config: FinetuneConfig, base: Base) -> tuple[list[Tuned], str]:
    """The implementations to train, and the SHA-256 of their base; PyTorch's starts from the arrays that NumPy's has, so that a seed is
    one run in either."""
    by_hand = NumpyTuned(config, base)
    if config.backend == "numpy":
        return [by_hand], by_hand.base_digest
    twin = TorchTuned(config, base, by_hand.state())
    return [by_hand, twin] if config.backend == "both" else [twin], by_hand.base_digest


def _tokens(base: Base, text: corpus.Corpus) -> NDArray:
    """The text in the base's tokens: its bytes, or what its tokenizer makes of it."""
    if base.tokenize is as_bytes:
        return text.tokens
    ids, _ = base.tokenize(text.tokens.tobytes().decode("utf-8", errors="replace"))
    return np.asarray(ids, np.int64)


def _efficiency(config: FinetuneConfig, base: Base, one: Tuned) -> EfficiencyReport:
    """What the adapters hold and save, layer by layer."""
    ending = ".adapters.default.lora_A"
    ranks = {name.removesuffix(ending): len(array) for name, array in one.trained().items() if name.endswith(ending)}
    quantized = Quantization() if config.start == "loftq" else quantization(config, base)
    storage: Storage = "float32" if quantized is None else "4bit-double" if quantized.double else "4bit"
    return efficiency_report(weight_shapes(one.model, list(ranks)), ranks, total=base.config.parameters, base=storage,
                             block=64 if quantized is None else quantized.block, dora=config.dora)


def _save(run: RunDirectory, config: FinetuneConfig, tuned: Sequence[Tuned], together: Sequence[Any]) -> None:
    arrays: dict[str, Mapping[str, NDArray]] = {}
    for one in tuned:
        arrays |= {f"{one.name}-trained": one.trained(), f"{one.name}-optimizer": one.optimizer_state()}
    progress = together[0]
    values = {"progress": dict(step=progress.step, lowest=progress.lowest, forwards=progress.forwards)}
    run.force()                       # a checkpoint never knows of a step that the metrics do not
    checkpoint.save(run.path / _CHECKPOINTS, progress.step + 1, arrays=arrays, values=values, keep=config.keep)


def _unchanged(display: Display, tuned: Sequence[Tuned], frozen: Mapping[str, str], begun: Mapping[str, Mapping[str, NDArray]]) -> bool:
    """Whether the frozen part has every bit it had."""
    kept = True
    for one in tuned:
        same = digest(one.state(), one.trained()) == frozen[one.name]
        kept &= same
        moved = sum(not np.array_equal(array, begun[one.name][name]) for name, array in one.trained().items())
        rest = f"what they were, to the bit (SHA-256 {frozen[one.name][:12]}…)" if same else "NOT what they were"
        rest = "nothing is frozen" if one.state().keys() == begun[one.name].keys() else f"the frozen ones are {rest}"
        display.say(f"{one.name}: {moved} of {len(begun[one.name])} trained arrays have moved; {rest}")
    return kept


def _keep_adapter(run: RunDirectory, config: FinetuneConfig, base: Base, one: Tuned, begun: Mapping[str, NDArray], name: str) -> str:
    """LoRA's adapters as peft reads them, MixLoRA's experts a file each, what other methods train as arrays by name; a sentence on it."""
    if config.method == "mixlora":
        path = save_experts(run.path / name, config=config.mixlora, state=one.trained(), base=base.title)
        return f"{path} holds the experts, a file each; byhand generate --adapter {run.path}"
    if one.lora is None:
        run.save(name, one.trained(), method=config.method)
        return f"{run.path / name}.safetensors holds what was trained, by name; byhand generate --adapter {run.path}"
    return write_for_peft(run.path / name, config, base, one.model, one.lora, one.trained(), begun)


def _sample(display: Display, config: FinetuneConfig, base: Base, tuned: Sequence[Tuned]) -> None:
    if base.tokenize is not as_bytes:
        return
    written = [continue_greedily(one.logits, config.prompt.encode(), count=config.sample, context=config.length) for one in tuned]
    for one, continuation in zip(tuned, written, strict=True):
        display.say(f"\n{one.name} continues {config.prompt!r}:")
        display.say("  | " + continuation.text.replace("\n", "\n  | "), style="cyan")
    if len(written) == 2:
        display.say("\n" + compare(*written).reason)


def _draw(display: Display, run: RunDirectory, config: FinetuneConfig, base: Base, history: History) -> None:
    title = f"{config.method} on {base.title}, {config.dtype}, seed {config.seed}"
    bound = PROMISED_FLOAT64 if config.dtype == "float64" else None
    try:
        draw_losses(run.path / "losses.png", history.losses, validation=history.validation, title=title, bound=bound)
    except ValueError as missing:
        display.say(f"\nNo figure was drawn: {missing}")
