"""Independent pieces of work in several processes, each telling how far it is."""

import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def run(function: Callable[..., Any], tasks: Sequence[tuple], *, jobs: int, report: Callable[..., None]) -> Iterator[tuple[tuple, Any]]:
    """(task, function(report, *task)) of every task, in the order in which they are done; at most `jobs` at a time.

    One job works in this process, tasks in order. Several work in processes of their own, so that `function` must be one that another
    process can import, and what `function` reports arrives here. Leaving the iterator early ends them.

    Raises
    ------
    RuntimeError   if a process ended without saying why (it was killed, say); whatever `function` raises is raised here
    """
    if jobs <= 1:
        for task in tasks:
            yield task, function(report, *task)
        return
    context = multiprocessing.get_context("spawn")  # a forked process would inherit threads that are not there
    waiting, said = context.Queue(), context.Queue()
    for item in [*enumerate(tasks), *[None] * jobs]:
        waiting.put(item)
    workers = [context.Process(target=_serve, args=(function, waiting, said), daemon=True) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.start()
        left = len(tasks)
        while left:
            try:
                kind, task, content = said.get(timeout=1)
            except queue.Empty:
                ended = [worker.exitcode for worker in workers]
                if any(ended) or None not in ended:
                    raise RuntimeError(f"the processes ended before their work, with the exit codes {ended}") from None
                continue
            if kind == "report":
                report(*content)
            elif kind == "error":
                raise content
            else:
                left -= 1
                yield tasks[task], content
    finally:
        waiting.cancel_join_thread()  # nobody will read what is still in there
        for worker in workers:
            worker.terminate()


def _serve(function: Callable[..., Any], waiting: Any, said: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is for the process that waits here, which then ends this one
    for task, arguments in iter(waiting.get, None):
        try:
            result = function(lambda *content, of=task: said.put(("report", of, content)), *arguments)
        except Exception as error:
            said.put(("error", task, error))
            return
        said.put(("result", task, result))
