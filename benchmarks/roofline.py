"""What this machine can do at most, measured at the start of a run, and what that says of a row.

A roofline (Williams, Waterman and Patterson 2009) is two ceilings: so many floating-point operations a second, measured on a large square
matrix product, and so many bytes a second, measured on a large copy. Work of F operations on B bytes takes at least max(F / rate, B /
bandwidth). Two more rates explain what is far from both: of elementwise work in the cache, and of calls.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

_SIDE, _COPY, _CACHED = 1536, 1 << 25, 1 << 14      # 1536 x 1536 products, 128 MiB copied, 64 KiB an operand: it stays in the L2 cache


def _best(call: Callable[[], Any], repeats: int = 5, calls: int = 1) -> float:
    """Least seconds of a call."""
    call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        seconds.append((time.perf_counter() - started) / calls)
    return min(seconds)


def numpy_rates() -> dict[str, float]:
    """gemm in FLOP/s, copy in bytes/s (read and written), add and exp in elements/s, and the seconds of a call that does nothing much."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal((_SIDE, _SIDE), dtype=np.float32) for _ in range(3))
    source, target = np.ones(_COPY, np.float32), np.empty(_COPY, np.float32)
    x, y, z = (rng.standard_normal(_CACHED, dtype=np.float32) for _ in range(3))
    one = np.ones(1, np.float32)
    return {
        "gemm": 2 * _SIDE**3 / _best(lambda: np.matmul(a, b, out=c)),
        "copy": 2 * source.nbytes / _best(lambda: np.copyto(target, source)),
        "add": _CACHED / _best(lambda: np.add(x, y, out=z), calls=200),
        "exp": _CACHED / _best(lambda: np.exp(x, out=z), calls=100),
        "call": _best(lambda: np.multiply(one, one, out=one), calls=2000),
    }


def torch_rates(device: str = "cpu") -> dict[str, float]:
    """gemm and copy through PyTorch; on a GPU also gemm in bfloat16, as "gemm bfloat16"."""
    import torch

    on_gpu = device != "cpu"
    side = 8192 if on_gpu else _SIDE
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    source = torch.ones(_COPY * (4 if on_gpu else 1), device=device)
    target = torch.empty_like(source)

    def waited(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            call()
            if on_gpu:
                torch.cuda.synchronize()
        return run

    rates = {
        "gemm": 2 * side**3 / _best(waited(lambda: torch.mm(a, b))),
        "copy": 2 * source.nbytes / _best(waited(lambda: target.copy_(source))),
    }
    if on_gpu:
        half, other = a.bfloat16(), b.bfloat16()
        rates["gemm bfloat16"] = 2 * side**3 / _best(waited(lambda: torch.mm(half, other)))
    return rates


def merge(answers: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Rates by column, as {"gemm": {column: FLOP/s}, "copy": {column: bytes/s}, "add": …, "exp": …, "call": …}."""
    merged: dict[str, Any] = {}
    for kind in ("gemm", "copy", "gemm bfloat16"):
        given = {column: rates[kind] for column, rates in answers.items() if kind in rates}
        if given:
            merged[kind] = given
    for kind, choose in (("add", max), ("exp", max), ("call", min)):
        given_rates = [rates[kind] for rates in answers.values() if kind in rates]
        if given_rates:
            merged[kind] = choose(given_rates)
    return merged


def floors(counted: dict[str, Any], rates: dict[str, Any], device: str = "cpu", precision: str = "float32") -> dict[str, float]:
    """The least seconds that each kind of work takes at the rates of the machine, each as if it were alone.

    counted : flops, bytes, elements and operators of one run
    """
    gemm, copy = (_ceiling(rates.get(kind, {}), device) for kind in ("gemm" if precision == "float32" else f"gemm {precision}", "copy"))
    elements = counted.get("elements") or {"simple": 0, "transcendental": 0}
    found = {
        "products": counted.get("flops", 0) / gemm if gemm else 0.0,
        "memory": counted.get("bytes", 0) / copy if copy else 0.0,
    }
    if device == "cpu":
        found["elementwise"] = elements["simple"] / rates["add"] + elements["transcendental"] / rates["exp"]
        found["calls"] = counted.get("operators", 0) * rates["call"]
    return found


def _ceiling(by_column: dict[str, float], device: str) -> float:
    on_gpu = device != "cpu"
    return max((rate for column, rate in by_column.items() if column.startswith("cuda") == on_gpu), default=0.0)


def share(floor: dict[str, float], seconds: float) -> float:
    """How much of the roofline was reached: the least seconds of products and memory, over those it took."""
    return max(floor["products"], floor["memory"]) / seconds


def bound(floor: dict[str, float]) -> str:
    """What takes longest at the machine's own rates: products, memory, elementwise or calls; calls where nothing takes a microsecond."""
    longest = max(floor, key=lambda kind: floor[kind])
    return longest if floor[longest] > 1e-6 else "calls"
