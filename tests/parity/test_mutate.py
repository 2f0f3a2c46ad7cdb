"""Mutants: each operator on a small source, nothing changed that must not be, and a figure that can fail."""

import contextlib
import inspect
import io
import json
import multiprocessing
import os
import sys
import time

import numpy as np
import pytest
from rich.console import Console

import numpy_impl.ops.layer_norm
from parity import judge, workers
from parity import mutants as runner
from parity.mutate import mutants
from parity.registry import Component, find
from parity.study import Study, Subject, of_component, shared, subject, summary, text_of

LAYER_NORM = inspect.getsource(numpy_impl.ops.layer_norm)


def changes(body: str, operator: str | None = None, name: str = "f") -> list[str]:
    """The keys of `name`'s mutants; a body of one line stands in f(x, y)."""
    source = body if "def f" in body else f"def f(x, y, c=None):\n    {body}\n"
    return [m.key for m in mutants(source, name) if operator in (None, m.operator)]


@pytest.mark.parametrize(
    "body, operator, keys",
    [
        ("return x + y", "swap an operator", ["x + y -> x - y"]),
        ("return x - y", "swap an operator", ["x - y -> x + y"]),
        ("return x * y", "swap an operator", ["x * y -> x / y"]),
        ("return x / y", "swap an operator", ["x / y -> x * y"]),
        ("return x // y", "swap an operator", ["x // y -> x % y"]),
        ("return x % y", "swap an operator", ["x % y -> x // y"]),
        ("return x ** y", "swap an operator", ["x ** y -> x * y"]),
        ("return x & y", "swap an operator", ["x & y -> x | y"]),
        ("return x | y", "swap an operator", ["x | y -> x & y"]),
        ("return x @ y", None, []),
        ("return np.add(x, y)", "swap an operator", ["np.add(x, y) -> np.subtract(x, y)"]),
        ("return each(np.multiply, x)", "swap an operator", ["each(np.multiply, x) -> each(np.divide, x)"]),
        ("g = np.maximum", "max <-> min", ["g = np.maximum -> g = np.minimum"]),
        ("x += y", "swap an operator", ["x += y -> x -= y"]),
        ("x -= y", "swap an operator", ["x -= y -> x += y"]),
        ("x *= y", "swap an operator", ["x *= y -> x /= y"]),
        ("x /= y", "swap an operator", ["x /= y -> x *= y"]),
        ("return x + y", "drop a term", ["x + y -> y", "x + y -> x"]),
        ("return x - y", "drop a term", ["x - y -> -y", "x - y -> x"]),
        ("return x * y", "drop a term", ["x * y -> y", "x * y -> x"]),
        ("return x / y", "drop a term", ["x / y -> x"]),
        ("return np.multiply(x, y)", "drop a term", ["np.multiply(x, y) -> np.multiply(1, y)", "np.multiply(x, y) -> np.multiply(x, 1)"]),
        ("return -x", "drop a negation", ["-x -> x"]),
        ("return not x", "drop a negation", ["not x -> x"]),
        ("return ~x", "drop a negation", ["~x -> x"]),
        ("return x * -2.0", "drop a negation", ["x * -2.0 -> x * 2.0"]),
        ("return x.sum(-1)", "integer + 1", ["x.sum(-1) -> x.sum(0)"]),
        ("return x.sum(axis=0)", "integer + 1", ["x.sum(axis=0) -> x.sum(axis=1)"]),
        ("return x.sum((0, 1))", "integer + 1", ["x.sum((0, 1)) -> x.sum((1, 1))", "x.sum((0, 1)) -> x.sum((0, 2))"]),
        ("return x[1:]", "integer + 1", ["x[1:] -> x[2:]"]),
        ("return x.sum(keepdims=True)", "flip a boolean", ["x.sum(keepdims=True) -> x.sum(keepdims=False)"]),
        ("return x.T", "drop a transpose", ["x.T -> x"]),
        ("return x.mT", "drop a transpose", ["x.mT -> x"]),
        ("return x.swapaxes(c, y)", "drop a transpose", ["x.swapaxes(c, y) -> x"]),
        ("return x.transpose(c)", "drop a transpose", ["x.transpose(c) -> x"]),
        ("return np.swapaxes(x, c, y)", "drop a transpose", ["np.swapaxes(x, c, y) -> x"]),
        ("return np.moveaxis(x, c, y)", "drop a transpose", ["np.moveaxis(x, c, y) -> x"]),
        ("return np.transpose(x)", "drop a transpose", ["np.transpose(x) -> x"]),
        ("return x.sum()", "sum <-> mean", ["x.sum() -> x.mean()"]),
        ("return np.mean(x)", "sum <-> mean", ["np.mean(x) -> np.sum(x)"]),
        ("return x.max()", "max <-> min", ["x.max() -> x.min()"]),
        ("return min(x, y)", "max <-> min", ["min(x, y) -> max(x, y)"]),
        ("return np.maximum(x, y)", "max <-> min", ["np.maximum(x, y) -> np.minimum(x, y)"]),
        ("return np.minimum.reduce(x)", "max <-> min", ["np.minimum.reduce(x) -> np.maximum.reduce(x)"]),
        ("return x, y, c", "swap what is returned", ["(x, y, c) -> (y, x, c)", "(x, y, c) -> (x, c, y)"]),
        ("return Out(x, y)", "swap what is returned", ["Out(x, y) -> Out(y, x)"]),
        ("return Out(a=x, b=y)", "swap what is returned", ["Out(a=x, b=y) -> Out(a=y, b=x)"]),
        ("return {'a': x, 'b': y}", "swap what is returned", ["{'a': x, 'b': y} -> {'a': y, 'b': x}"]),
        ("return x, self.grads(a=x, b=y)", "swap what is returned",
         ["(x, self.grads(a=x, b=y)) -> (self.grads(a=x, b=y), x)", "self.grads(a=x, b=y) -> self.grads(a=y, b=x)"]),
        ("return x * 0.5", "constant", ["x * 0.5 -> x * 0.5005", "x * 0.5 -> x * 0.5000005"]),
        ("return x * 0.0", "constant", ["x * 0.0 -> x * 1.0"]),
        ("return x(math.pi)", "constant", ["x(math.pi) -> x(math.pi * 1.001)", "x(math.pi) -> x(math.pi * 1.000001)"]),
        ("return x < y", "comparison", ["x < y -> x <= y"]),
        ("return x >= y", "comparison", ["x >= y -> x > y"]),
        ("return x == y", "comparison", ["x == y -> x != y"]),
        ("return x is y", "comparison", ["x is y -> x is not y"]),
        ("return x and y", "and <-> or", ["x and y -> x or y"]),
        ("return x or y", "and <-> or", ["x or y -> x and y"]),
        ("return x(True)", "flip a boolean", ["x(True) -> x(False)"]),
        ("np.add.at(x, c, y)", "np.add.at -> fancy +=", ["np.add.at(x, c, y) -> x[c] += y"]),
        ("x *= y", "drop a statement", ["x *= y -> pass"]),
        ("x[c] = y", "drop a statement", ["x[c] = y -> pass"]),
        ("np.exp(x, out=x)", "drop a statement", ["np.exp(x, out=x) -> pass"]),
        ("return np.where(c, x, y)", "swap the branches of where", ["np.where(c, x, y) -> np.where(c, y, x)"]),
    ],
)
def test_each_operator_makes_exactly_its_changes(body, operator, keys):
    assert changes(body, operator) == keys


