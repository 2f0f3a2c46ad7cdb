"""Processes that run mutants: a crash or a hang that no alarm reaches ends one of them and kills one mutant, and the others go on."""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parity.judge import CLEAN, RUNNING, UnfitJudge, clean_passes, harness, verdicts
from parity.registry import components
from parity.runner import settings
from parity.study import Study, subject, text_of

STALLED = 300.0     # seconds without a sign of life beyond the limit: the alarm cannot reach it, the process is ended
MEMORY = 4 << 30    # bytes a mutant may claim beyond what the process holds


def _worker(pipe: Any) -> None:
    """A process that takes (subject, keys already known, time limit or None) from the pipe, and None as the end.

    It answers ("clean", (error or None, time limit)) if it was given no limit, then for each mutant ("running", key) and
    ("verdict", (key, what killed it)), and ("end", None).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    with settings():
        components()
        _bound_memory()
        serve(pipe)


def serve(pipe: Any) -> None:
    """What a worker does until it is told None."""
    while (job := pipe.recv()) is not None:
        name, known, limit = job
        mutated = subject(name)
        source = text_of(mutated.module)
        if limit is None:
            error, limit = clean_passes(source, mutated, mutated.judges[0], harness)
            pipe.send(("clean", (error, limit)))
            if error is not None:
                continue
        try:
            for mutant, verdict in verdicts(source, mutated, harness, limit=limit, skip=known):
                pipe.send(("running", mutant.key) if verdict == RUNNING else ("verdict", (mutant.key, verdict)))
        except UnfitJudge as unfit:
            pipe.send(("clean", (str(unfit), limit)))
            continue
        pipe.send(("end", None))


def _bound_memory() -> None:
    """A mutant that asks for terabytes gets a MemoryError, and the machine stays usable."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every platform
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))


@dataclasses.dataclass
class _Seat:
    """A worker process and what it is doing."""

    worker: Callable[[Any], None]
    study: Study | None = None
    limit: float | None = None
    running: str | None = None
    heard: float = 0.0
    began: float = 0.0
    process: Any = None
    pipe: Any = None

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=self.worker, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.process = None

    def give(self, study: Study) -> None:
        self.study, self.limit, self.running, self.began = study, None, None, time.perf_counter()
        self.resume()

    def resume(self) -> None:
        """(Go on with) the component: what has a verdict is not run again."""
        assert self.study is not None
        if self.process is None:
            self.start()
        self.heard = time.perf_counter()
        self.pipe.send((self.study.name, set(self.study.verdicts), self.limit))

    def died(self, what: str) -> bool:
        """The process is gone or hangs where no alarm is heard; that kills the mutant it ran. Whether the component is finished."""
        self.stop()
        assert self.study is not None
        if self.limit is None or self.running is None:
            self.study.error = f"the clean source does not pass: {what}" if self.limit is None else f"between two mutants: {what}"
            return True
        self.study.verdicts[self.running] = what
        self.running = None
        self.resume()
        return False

    def hear(self) -> bool:
        """One message; whether the component is finished."""
        assert self.study is not None
        try:
            kind, content = self.pipe.recv()
        except (EOFError, OSError):
            return self.died("crash")
        self.heard = time.perf_counter()
        match kind:
            case "clean":
                self.study.error, self.limit = content
                return self.study.error is not None
            case "running":
                self.running = content
            case "verdict":
                key, self.study.verdicts[key] = content[0], content[1]
                self.running = None
        return kind == "end"

    def patience(self) -> float:
        return 20 * (CLEAN if self.limit is None else self.limit) + STALLED


def run_all(
    studies: list[Study], processes: int, tick: Callable[[Study], None], worker: Callable[[Any], None] = _worker
) -> None:
    """Fill in every study, one component to a process at a time, the largest first."""
    waiting = sorted(studies, key=lambda s: len(s.mutants))
    seats = [_Seat(worker) for _ in range(min(processes, len(waiting)))]
    try:
        for seat in seats:
            seat.give(waiting.pop())
        while busy := [seat for seat in seats if seat.study is not None]:
            ready = multiprocessing.connection.wait([seat.pipe for seat in busy], timeout=1.0)
            for seat in busy:
                assert seat.study is not None
                if seat.pipe in ready:
                    finished = seat.hear()
                elif time.perf_counter() - seat.heard > seat.patience():
                    finished = seat.died("time limit")
                else:
                    continue
                if finished:
                    seat.study.seconds = time.perf_counter() - seat.began
                    tick(seat.study)
                    seat.study = None
                    if waiting:
                        seat.give(waiting.pop())
    finally:
        for seat in seats:
            seat.stop()
