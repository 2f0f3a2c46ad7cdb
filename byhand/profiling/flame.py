"""A tree of calls as a file: a flame graph that any browser shows, speedscope's JSON, or collapsed stacks."""

import json
from collections.abc import Iterator
from pathlib import Path

from byhand.profiling.flame_svg import draw
from byhand.profiling.measure import Profile
from byhand.profiling.recorder import Node
from byhand.run_directory import write_whole

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write_flame(path: Path, profile: Profile, *, title: str) -> None:
    """Write the time of a profile, a run of the work wide.

    .svg            opens in a browser, alone: point at a box to read it, click to make it as wide as the picture
    .json           speedscope's format (speedscope.app, or its program, which needs no network)
    .folded, .txt   a stack a line with its microseconds, as flamegraph.pl and inferno read them
    """
    write = {".svg": draw, ".json": speedscope}.get(path.suffix.lower(), folded)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write(profile, title).encode())


def speedscope(profile: Profile, title: str) -> str:
    """Every stack once, with its time: one profile of the kind "sampled".

    Source: speedscope, src/lib/file-format-spec.ts
    """
    names: dict[str, int] = {}
    samples, weights = [], []
    for stack in _stacks(profile.time):
        samples.append([names.setdefault(node.frame.label, len(names)) for node in stack])
        weights.append(stack[-1].time / profile.runs)
    made = dict(type="sampled", name=f"{profile.what}, {title}", unit="nanoseconds", startValue=0, endValue=sum(weights), samples=samples,
                weights=weights)
    return json.dumps({"$schema": _SCHEMA, "shared": {"frames": [{"name": name} for name in names]}, "profiles": [made], "name": title,
                       "activeProfileIndex": 0, "exporter": "byhand profile"})


def folded(profile: Profile, title: str) -> str:
    """"step;train.train_step;train.accumulate 1234", a line a stack."""
    lines = []
    for stack in _stacks(profile.time):
        time = round(stack[-1].time / profile.runs / 1000)
        if time:
            lines.append(";".join(node.frame.label.replace(";", ",") for node in stack) + f" {time}\n")
    return "".join(lines)


def _stacks(root: Node, above: tuple[Node, ...] = ()) -> Iterator[tuple[Node, ...]]:
    """Every node behind those that it was called from, as they first came, what a call did itself behind what it called."""
    stack = (*above, root)
    for child in root.children.values():
        yield from _stacks(child, stack)
    if root.time:
        yield stack