def test_defaults_are_changed_and_named_by_their_parameter():
    source = "def f(x, n=1, *, eps: float = 1e-5, flag: bool = True):\n    return x\n"
    assert changes(source) == ["n=1 -> n=2", "eps=1e-05 -> eps=1.001e-05", "eps=1e-05 -> eps=1.000001e-05",
                               "flag=True -> flag=False"]


@pytest.mark.parametrize(
    "source",
    [
        'def f(x):\n    """1 + 1 is 2."""\n    return x\n',
        "def f(x: 'a[1]' = None) -> 'b | c':\n    y: NDArray[1 + 1] = x\n    return y\n",
        "@cache(1)\ndef f(x):\n    return x\n",
        "def f(x):\n    raise ValueError(f'needs {x + 1}' + 'more' * 3)\n",
        "def f(x):\n    return f'{x + 1}'\n",
        "from byhand.checks import demand\ndef f(x):\n    demand('f', x == x, f'{x + 1}', got=x + 1)\n    return x\n",
        "def f(x):\n    return zip(x, strict=True) @ x.astype(c, copy=False)\n",
        "def other(x):\n    return x + 1\ndef _unreached(x):\n    return x + 1\n_K = 1.0\ndef f(x):\n    return other(x)\n",
    ],
)
def test_what_is_not_code_of_the_component_is_left_alone(source):
    assert changes(source) == []


