"""One update of a model of random weights, in a process that does nothing else: `python -m byhand.finetuning.memory_worker JSON`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(options: dict[str, Any]) -> dict[str, int]:
    """Build, update once, and tell the peaks."""
    import numpy as np

    from byhand.commands.finetune_backends import NumpyTuned
    from byhand.finetune_config import FinetuneConfig
    from byhand.finetuning.base import open_base
    from numpy_impl.train.step import train_step

    imported = _peak()
    method, length = options.pop("method", "qlora"), options.pop("length", 128)
    quantized = {"quantize": "nf4", "double": options.pop("double", True)} if method == "qlora" else {}
    config = FinetuneConfig(
        base=options.pop("model"), method="full" if method == "full" else "lora", length=length, batch=options.pop("batch", 1),
        recompute=options.pop("recompute", True), **quantized, **options,
    )
    base = open_base(str(config.base))
    tuned = NumpyTuned(config, base)
    built = _peak()
    _REFS.write_text("5")                       # the peak starts again from here
    tokens = np.random.default_rng(0).integers(0, base.config.vocabulary, (config.batch, length + 1))
    begin = time.perf_counter()
    run: Any = "recompute" if config.recompute else "keep"
    train_step(tuned.model, tuned.optimizer, [(tokens[:, :-1], tokens[:, 1:])], run=run, max_norm=1e-9)    # so that it clips
    seconds, step = time.perf_counter() - begin, _peak()
    return dict(imported=imported, built=built, step=step, total=max(built, step), milliseconds=round(1000 * seconds))


def _peak() -> int:
    """VmHWM: the largest resident memory so far, in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
