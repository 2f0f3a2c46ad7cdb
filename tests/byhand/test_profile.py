"""What is measured of whom: calls and times of components and their pullbacks, without a bit of what they compute being changed."""

import sys
import types

import numpy as np
import pytest

from byhand.commands.profile import training_step
from byhand.profiling.measure import profile_numpy
from byhand.profiling.names import Frame, components_of
from byhand.profiling.options import StepOptions
from byhand.profiling.recorder import MemoryRecorder, Recorder, components
from byhand.profiling.watch import watched
from numpy_impl.ops.linear import linear

PLANTED = """
import time
from collections.abc import Callable

import numpy as np

def planted(x) -> tuple[object, Callable]:
    time.sleep(0.02)
    def backward(dy):
        time.sleep(0.05)
        return dy
    return x + 0, backward

def shared(x) -> tuple[object, Callable]:
    return _private(x)

def three(x) -> tuple[object, int, Callable]:
    y, backward = _private(x)
    return y, 7, backward

def _private(x):
    def backward(dy):
        return 2 * dy
    return 2 * x, backward

def keeps(x) -> tuple[object, Callable]:
    scratch = np.ones(1 << 20)                  # 8 MiB, and 4 more that are kept
    kept = np.ones(1 << 19)
    del scratch
    return kept, lambda dy: dy
"""


@pytest.fixture
def op(monkeypatch):
    """A file of components that stands in no directory."""
    module = types.ModuleType("numpy_impl.ops.planted_op")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(PLANTED, "planted_op.py", "exec"), module.__dict__)
    return module


def rows(tree):
    return {row.frame.label: row for row in components(tree)}


def test_a_recorder_gives_every_moment_to_one_entry():
    now = iter(range(0, 1000, 7))
    recorder = Recorder("step", lambda: next(now))
    outer, inner, method = Frame("layers.A", "forward"), Frame("ops.b", "forward"), Frame("layers.A", inherits=True)
    recorder.enter(outer)
    recorder.enter(method)                                  # its own method is the same call
    recorder.enter(inner)
    recorder.leave()
    recorder.leave()
    recorder.leave()
    recorder.enter(method)                                  # called by someone else it is an entry of its own
    recorder.leave()
    root = recorder.finish()
    found = rows(root)
    assert [(name, row.calls) for name, row in found.items()] == [
        ("layers.A forward", 1), ("step", 1), ("ops.b forward", 1), ("layers.A", 1)]
    assert found["layers.A forward"].time == 4 * 7 and found["layers.A forward"].total == 5 * 7
    assert sum(row.time for row in found.values()) == root.sum("time") == found["step"].total == 9 * 7
    assert next(now) == (9 + 8 + 1) * 7                     # of which it had eight to write things down


def test_a_component_inside_itself_counts_once_in_the_total():
    now = iter(range(100))
    recorder = Recorder("step", lambda: next(now))
    a, b = Frame("ops.a"), Frame("ops.b")
    for frame in (a, b, a):
        recorder.enter(frame)
    for _ in range(3):
        recorder.leave()
    found = rows(recorder.finish())
    assert (found["ops.a"].calls, found["ops.a"].time, found["ops.a"].total) == (2, 3, 5)
    assert (found["ops.b"].time, found["ops.b"].total) == (2, 3)


def test_memory_goes_to_who_allocates_and_peaks_to_all_above():
    recorder = MemoryRecorder("step")
    recorder.begin(100)
    recorder.enter(Frame("layers.A"))
    recorder.enter(Frame("ops.b"))
    recorder.bytes(130, 180)
    recorder.leave()
    recorder.bytes(120, 130)
    recorder.leave()
    root = recorder.finish()
    found = rows(root)
    assert {name: (row.net, row.peak) for name, row in found.items()} == {"step": (0, 80), "layers.A": (-10, 80), "ops.b": (30, 80)}
    assert root.sum("net") == 20


def test_a_slow_op_is_found_under_its_name_forward_and_backward_apart(op):
    x, weight = np.ones((4, 3)), np.ones((2, 3))

    def run():
        y, backward = op.planted(x)
        z, linear_backward = linear(y, weight)
        backward(linear_backward(z)[0])

    profile = profile_numpy("work", run, runs=3, warmup=1)
    found = components(profile.time)
    assert [row.frame.label for row in found[:2]] == ["ops.planted backward", "ops.planted forward"]
    assert [row.calls / profile.runs for row in found] == [1] * len(found)
    assert {row.frame.label for row in found[2:]} == {"ops.linear forward", "ops.linear backward", "work"}
    seconds = [row.time / profile.runs / 1e9 for row in found[:2]]
    assert seconds[0] >= 0.05 and seconds[1] >= 0.02        # a busy machine may sleep longer
    assert sum(row.time for row in found) == profile.time.sum("time")
    assert profile.plain >= 70 and profile.watched >= 70 and profile.runs == 2