def test_of_a_check_only_the_numbers_change_and_by_one():
    source = "from byhand.checks import size, in_range\n" \
             "def f(x, p):\n    size('f', at_least=1, x=x)\n    in_range('f', 0.0, 1.0, p=-p * 2)\n"
    assert changes(source) == ["size('f', at_least=1, x=x) -> size('f', at_least=2, x=x)",
                               "in_range('f', 0.0, 1.0, p=-p * 2) -> in_range('f', 1.0, 1.0, p=-p * 2)",
                               "in_range('f', 0.0, 1.0, p=-p * 2) -> in_range('f', 0.0, 2.0, p=-p * 2)"]


def test_private_helpers_and_constants_are_reached_and_what_only_pullbacks_use_is_backward():
    source = ("_TABLE = (0.5, 2.5)\n_SCALE = 3.0\n"
              "def _poly(x):\n    return x * _TABLE[0]\n"
              "def _unbroadcast(dy):\n    return -dy * _SCALE\n"
              "def f(x):\n    def pull(dy):\n        return _unbroadcast(_poly(dy))\n    return _poly(x), pull\n")
    found = mutants(source, "f")
    where = {m.within: m.where for m in found}
    assert where == {"_TABLE": "forward", "_SCALE": "backward", "_poly": "forward", "_unbroadcast": "backward"}
    assert [m.after for m in found if m.within == "_SCALE"] == ["_SCALE = 3.003", "_SCALE = 3.000003"]


@pytest.mark.parametrize("pullback", ["def backward(dy):\n        return dy + 1\n    return x, backward",
                                      "def my_backward(dy):\n        return dy + 1\n    return x, None",
                                      "def pull(dy):\n        return dy + 1\n    return x, pull",
                                      "def pull(dy):\n        return dy + 1\n    return x, None if x else pull",
                                      "pull = lambda dy: dy + 1\n    return x, pull",
                                      "return x, lambda dy: dy + 1"])
def test_a_pullback_is_backward_whatever_its_name(pullback):
    found = mutants(f"def f(x):\n    {pullback}\n", "f")
    assert {m.where for m in found if m.before == "dy + 1"} == {"backward"}
    assert not any("pull" in m.key for m in found)  # (y, pullback) is no pair of gradients


def test_every_mutant_is_another_source_that_compiles_and_the_same_change_twice_is_numbered():
    source = "def f(x):\n    a = x + x\n    b = x + x\n    return a @ b\n"
    found = mutants(source, "f")
    assert [m.key for m in found] == ["x + x -> x - x", "x + x -> x", "x + x -> x - x #2", "x + x -> x #2"]
    assert [m.line for m in found] == [2, 2, 3, 3]
    assert len({m.source() for m in found}) == len(found)
    for m in found:
        compile(m.source(), "mutant", "exec")


def test_keys_do_not_depend_on_layout_or_comments():
    moved = "\n\n# moved\n" + LAYER_NORM.replace("def backward(dy):", "def backward(  # here\n            dy\n    ):")
    assert [m.key for m in mutants(LAYER_NORM, "layer_norm")] == [m.key for m in mutants(moved, "layer_norm")]


def test_layer_norm_yields_the_mistakes_one_makes_by_hand():
    found = {m.key: m for m in mutants(LAYER_NORM, "layer_norm")}
    both = {(m.operator, m.where) for m in found.values()}
    assert {"eps=1e-05 -> eps=1.001e-05", "eps=1e-05 -> eps=1.000001e-05"} <= found.keys()
    assert any("eps" in m.before and "eps" not in m.after and m.operator == "drop a term" for m in found.values())
    for operator in ("swap an operator", "drop a term", "comparison", "drop a statement", "swap what is returned"):
        assert (operator, "backward") in both
    assert 50 < len(found) < 250


