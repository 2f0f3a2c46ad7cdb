"""From the events that PyTorch's profiler has seen to a tree of components: those of the forward are told by their own marks, and what
autograd does is put below the component whose forward it goes back through."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from byhand.profiling.names import Frame
from byhand.profiling.recorder import MemoryRecorder, Node, Recorder

_NODE = "autograd::engine::evaluate_function: "
_KERNELS = ("kernel", "gpu_memcpy", "gpu_memset")


class _Call(NamedTuple):
    """A call of a component in the forward: its frame, and its number among all calls."""

    frame: Frame
    number: int


class _Open(NamedTuple):
    """What has begun and not ended: when it will, in nanoseconds, None of a component that autograd is going back through; and the call
    that it is, None of an operator."""

    end: int | None
    call: _Call | None


def trees(events: Iterable[Mapping[str, Any]], what: str, frames: Mapping[str, Frame]) -> list[Node]:
    """A tree of the time of every event called `what`.

    events : the traceEvents of a Chrome trace that torch.profiler has written;  frames : the components by the names of their marks
    """
    chosen = list(events)
    device = [event for event in chosen if event.get("cat") in _KERNELS]
    return [_Replay(Recorder, what, frames).run(inside, device) for inside in _runs(chosen, what)]


def memory_trees(events: Iterable[Mapping[str, Any]], what: str, frames: Mapping[str, Frame], *, device: int = 0) -> list[Node]:
    """The same of bytes, of a trace with profile_memory. device : the kind of memory, 0 the host's, 1 a GPU's"""
    chosen = [event for event in events if event.get("name") != "[memory]" or event["args"].get("Device Type") == device]
    return [_Replay(lambda what, _: MemoryRecorder(what), what, frames).run(inside, []) for inside in _runs(chosen, what)]


def _runs(events: Sequence[Mapping[str, Any]], what: str) -> list[list[Mapping[str, Any]]]:
    """For every event called `what`, itself and the events of the host within it, in the order in which they begin."""
    host = [event for event in events if event.get("cat") in ("cpu_op", "user_annotation", "cpu_instant_event") and "ts" in event]
    ordered = sorted(host, key=lambda event: (_begin(event), -_end(event)))
    whole = [event for event in ordered if event["name"] == what and event["cat"] == "user_annotation"]
    return [[event, *(other for other in ordered if other is not event and _begin(event) <= _begin(other) < _end(event))]
            for event in whole]


def _begin(event: Mapping[str, Any]) -> int:
    return round(event["ts"] * 1000)


def _end(event: Mapping[str, Any]) -> int:
    return _begin(event) + round(event.get("dur", 0) * 1000)


class _Replay:
    """The events of one run, told to a recorder in the order of time."""

    def __init__(self, make: Callable[..., Recorder], what: str, frames: Mapping[str, Frame]):
        self._make, self._what, self._frames = make, what, frames
        self._now = self._ended = 0           # nanoseconds; when something ended last
        self._held = 0                        # bytes
        self._stack: list[_Open] = []
        self._forward: dict[int, list[_Call]] = {}
        self._nodes: dict[int, Node] = {}     # of operators, by the numbers that kernels know them by
        self._made: dict[str, Frame] = {}
        self._calls = 0

    def run(self, events: Sequence[Mapping[str, Any]], device: Sequence[Mapping[str, Any]]) -> Node:
        whole, *inside = events
        self._now = self._ended = _begin(whole)
        self._recorder = self._make(self._what, lambda: self._now)
        self._stack = [_Open(_end(whole), None)]
        for event in inside:
            self._close(_begin(event))
            if event["name"] == "[memory]":
                self._allocate(event["args"]["Bytes"])
            elif event["cat"] != "cpu_instant_event":
                self._begin(event)
        self._close(_end(whole))
        self._now = _end(whole)
        root = self._recorder.finish()
        for event in device:
            node = self._nodes.get(event.get("args", {}).get("External id", -1))
            if node is not None:
                node.device += round(event["dur"] * 1000)
        return root

    def _allocate(self, size: int) -> None:
        if isinstance(self._recorder, MemoryRecorder):
            self._recorder.bytes(self._held + size, max(self._held, self._held + size))
        self._held += size

    def _begin(self, event: Mapping[str, Any]) -> None:
        args, back = event.get("args", {}), event["name"].startswith(_NODE)
        sequence = args.get("Sequence number", -1)
        if not back or sequence in self._forward:         # a node of no operator adds to a gradient: it is part of what was before
            self._go_back(self._forward[sequence] if back else [], _begin(event))
        frame, call = self._frame(event), None
        self._enter(frame, _begin(event))
        if frame.kind != "operator":
            self._calls += 1
            call = _Call(frame, self._calls)
        elif sequence >= 0 and not args.get("Fwd thread id"):           # the last operator of a number is the one that autograd means
            self._forward[sequence] = [entry.call for entry in self._stack if entry.call is not None]
        if "External id" in args:
            self._nodes[args["External id"]] = self._recorder.node
        latest = next(entry.end for entry in reversed(self._stack) if entry.end is not None)
        self._stack.append(_Open(min(_end(event), latest), call))

    def _go_back(self, path: list[_Call], now: int) -> None:
        """Stand below the components of a path of the forward. Of those that stand there since the event before, the ones that are in
        the path too go on; the others end."""
        base = max(i for i, entry in enumerate(self._stack) if entry.end is not None) + 1
        above = {entry.call.number for entry in self._stack[:base] if entry.call is not None}
        wanted = [call for call in path if call.number not in above]
        there = [entry.call for entry in self._stack[base:]]
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(wanted, there, strict=False)))
        while len(self._stack) > base + same:
            self._leave(self._ended)
        for call in wanted[same:]:
            self._enter(self._turned(call.frame), now)
            self._stack.append(_Open(None, call))

    def _close(self, until: int) -> None:
        """End what ends before."""
        while True:
            i = max(i for i, entry in enumerate(self._stack) if entry.end is not None)
            end = self._stack[i].end
            if i == 0 or end is None or end > until:
                return
            while len(self._stack) > i + 1:
                self._leave(self._ended)
            self._leave(end)

    def _enter(self, frame: Frame, now: int) -> None:
        self._now = now
        self._recorder.enter(frame)

    def _leave(self, now: int) -> None:
        self._now = self._ended = now
        self._recorder.leave()
        self._stack.pop()

    def _turned(self, frame: Frame) -> Frame:
        """The component's backward."""
        return self._made.setdefault(f"{frame.name} backward", frame.backward())

    def _frame(self, event: Mapping[str, Any]) -> Frame:
        name = event["name"].removeprefix(_NODE)
        if event["cat"] == "user_annotation" and name in self._frames:
            return self._frames[name]
        return self._made.setdefault(name, Frame(name, kind="operator"))
