"""PyTorch's events as a tree of components, and trees as files."""

import json
import sys
import types
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from byhand.profiling.flame import folded, speedscope
from byhand.profiling.flame_svg import draw
from byhand.profiling.measure import summary
from byhand.profiling.names import Frame
from byhand.profiling.recorder import components, operators
from byhand.profiling.torch_profile import profile_torch
from byhand.profiling.torch_trace import memory_trees, trees

FRAMES = {frame.label: frame for frame in (Frame("layers.Block", "forward"), Frame("ops.linear", "forward"), Frame("ops.gelu", "forward"))}
NODE = "autograd::engine::evaluate_function: "


def event(name, begin, end, *, cat="cpu_op", number=None, forward_thread=0, external=None):
    args = {} if number is None else {"Sequence number": number, "Fwd thread id": forward_thread}
    if external is not None:
        args["External id"] = external
    return dict(name=name, cat=cat, ph="X", ts=begin, dur=end - begin, args=args)


def mark(name, begin, end):
    return event(name, begin, end, cat="user_annotation")


def allocation(at, size, kind=0):
    return dict(name="[memory]", cat="cpu_instant_event", ph="i", ts=at, args={"Bytes": size, "Device Type": kind})


# two layers, each with a linear map; the backward goes through the second one first, and adds up gradients in between
EVENTS = [
    mark("step", 0, 100),
    mark("layers.Block forward", 5, 30), mark("ops.linear forward", 10, 20),
    event("aten::linear", 11, 18, number=1), event("aten::addmm", 12, 17, number=2, external=7),
    mark("ops.gelu forward", 20, 25), event("aten::gelu", 21, 24, number=3),
    mark("layers.Block forward", 30, 40), mark("ops.linear forward", 31, 39), event("aten::addmm", 32, 38, number=4),
    event(NODE + "AddmmBackward0", 50, 56, number=4, forward_thread=1), event("AddmmBackward0", 51, 55, number=4, forward_thread=1),
    event("aten::mm", 52, 54, external=8),
    event(NODE + "torch::autograd::AccumulateGrad", 56, 58),
    event(NODE + "GeluBackward0", 60, 66, number=3, forward_thread=1), event("aten::gelu_backward", 61, 65),
    event(NODE + "AddmmBackward0", 67, 77, number=2, forward_thread=1), event("aten::mm", 68, 79),          # ends late: clipped
    event(NODE + "TBackward0", 78, 80, number=1, forward_thread=1),
    event("aten::add_", 90, 95),
    event("aten::mul", 100, 120),                                                                          # after the step
    dict(name="gemm", cat="kernel", ph="X", ts=200, dur=30, args={"External id": 7}),
    dict(name="gemm", cat="kernel", ph="X", ts=240, dur=50, args={"External id": 8}),
]


def rows(found):
    return {row.frame.label: row for row in found}


def test_autograd_works_below_the_components_that_it_goes_back_through():
    (root,) = trees(EVENTS, "step", FRAMES)
    found = rows(components(root))
    assert {name: (row.calls, row.time, row.total) for name, row in found.items()} == {
        "step": (1, 37_000, 100_000),
        "layers.Block forward": (2, 12_000, 35_000), "ops.linear forward": (2, 18_000, 18_000), "ops.gelu forward": (1, 5_000, 5_000),
        # two layers, each one entry, though autograd's own engine has its time between the nodes
        "layers.Block backward": (2, 1_000, 28_000), "ops.linear backward": (2, 21_000, 21_000), "ops.gelu backward": (1, 6_000, 6_000),
    }
    assert sum(row.time for row in found.values()) == 100_000
    assert (found["ops.linear forward"].device, found["ops.linear backward"].device) == (30_000, 50_000)
    made = rows(operators(root))
    assert made["aten::mm"].calls == 2 and made["aten::mm"].time == (2 + 9) * 1000
    assert made["AddmmBackward0"].calls == 2 and "aten::mul" not in made
    assert made["torch::autograd::AccumulateGrad"].time == 2_000


def test_allocations_go_to_what_is_open_on_the_device_asked_for():
    held = [*EVENTS, allocation(13, 1000), allocation(14, -400), allocation(53, 300), allocation(92, -900), allocation(15, 5, kind=1)]
    (root,) = memory_trees(held, "step", FRAMES)
    found = rows(components(root))
    assert {name: (row.net, row.peak) for name, row in found.items() if row.net or row.peak} == {
        "step": (-900, 1000), "layers.Block forward": (0, 1000), "ops.linear forward": (600, 1000), "layers.Block backward": (0, 300),
        "ops.linear backward": (300, 300)}
    (root,) = memory_trees(held, "step", FRAMES, device=1)
    assert root.sum("net") == root.peak == 5