def test_a_class_is_changed_in_all_its_methods():
    source = "class Layer(Module):\n    def __init__(self, n=2):\n        self.n = n\n" \
             "    def forward(self, x):\n        def backward(dy):\n            return -dy\n        return x + self.n, backward\n"
    assert [(m.where, m.key) for m in mutants(source, "Layer")] == [
        ("forward", "n=2 -> n=3"), ("backward", "-dy -> dy"), ("forward", "x + self.n -> x - self.n"),
        ("forward", "x + self.n -> self.n"), ("forward", "x + self.n -> x")]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'layer_nrm'.*did you mean 'layer_norm'"):
        mutants(LAYER_NORM, "layer_nrm")


# --- running them ------------------------------------------------------------------------------------------------------------------

DOUBLE = """
def double(x, *, times=2):
    def backward(dy):
        return times * dy
    return times * x, backward
"""


def fake(name: str = "double", file: str = "double", **options) -> Component:
    """A component that stands in no registry; its judge knows what to do with it."""
    return Component(f"ops.{name}", f"ops.{file}", draw=lambda draw: {}, **options)


def alone(name: str = "double", **options) -> Subject:
    component = fake(name, **options)
    return Subject(component.name, "numpy_impl.ops.double", (name,), (component,), component.equivalent)


def thorough(_: Component, double) -> str | None:
    y, backward = double(3.0)
    if y != 6.0:
        return "forward"
    return None if backward(5.0) == 10.0 and double(3.0, times=4)[0] == 12.0 else "gradient"


def weak(_: Component, double) -> str | None:
    return None if double(3.0)[0] == 6.0 else "forward"


def test_every_mutant_of_a_well_judged_component_is_killed():
    study = judge.study(DOUBLE, alone(), thorough)
    assert study.figures("backward") == {"total": 3, "killed": 3, "equivalent": 0}
    assert study.figures("forward") == {"total": 4, "killed": 4, "equivalent": 0}
    assert summary([study])["passed"]


def test_the_figure_fails_under_a_judge_that_never_looks_at_gradients():
    study = judge.study(DOUBLE, alone(), weak)
    assert study.figures("backward")["killed"] == 0
    assert {m.key for m in study.survivors} == {"times * dy -> times / dy", "times * dy -> dy", "times * dy -> times"}
    assert not summary([study])["passed"]
    assert summary([study])["all"]["share"] == 4 / 7


def test_a_listed_equivalent_is_left_out_of_the_figure():
    study = judge.study(DOUBLE, alone(equivalent={m.key: "not looked at" for m in mutants(DOUBLE, "double") if "dy" in m.key}), weak)
    assert study.figures("backward") == {"total": 3, "killed": 0, "equivalent": 3}
    assert not study.survivors
    assert summary([study])["passed"]


@pytest.mark.parametrize("key, why", [("times * x -> x", "it is killed, by the law of forward"), ("a -> b", "no such mutant")])
def test_a_stale_equivalent_fails(key, why):
    study = judge.study(DOUBLE, alone(equivalent={key: "thought to be invisible"}), thorough)
    assert study.stale == {key: why}
    assert study.figures("forward")["killed"] == 4
    assert not summary([study])["passed"]


def test_a_clean_source_that_fails_is_an_error_and_nothing_is_counted_as_killed():
    study = judge.study(DOUBLE, alone(), lambda c, f: "forward")
    assert "the clean source does not pass: law of forward" in study.error
    assert study.figures("backward")["killed"] == 0
    assert not summary([study])["passed"]


