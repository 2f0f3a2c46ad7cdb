"""Figures such as `python -m benchmarks --json` writes, made up: every kind of row, and rows that lack things."""

import math
from typing import Any

import pytest

GEMM, COPY = 120e9, 9e9


def _timed(seconds: float) -> dict[str, float]:
    return {"median": seconds, "low": seconds * 0.97, "high": seconds * 1.05, "count": 9}


def row(name: str, group: str, family: str, numpy: float, *, flops: float = 0.0, elements: float = 0.0, moved: float = 1e6,
        threads: int = 1, **others: Any) -> dict[str, Any]:
    """A row whose times are ratios to NumPy's, by column; `numpy` in seconds."""
    ratios = {column: others.pop(column) for column in list(others) if isinstance(others[column], float) and column not in ("at",)}
    seconds = {"numpy default": _timed(numpy)} | {column.replace("_", " "): _timed(numpy * ratio) for column, ratio in ratios.items()}
    floor = {"products": flops / GEMM, "memory": moved / COPY, "elementwise": elements / 2e9, "calls": 1e-5}
    return {
        "name": name, "group": group, "family": family, "axis": None, "at": None, "threads": threads, "shapes": "x (4096, 768)",
        "seconds": seconds, "flops": flops, "elements": {"simple": elements, "transcendental": elements / 4}, "bytes": moved,
        "floor": floor,
        "share": {column: max(floor.values()) / timed["median"] for column, timed in seconds.items()},
        "bound": max(floor, key=lambda kind: floor[kind]), "peak_bytes": {"numpy": 3 * moved, "torch": 4 * moved}, "units": None,
        "compile_seconds": None, "errors": {}, **others,
    }


@pytest.fixture
def figures() -> dict[str, Any]:
    """A machine without a GPU, whose OpenBLAS chose the kernels with AVX-512 by itself."""
    versions = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "blas": "openblas 0.3.31 SkylakeX"}
    found = []
    for threads in (1, 2):
        faster = 1 if threads == 1 else 1.7
        found += [
            row("GPT training step, d256 L4", "workloads", "GPT training step", 0.31 / faster, flops=31e9, elements=2e8, moved=3e8,
                threads=threads, torch=0.95, onednn=0.9, compiled=0.82, peers=1.0),
            row("decode, width 288", "workloads", "decode", 0.45 / faster, flops=3.9e9, elements=1e7, moved=3e9, threads=threads,
                torch=1.5, units={"unit": "tokens", "count": 128}),
        ]
    for one in found:
        if one["seconds"].pop("peers", None) and one["threads"] == 1:
            one["seconds"] |= {"jax.jit": _timed(0.29), "HIPS autograd": _timed(1.2)}
    found += [
        row("MoE, top 2 of 8, 4096 tokens", "workloads", "MoE", 0.2, flops=16e9, elements=3e7, moved=2e8, torch=1.6),
        row("beam search", "workloads", "beam search", 0.12, flops=1e9, torch=1.1, peak_bytes=None),
        row("ops.gelu", "components", "ops", 0.011, elements=2.5e7, moved=6e7, torch=0.62),
        row("ops.dropout", "components", "ops", 0.007, elements=6e6, moved=5e7, torch=2.6),
        row("ops.layer_norm", "components", "ops", 0.012, elements=3e7, moved=6.3e7, torch=0.41),
        row("ops.linear", "components", "ops", 0.13, flops=1.45e10, moved=4e7, torch=0.93),
        row("ops.embedding", "components", "ops", 0.009, moved=1.5e8, torch=3.4),
        row("optim.AdamW", "components", "optim", 0.03, elements=1.1e8, moved=2.8e8, torch=0.4),
        row("moe.plan", "components", "moe", 0.0004, moved=2e5),
        {**row("train.fit", "components", "train", 0.1), "seconds": {}, "share": {}, "floor": {}, "bound": "calls",
         "errors": {"numpy default": "TypeError: no example", "torch": "TypeError: no example"}},
    ]
    for at in (256, 512, 1024, 2048, 4096):
        found.append(row(f"attention, length {at}", "scaling", "attention", 2e-9 * at * at + 1e-5 * at, flops=1e3 * at * at,
                         torch=0.5 + at / 2048, axis="length", at=at))
    for at in (2**10, 2**14, 2**18, 2**22):
        found.append(row(f"GELU by elements, elements {at}", "scaling", "GELU by elements", 1e-5 + at * 2e-9, elements=at,
                         torch=6.5 / math.log2(at / 64), axis="elements", at=at))
    return {
        "schema": 2,
        "machine": {
            "cpu": "Intel(R) Xeon(R) Processor", "cores": 2, "memory_bytes": 8 << 30, "system": "Linux", "python": "3.11.9",
            "date": "2026-11-22", "size": "medium", "rounds": 3, "seconds": 640.0, "threads": [1, 2], "gpu": None,
            "processes": {"1": {"default": versions, "peers": {"jax": "0.8.0"}}, "2": {"default": versions}},
            "roofline": {str(threads): {"gemm": {"numpy default": GEMM * threads, "torch": 1.1 * GEMM * threads},
                                        "copy": {"numpy default": COPY, "torch": COPY}, "add": 3e9, "exp": 6e8, "call": 4e-7}
                         for threads in (1, 2)},
            "absent": {"cuda": "no CUDA device", "thinc": "thinc is not installed (pip install 'byhand[peers]')",
                       "numpy tuned": "OpenBLAS chose SkylakeX kernels by itself"},
        },
        "rows": found,
    }
