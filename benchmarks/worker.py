"""One process with one BLAS setting and one number of threads: times what it is asked for, a line of JSON each.

A BLAS setting is read when NumPy is loaded, so a process has one; the parent keeps several and asks them in turn.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Answer `{"name": …, "columns": […], "repeats": …}` with `{"column": [seconds, …]}` until the input ends."""
    threads = int(sys.argv[1])
    import torch

    torch.set_num_threads(threads)
    from benchmarks.work import prepare

    answers = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps(_describe()), file=answers, flush=True)
    prepared: tuple[str, dict[str, Any]] = ("", {})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if prepared[0] != asked["name"]:
                prepared = asked["name"], {c: prepare(asked["name"], *_side(c)) for c in asked["columns"]}
                for column, work in prepared[1].items():
                    for _ in range(2):
                        _time(work, column)
            answer: dict[str, Any] = _round(prepared[1], asked["repeats"])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _side(column: str) -> tuple[str, str]:
    return ("numpy", "cpu") if column == "numpy" else ("torch", "cpu" if column == "torch" else "cuda")


def _round(works: dict[str, Any], repeats: int) -> dict[str, list[float]]:
    """Every column in turn, `repeats` times."""
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for column, work in works.items():
            seconds.setdefault(column, []).append(_time(work, column))
            if work.with_transfers is not None:
                seconds.setdefault(f"{column} with transfers", []).append(_seconds(work.with_transfers, synchronise=True))
    return seconds


def _time(work: Any, column: str) -> float:
    if column != "cuda":
        return _seconds(work.run, synchronise=False)
    import torch

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    work.run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def _seconds(call: Callable[[], Any], *, synchronise: bool) -> float:
    started = time.perf_counter()
    call()
    if synchronise:
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - started


def _describe() -> dict[str, Any]:
    """The BLAS that NumPy loaded, as it names itself."""
    import numpy as np
    import torch

    known: dict[str, Any] = {"numpy": np.__version__, "torch": torch.__version__, "torch_threads": torch.get_num_threads()}
    try:
        from threadpoolctl import threadpool_info

        pools = [p for p in threadpool_info() if p["user_api"] == "blas" and "numpy" in p["filepath"]]
        known["blas"] = "; ".join(f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip() for p in pools)
        known["blas_threads"] = max((p["num_threads"] for p in pools), default=None)
    except ImportError:
        known["blas"] = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if torch.cuda.is_available():
        known["cuda"] = torch.cuda.get_device_name()
    return known


if __name__ == "__main__":
    main()
