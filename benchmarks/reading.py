"""What the figures of `python -m benchmarks` say: ratios, rates, and who was fastest. Columns and rows may be missing; then it is None."""

import math
from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Any]
Row = Mapping[str, Any]

TORCH_ON_CPU = ("torch", "onednn", "compiled")
AVX512 = ("skylakex", "cooperlake", "sapphirerapids")          # the cores of OpenBLAS that use it


def rows(figures: Figures, group: str | None = None, threads: int | None = None) -> list[Row]:
    """Those of a group, and of one number of threads."""
    return [row for row in figures.get("rows", ()) if group in (None, row["group"]) and threads in (None, row["threads"])]


def median(row: Row, column: str, key: str = "median") -> float | None:
    """Seconds of a column; `key` may be low or high, its quartiles."""
    found = (row.get("seconds") or {}).get(column)
    return found[key] if found and found["median"] > 0 else None


def speedup(row: Row, column: str, over: str = "torch") -> float | None:
    """How many times faster than another column."""
    mine, other = median(row, column), median(row, over)
    return None if mine is None or other is None else other / mine


def spread(row: Row, column: str, over: str = "torch") -> tuple[float, float] | None:
    """Of the speed-up: the other's first quartile over our third, and the other way round."""
    low, high, our_low, our_high = (median(row, of, key) for of in (over, column) for key in ("low", "high"))
    return (low / our_high, high / our_low) if low and high and our_low and our_high else None


def fastest_torch(row: Row) -> str | None:
    """PyTorch's fastest column on the CPU."""
    return min((column for column in TORCH_ON_CPU if median(row, column)), key=lambda column: median(row, column) or math.inf, default=None)


def best_numpy(row: Row) -> str | None:
    """The column of NumPy that tables show first: the tuned one where it was measured."""
    return next((column for column in ("numpy tuned", "numpy default") if median(row, column)), None)


def settled(figures: Figures) -> Figures:
    """The same without the tuned column where both settings load the same kernels: one number for one thing."""
    if "numpy tuned" not in figures.get("machine", {}).get("same", {}):
        return figures
    kept = [{**row, "seconds": {column: timed for column, timed in (row.get("seconds") or {}).items() if column != "numpy tuned"}}
            for row in rows(figures)]
    return {**figures, "rows": kept}


def tuned_column(figures: Figures) -> str | None:
    """What counts as tuned: the column of that name, or the default where OpenBLAS chooses these kernels by itself."""
    if "numpy tuned" in figures.get("machine", {}).get("same", {}):
        return "numpy default"
    if any(median(row, "numpy tuned") for row in figures.get("rows", ())):
        return "numpy tuned"
    return "numpy default" if versions(figures).get("blas", "").lower().endswith(AVX512) else None


def versions(figures: Figures) -> Mapping[str, Any]:
    """Of NumPy, its BLAS and PyTorch, in the process that the default columns ran in."""
    processes: list[Mapping[str, Any]] = list((figures.get("machine", {}).get("processes") or {}).values())
    return processes[0].get("default") or {} if processes else {}


def operations(row: Row) -> float:
    """Floating-point operations: those of the products, and one for every element of an elementwise step."""
    elements = row.get("elements") or {}
    return (row.get("flops") or 0) + (elements.get("simple") or 0) + (elements.get("transcendental") or 0)


def roofline(figures: Figures, threads: int, kind: str, column: str) -> float | None:
    """A measured rate of the machine; `column` falls back to its side."""
    measured = (figures.get("machine", {}).get("roofline") or {}).get(str(threads), {}).get(kind)
    if not isinstance(measured, Mapping):
        return measured
    for name in (column, "numpy default" if column.startswith("numpy") else "cuda" if column.startswith("cuda") else "torch"):
        if measured.get(name):
            return measured[name]
    return measured.get("numpy default")


def share_of_products(figures: Figures, row: Row, column: str) -> float | None:
    """How much of the time its matrix products alone would take at the machine's measured rate."""
    seconds, rate = median(row, column), roofline(figures, row["threads"], "gemm", column)
    return row["flops"] / rate / seconds if seconds and rate and row.get("flops") else None


def peers(row: Row) -> list[str]:
    """The columns of other libraries, fastest first."""
    known = {"numpy default", "numpy tuned", *TORCH_ON_CPU}
    others = [column for column in row.get("seconds") or {} if column not in known and not column.startswith("cuda")]
    return sorted(filter(lambda column: median(row, column), others), key=lambda column: median(row, column) or math.inf)


def label(row: Row, *, short: bool = False) -> str:
    """A row's name for people; its threads where there is more than one."""
    name = row["name"].partition(".")[2] if short and row["group"] == "components" else row["name"]
    return name if row["threads"] == 1 else f"{name}, {row['threads']} threads"
