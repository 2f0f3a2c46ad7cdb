"""What a step of fine-tuning costs: against peft, and in time and bytes by rank."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.finetune import RANKS, WINDOWS, Bench
from byhand import corpus
from byhand.commands.finetune_backends import NumpyTuned, numpy_base
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.base import Base


def peft(bench: Bench) -> dict[str, Any]:
    """A step of LoRA, ours and peft's, on the same weights, adapters and batches, in turn in one process."""
    import torch

    torch.set_num_threads(1)
    rows = []
    for targets, r in ((("q_proj", "v_proj"), 8), (("all-linear",), 16)):
        for batch, length in ((16, 64), (1, 128), (1, 32)):
            config = bench.config(targets=targets, r=r, alpha=2.0 * r, batch=batch, length=length)
            rows.append(_against_peft(bench, config))
            bench.log.print(f"{', '.join(targets)}, {batch} × {length}: {rows[-1]['speedup']:.2f}", highlight=False)
    return {"versions": _versions("torch", "transformers", "peft"), "rows": rows}


def _against_peft(bench: Bench, config: FinetuneConfig) -> dict[str, Any]:
    import torch

    one = NumpyTuned(config, bench.base)
    with tempfile.TemporaryDirectory() as folder:
        model = _peft_model(bench.base, one, config.seed, Path(folder))
    trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    step, ids, targets = _step(one, config)
    given, wanted = torch.from_numpy(ids), torch.from_numpy(targets)

    def theirs() -> float:
        loss = torch.nn.functional.cross_entropy(model(input_ids=given, use_cache=False).logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.max_norm)
        optimizer.step()
        return float(loss.detach())

    seconds, losses = in_turn(bench.rounds, {"ours": step, "peft": theirs})
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "targets": list(config.targets or ()), "r": config.r, "batch": config.batch, "length": config.length, "seconds": medians,
        "quartiles": {name: statistics.quantiles(times, n=4)[::2] for name, times in seconds.items() if len(times) > 1},
        "speedup": medians["peft"] / medians["ours"],
        "parameters": [sum(array.size for array in one.trained().values()), sum(map(torch.numel, trained))],
        "losses": {name: [found[0], found[-1]] for name, found in losses.items()},
        "differences": [abs(a - b) for a, b in zip(*losses.values(), strict=True)],
    }


def _peft_model(base: Base, one: Any, seed: int, folder: Path) -> Any:
    """The same base in transformers, with the same adapters in peft."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from byhand.hugging_face.adapter import save_adapter
    from byhand.hugging_face.directory import save_hugging_face

    same = numpy_base(base, None, rng=np.random.default_rng(seed))                 # random weights are drawn from the run's seed
    save_hugging_face(folder / "base", base.config, same.state_dict())
    adapters = {name.replace(".adapters.default.", "."): array for name, array in one.trained().items()}
    save_adapter(folder / "adapter", config=one.lora, model_config=base.config, state=adapters, base_name=str(folder / "base"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "adapter", is_trainable=True)
    return model.train()


def cost(bench: Bench) -> dict[str, Any]:
    """Bytes that an adapter needs, and a step's time, by rank; and of training everything, and on a base in 4 bits."""
    ways: dict[str, dict[str, Any]] = {f"r={r}": dict(r=r, alpha=2.0 * r) for r in RANKS}
    ways |= {"r=16, base in NF4": dict(quantize="nf4"), "full": dict(method="full", lr=1e-3)}
    rows, steps = {}, {}
    for way, options in ways.items():
        config = bench.config(**options)
        one = NumpyTuned(config, bench.base)
        trained, state = one.trained(), one.optimizer_state()
        nbytes = sum(array.nbytes for array in trained.values())
        rows[way] = {
            "way": way, "parameters": sum(array.size for array in trained.values()), "trained_bytes": nbytes, "gradient_bytes": nbytes,
            "state_bytes": sum(array.nbytes for name, array in state.items() if name != "step"),
            "frozen_bytes": sum(array.nbytes for name, array in one.state().items() if name not in trained),
        }
        steps[way] = _step(one, config)[0]
    seconds, _ = in_turn(bench.rounds, steps)
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    for way, row in rows.items():
        row |= {"seconds": medians[way], "against_full": medians[way] / medians["full"]}
    return dict(WINDOWS) | {"rows": list(rows.values())}


def in_turn(rounds: int, calls: Mapping[str, Callable[[], float]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """(the seconds of the processor that each call took, what each returned); they alternate, after one round whose times are not kept.

    With one thread that is wall time where the machine has nothing else to do; where it has, the waiting is left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    returned: dict[str, list[float]] = {name: [] for name in calls}
    for measured in [False] + [True] * rounds:
        for name, call in calls.items():
            started = time.process_time()
            returned[name].append(call())
            if measured:
                seconds[name].append(time.process_time() - started)
    return seconds, returned


def _step(one: NumpyTuned, config: FinetuneConfig) -> tuple[Callable[[], float], Any, Any]:
    """One update on a batch that stays the same; and the batch."""
    from numpy_impl.train.step import train_step

    ids, targets = corpus.draw(corpus.load(config.text).tokens, batch=config.batch, length=config.length, seed=0, step=0)
    return lambda: train_step(one.model, one.optimizer, [(ids, targets)], lr=config.lr, max_norm=config.max_norm).loss, ids, targets


def _versions(*names: str) -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in names}
