"""Mutants, run: who kills them, a figure that can fail, processes that outlive a crash, and a cache that knows what it depends on."""

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
from parity.study import Study, Subject, of_component, shared, subject, summary, text_of, unreached

LAYER_NORM = inspect.getsource(numpy_impl.ops.layer_norm)

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


def test_a_judge_whose_laws_the_clean_source_fails_is_an_error_and_no_survivor():
    source = "def _scale(x, twice):\n    return 2 * x if twice else 3 * x\n" \
             "def f(x):\n    return _scale(x, True)\ndef g(x):\n    return _scale(x, False)\n"
    subject = Subject("ops.f", "numpy_impl.ops.double", ("f",), (fake("f"), fake("g")))
    study = judge.study(source, subject, lambda which, _: None if which.public == "f" else "forward")
    assert study.error == "judged by ops.g, the clean source does not pass: law of forward (see `python -m parity run ops.g`)"


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


def test_every_such_file_has_a_judge_even_where_only_shared_files_and_base_classes_import_it():
    assert set(unreached()) == {s.module for s in shared().values()}
    assert {c.name for c in subject("models/_routing_loss.py").judges} >= {"models.Llama", "models.Mixtral"}


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