def test_a_mutant_that_hangs_is_killed_by_the_time_limit_even_where_errors_are_swallowed():
    source = "def f(n):\n    while n > 0:\n        try:\n            n -= 1\n        except Exception:\n            pass\n    return n\n"
    began = time.perf_counter()
    study = judge.study(source, alone("f"), lambda c, f: None if f(3) == 0 else "forward", limit=0.2)
    assert study.verdicts["n -= 1 -> pass"] == "time limit"
    assert study.verdicts["n > 0 -> n >= 0"] == "law of forward"
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("body, key, verdict", [
    ("return 0 if n == 0 else f(n - 1)", "n - 1 -> n", "RecursionError"),
    ("return [0] * (n - n)", "n - n -> n", "MemoryError"),
])  # fmt: skip
def test_a_mutant_that_exhausts_the_stack_or_the_memory_is_killed(body, key, verdict):
    size = 5 if "f(" in body else 1 << 62
    study = judge.study(f"def f(n):\n    {body}\n", alone("f"), lambda c, f: None if f(size) in (0, []) else "forward")
    assert study.verdicts[key] == verdict


def test_a_mutant_that_cannot_even_be_loaded_is_killed():
    source = "_TABLE = (1, 2)[1]\ndef f(x):\n    return _TABLE\n"
    study = judge.study(source, alone("f"), lambda c, f: None if f(0) == 2 else "forward")
    assert study.verdicts["(1, 2)[1] -> (1, 2)[2]"].startswith("loading, IndexError")


def test_a_mutant_replaces_nothing_but_what_is_tested():
    before = sys.modules["numpy_impl.ops.layer_norm"]
    original = before.layer_norm
    mutant = next(m for m in mutants(LAYER_NORM, "layer_norm") if m.operator == "comparison")
    with judge.loaded(mutant.source(), "numpy_impl.ops.layer_norm", find("ops.layer_norm")) as mutated:
        assert mutated is not original
    assert sys.modules["numpy_impl.ops.layer_norm"] is before
    assert before.layer_norm is original


def test_a_shared_helper_is_judged_by_the_laws_of_all_that_use_it():
    source = "def _scale(x, twice):\n    return 2 * x if twice else 3 * x\n" \
             "def f(x):\n    return _scale(x, True)\ndef g(x):\n    return _scale(x, False)\n"
    f, g = fake("f"), fake("g")

    def equals(which: Component, function) -> str | None:
        return None if function(5.0) == {"f": 10.0, "g": 15.0}[which.public] else "forward"

    def surviving(*judges: Component) -> set[str]:
        told = judge.verdicts(source, Subject("ops.f", "numpy_impl.ops.double", ("f",), judges), equals, limit=5)
        return {m.key for m, verdict in told if verdict is None}

    assert surviving(f) == {"3 * x -> 3 / x", "3 * x -> x", "3 * x -> 3", "3 * x -> 4 * x"}
    assert not surviving(f, g)


def test_a_shared_file_is_judged_through_those_that_import_it():
    path = "ops/_blocks.py"
    assert shared()[path].shared
    blocks = sys.modules["numpy_impl.ops._blocks"]
    norm = sys.modules["numpy_impl.ops.layer_norm"]
    source = inspect.getsource(blocks)
    mutant = next(m for m in mutants(source, "blocks") if m.key == "start + step -> start - step")
    x = np.arange(6.0).reshape(2, 3)
    with judge.loaded(mutant.source(), "numpy_impl.ops._blocks", find("ops.layer_norm")) as mutated, np.errstate(all="ignore"):
        assert not np.array_equal(mutated(x)[0], norm.layer_norm(x)[0])
    assert sys.modules["numpy_impl.ops._blocks"] is blocks
    assert sys.modules["numpy_impl.ops.layer_norm"] is norm
    with judge.loaded(source, "numpy_impl.ops._blocks", find("ops.layer_norm")) as same:
        assert np.array_equal(same(x)[0], norm.layer_norm(x)[0])


def test_all_components_know_the_same_classes_while_a_shared_file_is_judged_and_afterwards():
    """combine_adapters looks for a base class that lies in a shared file; a case gets its adapted layers from elsewhere."""
    module = "numpy_impl.finetune._adapted"
    combine, layer, linear = find("finetune.combine_adapters"), find("finetune.LoRALinear"), find("layers.Linear")

    def finds_it(combine_adapters) -> bool:
        adapted = layer.implementation("numpy")(linear.implementation("numpy")(3, 2), r=1, alpha=1)
        return combine_adapters(adapted, {"default": 1.0}, name="new", kind="cat") == [""]

    with judge._set_aside({name for name in sys.modules if name.startswith("numpy_impl.finetune.")}):  # as if nobody had imported them
        with judge.loaded(text_of(module), module, combine) as mutated:
            assert finds_it(mutated)
        assert finds_it(combine.implementation("numpy"))


