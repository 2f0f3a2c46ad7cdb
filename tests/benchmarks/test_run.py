"""A run end to end: processes, columns, equality, JSON; errors and absent columns are told, not hidden."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.__main__ import app, main
from benchmarks.run import _disagreements, choose, plan
from benchmarks.worker import Desk
from benchmarks.workload import Peer, Work, peers_of


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("run") / "b.json"
    command = "ops.gelu optim.cosine ops.linear --sizes small --rounds 2 --seconds 0.01 --no-compiled --json"
    assert app([*command.split(), str(path)], exit_on_error=False) == 0
    return json.loads(path.read_text())


def test_every_row_has_its_columns_cost_and_bound(figures: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in figures["rows"]}
    linear, gelu = rows["ops.linear"], rows["ops.gelu"]
    assert {"numpy default", "torch", "onednn"} <= linear["seconds"].keys() and "onednn" not in gelu["seconds"]
    for spread in linear["seconds"].values():
        assert 0 < spread["low"] <= spread["median"] <= spread["high"] and spread["count"] >= 2
    assert linear["flops"] > 0 and linear["bound"] == "products" and 0 < linear["share"]["numpy default"]
    assert gelu["flops"] == 0 and gelu["elements"]["transcendental"] > 0 and gelu["shapes"] == "x (512, 768)"
    assert gelu["peak_bytes"]["numpy"] >= 512 * 768 * 4 and gelu["peak_bytes"]["torch"] >= 512 * 768 * 4
    assert rows["optim.cosine"]["bound"] == "calls"


def test_the_machine_is_measured_and_named(figures: dict[str, Any]) -> None:
    machine = figures["machine"]
    rates = machine["roofline"]["1"]
    assert rates["gemm"]["numpy default"] > 1e8 and rates["copy"]["numpy default"] > 1e8 and rates["call"] < 1e-3
    assert machine["size"] == "small" and machine["threads"] == [1] and machine["absent"]["compiled"] == "not asked for"
    assert machine["gpu"] or machine["absent"]["cuda"] == "no CUDA device"


def test_names_choose_groups_components_and_workloads() -> None:
    everything = choose("medium")
    assert {row.group for row in everything} == {"components", "workloads", "scaling"}
    assert {row.group for row in choose("medium", ["workloads"])} == {"workloads"}
    assert [row.name for row in choose("medium", ["ops/layer_norm.py"])] == ["ops.layer_norm"]
    both = choose("medium", ["layer_norm"])
    assert {row.group for row in both} == {"components", "scaling"} and all("layer_norm" in row.name for row in both)
    assert all(row.name.startswith("GPT training step") for row in choose("medium", ["gpt training step"]))
    with pytest.raises(ValueError, match=r"needs a group .* got 'nothing'"):
        choose("medium", ["nothing"])


def test_given_threads_are_for_every_row() -> None:
    rows = choose("medium", ["ops.gelu"])
    assert list(plan(rows, None)) == [1] and plan(rows, (1, 2)) == {1: rows, 2: rows}


def test_a_column_waits_until_the_threads_of_the_last_one_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("benchmarks.worker.time.sleep", slept.append)
    for threads, waits in ((1, 0), (2, 2)):
        desk = Desk("small", threads)
        desk._works.update({"numpy": Work(lambda: None), "torch": Work(lambda: None)})
        assert desk.time(0.001, 3).keys() == {"numpy", "torch"} and len(slept) == waits


@pytest.mark.slow
def test_a_row_for_a_gpu_alone_is_named_where_there_is_none(capsys: pytest.CaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert app(["attention forward, bfloat16", "--sizes", "large", "--no-peers"], exit_on_error=False) == 0
    assert "length 4096: measured only as cuda" in capsys.readouterr().out


def test_another_size_to_compare_with_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"schema": 2, "machine": {"size": "large"}, "rows": []}))
    with pytest.raises(ValueError, match="one size; got large and small"):
        app(["ops.gelu", "--sizes", "small", "--compare", str(path)], exit_on_error=False, print_error=False)


def test_columns_that_compute_something_else_are_named() -> None:
    wrong = _disagreements({"numpy default/loss": np.float32(2.0), "torch/loss": np.float32(2.0001), "jax.jit/loss": np.float32(2.1)})
    assert list(wrong) == ["jax.jit"] and "loss differs by 0.1" in wrong["jax.jit"]
    shapes = _disagreements({"numpy default/y": np.ones(3), "torch/y": np.ones(4)})
    assert "shape (4,) instead of (3,)" in shapes["torch"]
    assert "nan" in _disagreements({"numpy default/y": np.ones(1), "torch/y": np.array([np.nan])})["torch"]


@pytest.mark.parametrize("arguments", ["nothing", "--sizes huge", "--rounds 0", "--reuse absent.json", "--seconds -1", "--threads 0"])
def test_bad_arguments_are_one_line_and_code_2(arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments.split()])
    assert main() == 2
    assert capsys.readouterr().out == ""


def test_a_file_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    path = tmp_path / "old.json"
    path.write_text('{"rows": []}')
    monkeypatch.setattr("sys.argv", ["benchmarks", "--compare", str(path), "ops.gelu"])
    assert main() == 2
    assert "schema 2" in capsys.readouterr().err


def test_peers_of_a_workload_are_not_asked_for_a_room_of_that_name() -> None:
    def build() -> Work:
        raise AssertionError

    among = [Peer("one", "decode", "numpy", build), Peer("other", "decode.generate", "numpy", build)]
    component = next(row for row in choose("medium", ["decode.generate"]))
    workload = next(row for row in choose("medium", ["workloads"]) if row.family == "decode")
    assert [p.name for p in peers_of(component, among)] == ["other"] and [p.name for p in peers_of(workload, among)] == ["one"]
