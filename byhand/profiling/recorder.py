"""A tree of calls with what each took, and the tables that are sums over it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from byhand.profiling.names import Frame


class Node:
    """Everything that was called by way of the same components.

    calls    how often it was entered
    time     nanoseconds in it, apart from those in its children
    net      bytes that it, apart from its children, allocated and did not free
    peak     the most bytes, above those at its beginning, that there were at once in one of its calls, children included
    device   nanoseconds that the kernels it launched ran on an accelerator
    """

    __slots__ = ("_next", "calls", "children", "device", "frame", "net", "parent", "peak", "time")

    def __init__(self, frame: Frame, parent: "Node | None" = None):
        self.frame, self.parent = frame, parent
        self.children: dict[str, Node] = {}
        self._next: dict[Frame, Node] = {}
        self.calls = self.time = self.net = self.peak = self.device = 0

    def after(self, frame: Frame) -> "Node":
        """The node of a call from here: this one itself, where a component calls what is its own."""
        found = self._next.get(frame)
        if found is None:
            owner = self.owner().frame
            own = owner.goes_on(frame) or (self.frame.kind == "operator" and self.frame.label == frame.label)
            found = self._next[frame] = self if own else self.child(frame)
        return found

    def child(self, frame: Frame) -> "Node":
        if frame.label not in self.children:
            self.children[frame.label] = Node(frame, self)
        return self.children[frame.label]

    def add(self, other: "Node") -> None:
        """Add what another tree says of the same work."""
        self.calls += other.calls
        self.time += other.time
        self.net += other.net
        self.device += other.device
        self.peak = max(self.peak, other.peak)
        for child in other.children.values():
            self.child(child.frame).add(child)

    def walk(self) -> "Iterator[Node]":
        """This node and all below it, parents first."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def sum(self, what: str) -> int:
        """`what` of this node and all below it."""
        return sum(getattr(node, what) for node in self.walk())

    def owner(self) -> "Node":
        """The component that it belongs to, or the work as a whole: operators are part of who calls them."""
        node = self
        while node.frame.kind == "operator" and node.parent is not None:
            node = node.parent
        return node


class Recorder:
    """Makes a tree for every run, told in order what is entered and left. What its own work costs is nobody's time: it stops the clock.

    what : the work as a whole;  clock : the time in nanoseconds
    """

    def __init__(self, what: str, clock: Callable[[], int]):
        self._what, self._clock = what, clock
        self.start()

    def start(self) -> None:
        """A run begins: here, and with an empty tree."""
        self.root = self.node = Node(Frame(self._what, kind="outside"))
        self.root.calls = 1
        self._above: list[Node] = []
        self._last = self._clock()

    def enter(self, frame: Frame) -> None:
        now, node = self._clock(), self.node
        node.time += now - self._last
        self._above.append(node)
        self.node = node.after(frame)
        if self.node is not node:
            self.node.calls += 1
        self._last = self._clock()

    def leave(self) -> None:
        self.node.time += self._clock() - self._last
        self.node = self._above.pop()
        self._last = self._clock()

    def finish(self) -> Node:
        """The run's tree."""
        self.root.time += self._clock() - self._last
        return self.root


class MemoryRecorder(Recorder):
    """The same for bytes, of a single run."""

    def __init__(self, what: str):
        super().__init__(what, lambda: 0)
        self.begin(0)

    def begin(self, now: int) -> None:
        """The run begins with so many bytes."""
        self._now = now
        self._begin, self._most = [now], [now]            # when each call that is open began, and at the most since

    def bytes(self, now: int, most: int) -> None:
        """There are `now` bytes, and there were `most` at once since the last call of this."""
        self.node.net += now - self._now
        self._now = now
        self._most[-1] = max(self._most[-1], most)

    def enter(self, frame: Frame) -> None:
        super().enter(frame)
        self._begin.append(self._now)
        self._most.append(self._now)

    def leave(self) -> None:
        most = self._most.pop()
        self.node.peak = max(self.node.peak, most - self._begin.pop())
        self._most[-1] = max(self._most[-1], most)
        super().leave()

    def finish(self) -> Node:
        self.root.peak = self._most[0] - self._begin[0]
        return super().finish()


@dataclasses.dataclass
class Row:
    """What all calls of a component took together: itself, and with what it calls (total). Nanoseconds and bytes, as in Node."""

    frame: Frame
    calls: int = 0
    time: int = 0
    total: int = 0
    net: int = 0
    peak: int = 0
    device: int = 0

    def add(self, node: Node) -> None:
        """The node alone."""
        self.time += node.time
        self.net += node.net
        self.device += node.device

    def add_calls(self, node: Node) -> None:
        """Its calls, with all that they call unless the same is counted already, of a call further out."""
        self.calls += node.calls
        self.peak = max(self.peak, node.peak)
        above = node.parent
        while above is not None and above.frame.label != node.frame.label:
            above = above.parent
        self.total += node.sum("time") if above is None else 0


def components(root: Node) -> list[Row]:
    """A row for every component and one for the work outside of them, the longest first. Their times add up to the tree's."""
    rows: dict[str, Row] = {}
    for node in root.walk():
        owner = node.owner()
        row = rows.setdefault(owner.frame.label, Row(owner.frame))
        row.add(node)
        if node is owner:
            row.add_calls(node)
    return _longest(rows.values())


def operators(root: Node) -> list[Row]:
    """A row for every operator, the longest first."""
    rows: dict[str, Row] = {}
    for node in root.walk():
        if node.frame.kind == "operator":
            row = rows.setdefault(node.frame.label, Row(node.frame))
            row.add(node)
            row.add_calls(node)
    return _longest(rows.values())


def _longest(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row.time)