def test_every_run_is_a_tree_of_its_own():
    again = [dict(one, ts=one["ts"] + 1000, args={name: value + 100 if name == "Sequence number" else value
                                                  for name, value in one["args"].items()}) for one in EVENTS]
    one, other = trees([*EVENTS, *again], "step", FRAMES)
    assert [(row.frame.label, row.time) for row in components(one)] == [(row.frame.label, row.time) for row in components(other)]


@pytest.fixture
def profile():
    (root,), (memory,) = trees(EVENTS, "step", FRAMES), memory_trees(EVENTS, "step", FRAMES)
    return summary("step", [0.1], [0.1], [root], memory)


def test_an_svg_has_a_box_for_every_entry_as_wide_as_its_time(profile):
    page = draw(profile, "a <model> & BOXES HEAD LEGEND")
    root = ElementTree.fromstring(page)
    space = "{http://www.w3.org/2000/svg}"
    boxes = root.findall(f"{space}svg")
    titles = [box.find(f"{space}title").text.splitlines()[0] for box in boxes]
    assert titles[:4] == ["step", "layers.Block forward", "ops.linear forward", "aten::linear"]
    assert {"ops.linear backward", "aten::mm", "torch::autograd::AccumulateGrad"} <= set(titles)
    width = {title: float(box.get("width")) for title, box in zip(titles, boxes, strict=True)}
    assert (width["step"], width["layers.Block forward"], width["layers.Block backward"]) == (1200, 35 * 12, 28 * 12)
    assert root.find(f"{space}text").text == "a <model> & BOXES HEAD LEGEND: 0.100 ms a step"
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")           # it needs nothing else


def test_speedscope_gets_every_stack_and_all_time(profile):
    found = json.loads(speedscope(profile, "a model"))
    assert found["$schema"] == "https://www.speedscope.app/file-format-schema.json" and found["name"] == "a model"
    (made,) = found["profiles"]
    names = [frame["name"] for frame in found["shared"]["frames"]]
    assert (made["type"], made["unit"], made["startValue"], made["endValue"]) == ("sampled", "nanoseconds", 0, 100_000)
    assert len(made["samples"]) == len(made["weights"]) and sum(made["weights"]) == 100_000 and min(made["weights"]) > 0
    stacks = {tuple(names[i] for i in sample): weight for sample, weight in zip(made["samples"], made["weights"], strict=True)}
    assert stacks["step", "layers.Block forward", "ops.linear forward", "aten::linear"] == 2_000
    assert len(stacks) == len(made["samples"]) and len(set(names)) == len(names)


def test_folded_stacks_are_microseconds(profile):
    lines = dict(line.rsplit(" ", 1) for line in folded(profile, "").splitlines())
    assert sum(map(int, lines.values())) == 100
    assert lines["step;layers.Block forward;ops.gelu forward;aten::gelu"] == "3"


PLANTED = """
import time
import torch

class _Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        time.sleep(0.02)
        return x + 1
    @staticmethod
    def backward(ctx, dy):
        time.sleep(0.05)
        return dy * 1

def planted(x):
    return _Slow.apply(x)
"""


def test_a_slow_function_of_torch_is_found_forward_and_backward_apart(monkeypatch):
    from torch_impl.ops.linear import linear

    module, twin = (types.ModuleType(f"{side}_impl.ops.planted_op") for side in ("torch", "numpy"))
    for made in (module, twin):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(PLANTED, "planted_op.py", "exec"), module.__dict__)
    exec("from collections.abc import Callable\ndef planted(x) -> tuple[object, Callable]: ...", twin.__dict__)
    x, weight = torch.ones(300, 30), torch.ones(2, 30, requires_grad=True)

    def run():
        y = module.planted(linear(x, weight))
        y.sum().backward()
        weight.grad = None

    profile = profile_torch("work", run, runs=2, warmup=1)
    found = components(profile.time)
    assert [row.frame.label for row in found[:2]] == ["ops.planted backward", "ops.planted forward"]
    assert [row.calls / profile.runs for row in found[:2]] == [1, 1]
    assert found[0].time / profile.runs >= 50e6 and found[1].time / profile.runs >= 20e6
    assert {"ops.linear forward", "ops.linear backward", "work"} <= {row.frame.label for row in found}
    assert sum(row.time for row in found) == profile.time.sum("time")
    assert {"aten::addmm", "aten::mm"} & {row.frame.label for row in operators(profile.time)}
    held = rows(components(profile.memory))
    assert held["ops.linear forward"].net == 300 * 2 * 4 and held["ops.planted forward"].net == 300 * 2 * 4
    assert profile.plain >= 70
