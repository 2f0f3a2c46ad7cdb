"""PyTorch's own profiler, told what our components are called."""

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byhand.profiling.measure import Profile, Run, milliseconds, summary
from byhand.profiling.names import Frame
from byhand.profiling.recorder import Node
from byhand.profiling.torch_trace import memory_trees, trees
from byhand.profiling.watch import watched
from byhand.run_directory import write_whole


def profile_torch(what: str, run: Run, *, runs: int, warmup: int, device: str = "cpu", trace: Path | None = None) -> Profile:
    """What `run` takes in the components of torch_impl, and in PyTorch's operators.

    device   "cpu", or "cuda": then memory is the device's, and kernels are timed too
    trace    where the profiler's own file goes, a Chrome trace
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")         # what is wrong is raised; what it does need not be told
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")

    def whole() -> Any:
        result = run()
        if device == "cuda":  # pragma: no cuda
            torch.cuda.synchronize()
        return result

    def marked_run() -> None:
        with torch.profiler.record_function(what):
            whole()

    def events(count: int, memory: bool) -> tuple[list[dict[str, Any]], dict[str, Frame], list[float]]:
        frames: dict[str, Frame] = {}
        marks = _Marks(torch.profiler.record_function, frames)
        with watched("torch_impl", marks.enter, marks.leave):
            whole()                                       # Python prepares for code that is new to it
            frames.clear()
            with profile(activities=activities, profile_memory=memory, acc_events=True) as profiler:
                times = [milliseconds(marked_run) for _ in range(count)]
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "trace.json"
            profiler.export_chrome_trace(str(file))
            content = file.read_bytes()
        if trace is not None and not memory:
            trace.parent.mkdir(parents=True, exist_ok=True)
            write_whole(trace, content)
        return json.loads(content)["traceEvents"], frames, times

    for _ in range(warmup):
        whole()
    plain = [milliseconds(whole) for _ in range(runs - runs // 2)]
    seen, frames, slowed = events(runs, memory=False)
    found: list[Node] = trees(seen, what, frames)
    plain += [milliseconds(whole) for _ in range(runs // 2)]
    held, frames, _ = events(1, memory=True)
    (memory,) = memory_trees(held, what, frames, device=int(device == "cuda"))
    return summary(what, plain, slowed, found, memory)


class _Marks(threading.local):
    """Marks of components in the profiler's trace, on any thread: for a GPU, autograd has one of its own. A component that calls its own
    method needs no second mark."""

    def __init__(self, record: Callable[[str], Any], frames: dict[str, Frame]):
        self._record, self._frames = record, frames
        self._open: list[tuple[Frame, Any]] = []

    def enter(self, frame: Frame) -> None:
        if self._open and self._open[-1][0].goes_on(frame):
            self._open.append((self._open[-1][0], None))
            return
        mark = self._record(frame.label)
        self._frames.setdefault(frame.label, frame)
        self._open.append((frame, mark))
        mark.__enter__()

    def leave(self) -> None:
        _, mark = self._open.pop()
        if mark is not None:
            mark.__exit__(None, None, None)