# --- the laws of the harness as the judge --------------------------------------------------------------------------------------------


def test_the_laws_kill_layer_norm_and_a_part_of_them_does_not():
    laws = judge.LawsOf(find("ops.layer_norm"), examples=6)
    assert laws(numpy_impl.ops.layer_norm.layer_norm) is None
    found = [m for m in mutants(LAYER_NORM, "layer_norm") if m.operator == "drop a statement"]

    def killers() -> list[str | None]:
        told = []
        for mutant in found:
            with judge.loaded(mutant.source(), "numpy_impl.ops.layer_norm", find("ops.layer_norm")) as mutated:
                told.append(laws(mutated))
        return told

    assert None not in killers()
    laws.laws = ["typed"]
    assert None in killers()


def test_a_worker_answers_for_each_mutant_and_skips_what_is_known():
    ours, theirs = multiprocessing.Pipe()
    name = "ops.layer_norm"
    known = [m.key for m in mutants(LAYER_NORM, "layer_norm")]
    ours.send((name, set(known[3:]), None))
    ours.send((name, set(known), 1.0))
    ours.send(None)
    with contextlib.suppress(EOFError):
        workers.serve(theirs)
    heard = []
    while ours.poll():
        heard.append(ours.recv())
    assert heard[0][0] == "clean"
    assert heard[0][1][0] is None
    assert [content for kind, content in heard if kind == "running"] == known[:3]
    assert [content[0] for kind, content in heard if kind == "verdict"] == known[:3]
    assert [kind for kind, _ in heard].count("end") == 2


# --- processes, cache and report -----------------------------------------------------------------------------------------------------


def scripted(pipe) -> None:
    """A worker that dies of the mutant whose key ends in -> dy, hangs deaf on times / dy, and does not start on ops.broken."""
    while (job := pipe.recv()) is not None:
        name, known, limit = job
        if name == "ops.broken":
            os._exit(1)
        if limit is None:
            pipe.send(("clean", (None, 0.1)))
        for mutant in mutants(DOUBLE, "double"):
            if mutant.key in known:
                continue
            pipe.send(("running", mutant.key))
            if mutant.key.endswith("-> dy"):
                os._exit(1)
            if mutant.key.endswith("times / dy"):
                time.sleep(60)
            pipe.send(("verdict", (mutant.key, "law of forward")))
        pipe.send(("end", None))


def test_a_crash_or_a_deaf_hang_kills_one_mutant_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(workers, "STALLED", 1.0)
    found = mutants(DOUBLE, "double")
    studies = [Study("ops.double", found, {}, {}), Study("ops.broken", found, {}, {})]
    finished = []
    workers.run_all(studies, 2, finished.append, worker=scripted)
    special = {"times * dy -> dy": "crash", "times * dy -> times / dy": "time limit"}
    assert studies[0].verdicts == {m.key: "law of forward" for m in found} | special
    assert studies[1].error == "the clean source does not pass: crash"
    assert len(finished) == 2


def test_verdicts_are_kept_until_something_they_depend_on_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "CACHE", tmp_path / "mutants")
    study = judge.study(DOUBLE, alone(), weak)
    runner.remember(study, "mark")
    again = Study("ops.double", study.mutants, {}, {})
    assert not runner.recall(again, "another mark")
    assert runner.recall(again, "mark")
    assert again.verdicts == study.verdicts
    assert again.cached
    fewer = Study("ops.double", study.mutants[1:], {}, {})
    assert not runner.recall(fewer, "mark")
    (tmp_path / "mutants" / "ops.double.json").write_text("{")
    assert not runner.recall(again, "mark")


