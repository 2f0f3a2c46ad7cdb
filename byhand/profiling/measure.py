"""Running a piece of work often enough: plain, watched for time, and once more, watched for memory. Never both at once."""

import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from byhand.profiling.names import Frame
from byhand.profiling.recorder import MemoryRecorder, Node, Recorder
from byhand.profiling.watch import watched

Run = Callable[[], Any]


class Profile(NamedTuple):
    """What was measured of a piece of work.

    what       the work: "step", "generation"
    runs       of so many runs, the faster half, is what follows
    time       the tree of calls with the time of them all;  memory : the tree with the bytes of a single run
    plain, watched   milliseconds a run, the mean: as it runs for everyone, and while it was watched
    """

    what: str
    runs: int
    time: Node
    memory: Node
    plain: float
    watched: float


def profile_numpy(what: str, run: Run, *, runs: int, warmup: int) -> Profile:
    """What `run` takes in the components of numpy_impl. The watched runs stand between two halves of the plain ones."""
    for _ in range(warmup):
        run()
    plain = [milliseconds(run) for _ in range(runs - runs // 2)]
    recorder = Recorder(what, time.perf_counter_ns)

    def recorded() -> Node:
        recorder.start()
        run()
        return recorder.finish()

    slowed, trees = [], []
    with watched("numpy_impl", recorder.enter, recorder.leave):
        recorded()                                        # Python prepares for code that is new to it
        for _ in range(runs):
            slowed.append(milliseconds(lambda: trees.append(recorded())))
    plain += [milliseconds(run) for _ in range(runs // 2)]
    return summary(what, plain, slowed, trees, _memory(what, run))


def milliseconds(run: Run) -> float:
    """The wall time of a run."""
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1e3


def summary(what: str, plain: Sequence[float], slowed: Sequence[float], trees: Sequence[Node], memory: Node) -> Profile:
    """The faster half of the runs, whose trees are added up: what disturbs a run makes it slower, never faster."""
    count = (len(trees) + 1) // 2
    fast = sorted(range(len(trees)), key=lambda i: slowed[i])[:count]
    together = trees[fast[0]]
    for i in fast[1:]:
        together.add(trees[i])
    return Profile(what, count, together, memory, sum(sorted(plain)[:count]) / count, sum(slowed[i] for i in fast) / count)


def _memory(what: str, run: Run) -> Node:
    """The bytes of one run. tracemalloc is told of every allocation of Python's and NumPy's, and slows both down."""
    running = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        recorder = MemoryRecorder(what)

        def look() -> None:
            recorder.bytes(*tracemalloc.get_traced_memory())
            tracemalloc.reset_peak()

        def enter(frame: Frame) -> None:
            look()
            recorder.enter(frame)

        def leave() -> None:
            look()
            recorder.leave()

        with watched("numpy_impl", enter, leave):
            recorder.begin(tracemalloc.get_traced_memory()[0])
            tracemalloc.reset_peak()
            run()
            look()
        return recorder.finish()
    finally:
        if not running:
            tracemalloc.stop()