def test_memory_is_what_is_kept_and_what_was_needed(op):
    profile = profile_numpy("work", lambda: op.keeps(None)[0].sum(), runs=1, warmup=0)
    row = rows(profile.memory)["ops.keeps forward"]
    assert row.net == pytest.approx(4 << 20, abs=1 << 14) and row.peak == pytest.approx(12 << 20, abs=1 << 14)
    assert profile.memory.peak == pytest.approx(12 << 20, abs=1 << 15)
    assert profile.memory.sum("net") == pytest.approx(0, abs=1 << 15)


def test_a_pullback_bears_the_name_of_the_component_that_returned_it(op):
    seen = []
    with watched("numpy_impl", lambda frame: seen.append(frame.label), lambda: None):
        (y, backward), (other, seven, other_backward) = op.shared(3), op.three(4)
    assert (y, other, seven) == (6, 8, 7)
    assert (backward(1), other_backward(2)) == (2, 4)       # it remains a pullback, and told of
    assert seen == ["ops.shared forward", "ops.three forward", "ops.shared backward", "ops.three backward"]


def test_a_method_may_call_that_of_the_class_it_extends(monkeypatch):
    module = types.ModuleType("numpy_impl.layers.planted_layer")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(LAYER, module.__dict__)
    seen = []
    with watched("numpy_impl", lambda frame: seen.append(frame.label), lambda: None):
        y, backward = module.Twice().forward(3)
        assert (y, backward(1), module.Twice()(3)) == (8, 2, 8)
    assert seen == ["layers.Twice forward"] * 2 + ["layers.Twice backward"] * 2 + ["layers.Twice forward"] * 2


LAYER = """
from collections.abc import Callable
from numpy_impl.layers.module import Module

class Once(Module):
    def forward(self, x) -> tuple[object, Callable]:
        return x + 1, lambda dy: dy

class Twice(Once):
    def forward(self, x) -> tuple[object, Callable]:
        y, backward = super().forward(x)
        return y * 2, lambda dy: 2 * backward(dy)
"""


def codes():
    return {component.function: component.function.__code__ for component in components_of("numpy_impl")}


def test_what_held_a_function_before_still_holds_it_and_all_code_comes_back(op):
    before, table, held = codes(), {"linear": linear}, op.planted
    seen = []

    def work():
        with watched("numpy_impl", lambda frame: seen.append(frame.name), lambda: seen.append("left")):
            assert table["linear"] is linear and held is op.planted
            table["linear"](np.ones((2, 3)), np.ones((2, 3)))
            linear(np.ones((2, 3)), np.ones((2, 4)))

    with pytest.raises(ValueError, match="linear needs"):
        work()
    assert seen == ["ops.linear", "left"] * 2
    assert codes() == before and len(before) >= 4
    linear(np.ones((2, 3)), np.ones((2, 3)))
    assert len(seen) == 4


@pytest.mark.parametrize("model, backend", [
    ("gpt2-nano", "numpy"), ("llama-nano", "numpy"), ("mixtral-nano", "numpy"), ("gpt2-nano", "torch"), ("mixtral-nano", "torch")])
@pytest.mark.parametrize("recompute", [False, True])
def test_not_a_bit_of_a_step_is_changed(model, backend, recompute):
    options = StepOptions(backend=backend, batch=2, length=8, dropout=0.2, recompute=recompute)

    def steps(count, context):
        _, run = training_step(model, options)
        found = []
        for i in range(count):
            if i == 1:
                with context():
                    found.append(run()[:4])
            else:
                found.append(run()[:4])
        return found

    entered = []
    plain = steps(3, lambda: watched("parity", print, print))          # of which nothing is a component
    seen = steps(3, lambda: watched(f"{backend}_impl", lambda frame: entered.append(frame.label), lambda: None))
    assert seen == plain and len(entered) > 50              # loss, lr, norms of gradients and weights


def test_the_calls_of_a_step_are_those_of_its_layers():
    _, run = training_step("llama-nano", StepOptions(batch=2, length=8, recompute=False))
    profile = profile_numpy("step", run, runs=1, warmup=1)
    found = rows(profile.time)
    assert found["models.Llama forward"].calls == found["models.Llama backward"].calls == 1
    blocks = found["layers.LlamaBlock forward"].calls
    assert blocks == found["layers.LlamaBlock backward"].calls == 2
    assert found["ops.swiglu forward"].calls == found["ops.swiglu backward"].calls == blocks
    assert found["ops.linear backward"].calls == found["ops.linear forward"].calls == 7 * blocks
    assert found["optim.AdamW"].calls == found["train.train_step"].calls == 1
    assert found["train.train_step"].total >= 0.9 * profile.time.sum("time")
    assert profile.memory.peak > 100_000