def test_what_a_verdict_depends_on():
    found = runner.dependencies(of_component(find("ops.layer_norm")))
    assert {"numpy_impl.ops.layer_norm", "torch_impl.ops.layer_norm", "parity.cases.ops.layer_norm", "byhand.checks",
            "parity.mutate", "parity.judge", "parity.gates", "parity.example_laws", "parity.values"} <= found  # fmt: skip
    assert not {"parity.cli", "parity.report", "numpy_impl.layers.stack"} & found


def test_every_definition_with_something_to_mutate_belongs_to_a_component_or_to_a_shared_file():
    assert "Module" in subject("layers/module.py").publics
    assert "Optimizer" in subject("optim/optimizer.py").publics
    assert {c.name for c in subject("optim/optimizer.py").judges} >= {"optim.SGD", "optim.Adam", "optim.AdamW"}
    assert not any(s.module == "numpy_impl.ops.layer_norm" for s in shared().values())


@pytest.mark.parametrize("names, want", [(["layer_norm"], {"ops.layer_norm"}), (["optim/optimizer.py"], {"optim/optimizer.py"})])
def test_names_mean_components_and_shared_files(names, want):
    assert {s.name for s in runner.chosen_by(names)} == want


def test_a_room_means_its_shared_files_too():
    assert {"optim/optimizer.py", "optim.SGD"} <= {s.name for s in runner.chosen_by(["optim"])}
    with pytest.raises(ValueError, match="layer_nrm"):
        runner.chosen_by(["layer_nrm"])


def test_comments_docstrings_and_the_table_of_equivalents_change_no_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["parity.study"], "ROOT", tmp_path)
    (tmp_path / "byhand").mkdir()
    texts = {
        "a": 'case("x", equivalent={"a -> b": "why"}, skip={})\ndef f(x):\n    return x + 1\n',
        "b": '"""Doc."""\ncase("x", skip={})\n# note\ndef f(x):\n    """Doc."""\n    return x + 1\n',
        "c": 'case("x", skip={})\ndef f(x):\n    return x + 2\n',
    }
    for name, text in texts.items():
        (tmp_path / "byhand" / f"{name}.py").write_text(text)
    a, b, c = (runner._meaning(f"byhand.{name}") for name in texts)
    assert a == b != c


def test_the_report_names_survivors_stale_entries_and_errors(tmp_path):
    studies = [
        judge.study(DOUBLE, alone(equivalent={"a -> b": "gone"}), weak),
        Study("ops.broken", [], {}, {}, error="the clean source does not pass: law of forward"),
    ]
    out = Console(file=io.StringIO(), width=200)
    runner.print_report(studies, out)
    text = out.file.getvalue()
    assert "ops.double, line 4, backward, drop a term: times * dy -> dy" in text
    assert "listed as equivalent, but no such mutant: a -> b" in text
    assert "ops.broken: the clean source does not pass" in text
    assert "killed in pullbacks 0 of 3 (0 %), in all 4 of 7 (57.1 %)" in text


def test_the_command_writes_json_and_exits_by_the_demands(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "CACHE", tmp_path / "mutants")
    out = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(runner, "broken", dict)

    def answer(verdict):
        def run_all(studies, processes, tick, worker=None):
            for study in studies:
                study.verdicts = {m.key: None if m.key in study.equivalent else verdict for m in study.mutants}
                tick(study)

        monkeypatch.setattr(runner, "run_all", run_all)
        return runner.command(["ops.layer_norm"], tmp_path / "m.json", True, out, out)

    assert answer(None) == 1
    (tmp_path / "mutants" / "ops.layer_norm.json").unlink()
    assert answer("law of forward") == 0
    report = json.loads((tmp_path / "m.json").read_text())
    figures = report["components"][0]
    assert figures["name"] == "ops.layer_norm"
    assert figures["survivors"] == []
    assert figures["backward"]["killed"] + figures["backward"]["equivalent"] == figures["backward"]["total"] > 20
    assert report["summary"]["backward"]["share"] == 1.0
    monkeypatch.setattr(runner, "run_all", lambda studies, *rest: studies and pytest.fail("an unchanged component was run again"))
    assert runner.command(["ops.layer_norm"], tmp_path / "m.json", True, out, out) == 0
    assert np.all([c["cached"] for c in json.loads((tmp_path / "m.json").read_text())["components"]])
