"""The processes that measure: one for each BLAS setting, one for what torch.compile makes, one for other libraries; asked in turn."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.peers._environment import environment as of_peers
from byhand import blas


class Worker:
    """A benchmarks.worker process; it starts at the first question.

    label : "default" or "tuned" (which BLAS), "compiled" or "peers"
    """

    def __init__(self, label: str, threads: int, size: str, environment: Mapping[str, str], *, quiet: bool = True):
        counts = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
        self.label, self.threads = label, threads
        self._command = [sys.executable, "-m", "benchmarks.worker", str(threads), size]
        self._environment = {**environment, **counts, "KINETO_LOG_LEVEL": "99"}
        self._errors = subprocess.DEVNULL if quiet else None
        self._process: subprocess.Popen[str] | None = None

    def ask(self, do: str, **question: Any) -> Any:
        """The answer to one question.

        Raises
        ------
        RuntimeError   if the process ends instead of answering
        """
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=self._environment
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do} | question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process = None
            raise RuntimeError(f"the benchmark process ({self.label}, {self.threads} threads) ended with code {process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process, if it was ever started."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


@contextlib.contextmanager
def processes(threads: int, size: str, *, quiet: bool = True) -> Iterator[dict[str, Worker]]:
    """Workers by label; "tuned" only where the CPU has AVX-512 and NumPy its OpenBLAS."""
    plain = {name: value for name, value in os.environ.items() if name != blas.VARIABLE}
    tuned = dict(plain)
    settings = {"default": plain, "compiled": plain, "peers": plain | of_peers(threads)}
    if blas.tune(tuned, loaded=False):
        settings["tuned"] = tuned
    workers = {label: Worker(label, threads, size, environment, quiet=quiet) for label, environment in settings.items()}
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.close()
