"""Other libraries: those that are installed compute what NumPy's column does, at small sizes; those that are not are named."""

import inspect
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks import run
from benchmarks.peers._component import reference
from benchmarks.peers._environment import environment
from benchmarks.workload import SIZES, Column, Peer, Row, Unable, peers, peers_of, workload_rows
from parity.registry import components

TINY: dict[str, dict[str, Any]] = {
    "GPT training step": dict(d_model=32, n_layers=2, n_heads=2, length=16, batch=2, vocabulary=64),
    "LoRA step": dict(model="1M", rank=4, length=8, batch=2),
    "QLoRA step": dict(model="1M", rank=4, length=8, batch=2),
    "MoE step": dict(d_model=32, n_layers=2, n_heads=2, d_hidden=48, length=16, batch=2),
    "MoE": dict(count=40, d_model=16, d_hidden=32),
    "attention": dict(length=48),
    "causal attention": dict(length=48, batch=2),
    "cross-entropy": dict(rows=6, vocabulary=50),
    "linear + cross-entropy": dict(rows=6, width=8, vocabulary=50),
    "AdamW": dict(matrices=1),
    "prefill": dict(model="128 × 2", prompt=12),
    "decode": dict(model="128 × 2", count=5, batch=2),
    "beam search": dict(model="128 × 2", count=5),
    "NF4 quantize": dict(side=64),
    "NF4 dequantize": dict(side=64),
}
HERE = [peer for peer in peers() if "(cuda)" not in peer.name]
ROWS: dict[str, Row] = {row.family: row for size in SIZES for row in workload_rows(size)}


def _labelled(among: list[Peer]) -> list[Any]:
    return [pytest.param(peer, id=f"{peer.name}: {peer.of}") for peer in among]


def _needs(peer: Peer) -> None:
    if peer.version is None:
        pytest.skip(f"{peer.needs} is not installed")


def _same(found: dict[str, Any], expected: dict[str, Any], atol: float) -> None:
    assert found.keys() <= expected.keys() and found
    for name, value in found.items():
        assert np.shape(value) == np.shape(expected[name]) and np.isfinite(value).all(), name
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=atol * max(np.abs(expected[name]).max(), 1e-30), err_msg=name)


@pytest.mark.parametrize("peer", _labelled([p for p in HERE if p.of in TINY]))
def test_a_library_does_the_same_work(peer: Peer) -> None:
    _needs(peer)
    work = peer.build(**TINY[peer.of])
    ours = ROWS[peer.of].build(Column("numpy"), **TINY[peer.of])
    assert work.numbers is not None and ours.numbers is not None
    expected = dict(ours.numbers())
    found = dict(work.numbers())
    assert found.keys() == expected.keys()
    _same(found, expected, 2e-5)
    work.run()                                               # once more: nothing of it is used up


@pytest.mark.parametrize("peer", _labelled([p for p in HERE if p.of not in TINY]))
def test_a_library_does_the_same_to_a_component(peer: Peer) -> None:
    _needs(peer)
    assert peer.of in components(), "neither a component nor a workload that is tried here"
    work = peer.build(size="small")
    assert work.numbers is not None
    expected = reference(peer.of, "small")
    found = dict(work.numbers())
    work.run()                                               # of another cotangent: what was told stays as it is
    assert found.keys() == {name for name, value in expected.items() if value.any()}
    _same(found, expected, 1e-4)                             # thinc's ε and constants are not quite the others'


@pytest.mark.parametrize("size", SIZES)
def test_every_row_can_be_asked_of_its_libraries(size: str) -> None:
    for row in workload_rows(size):                          # type: ignore[arg-type]
        for peer in peers_of(row):
            inspect.signature(peer.build).bind(**row.options)


def test_every_library_knows_a_row_that_there_is() -> None:
    assert {peer.of for peer in peers()} <= ROWS.keys() | components().keys()


def test_without_a_gpu_its_libraries_say_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for peer in peers():
        if "(cuda)" in peer.name:
            with pytest.raises(Unable, match="no CUDA device"):
                peer.build(**ROWS[peer.of].options)


def test_an_absent_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS["decode"]
    absent = Peer("someone", "decode", "a-distribution-that-is-not-there", lambda **_: None)      # type: ignore[arg-type]
    monkeypatch.setattr(run, "peers", lambda: [absent])
    monkeypatch.setattr(run, "plan", lambda rows, threads: {})                       # nothing is measured
    figures: dict[str, Any] = {}
    list(run.measure([row], "small", figures=figures))
    assert "a-distribution-that-is-not-there" in figures["machine"]["absent"]["someone"]


def test_jax_keeps_to_its_threads() -> None:
    pytest.importorskip("jax")
    program = """
import json, os, jax
def used():
    found = {}
    for task in os.listdir("/proc/self/task"):
        fields = open(f"/proc/self/task/{task}/stat").read().rpartition(")")[2].split()
        found[task] = int(fields[11]) + int(fields[12])
    return found
x = jax.numpy.ones((1500, 1500))
product = jax.jit(lambda x: jax.nn.gelu(x @ x) * 1e-3)
product(x).block_until_ready()
before = used()
for _ in range(6):
    product(x).block_until_ready()
print(json.dumps([ticks - before.get(task, 0) for task, ticks in used().items()]))
"""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("threads' times are read from /proc")
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | environment(1), capture_output=True, text=True, check=True)
    ticks = json.loads(done.stdout.splitlines()[-1])
    assert max(ticks) > 5 and max(ticks) > 0.9 * sum(ticks)
