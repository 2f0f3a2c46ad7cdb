"""The tier memory: steps of QLoRA in a process of its own, and the largest resident memory it ever had."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from byhand.checks import demand
from byhand.finetune_config import FinetuneConfig
from byhand.tiers.watched import Check

_STATUS = Path("/proc/self/status")


class Peak(NamedTuple):
    """nbytes : VmHWM, all that was resident at the worst moment, interpreter and NumPy included;  checks : of every array, by `train`"""

    nbytes: int
    checks: list[Check]


def measure(config: FinetuneConfig) -> Peak:
    """Build and quantize the model block by block, train, and tell the peak, in a fresh process.

    Raises
    ------
    ValueError   where there is no /proc, or if the process fails
    """
    demand("validate", _STATUS.exists(), "Linux, whose /proc tells the peak, for the tier memory", platform=sys.platform)
    command = [sys.executable, "-m", "byhand.tiers.memory"]
    done = subprocess.run(command, input=json.dumps(dataclasses.asdict(config)), capture_output=True, text=True, check=False)
    demand("validate", done.returncode == 0, "a process that ends well", code=done.returncode, said=done.stderr[-800:])
    answer: dict[str, Any] = json.loads(done.stdout)
    return Peak(answer["peak"], [Check(*check) for check in answer["checks"]])


def main() -> None:
    """The process: a configuration on stdin, JSON on stdout."""
    from byhand.finetuning.base import open_base
    from byhand.tiers.watched import train

    config = FinetuneConfig(**json.load(sys.stdin))
    trained = train(config, open_base(str(config.base)))
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak": int(line.split()[1]) * 1024, "checks": trained.checks}))


if __name__ == "__main__":
    main()
