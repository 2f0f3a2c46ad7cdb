"""Every workload at the smallest size: both sides compute the same, and what a row says of itself is the same on both."""

import numpy as np
import pytest

from benchmarks.workload import SIZES, Column, Row, Work, workload_rows

ROWS = [row for row in workload_rows("small") if row.columns is None or "numpy" in row.columns]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_the_columns_compute_the_same(row: Row) -> None:
    works = {name: row.work(Column(name)) for name in ("numpy", "torch")}
    ours, theirs = (_numbers(work) for work in works.values())
    assert ours.keys() == theirs.keys()
    for name, expected in ours.items():
        assert np.isfinite(expected).all() and np.abs(expected).max() > 0, f"{name} tells nothing"
        # Adam's first step moves every weight by the rate, also one whose gradient is rounding and may have either sign.
        bound = 1e-4 if name == "loss after the update" else 1e-5
        np.testing.assert_allclose(theirs[name], expected, rtol=0, atol=bound * np.abs(expected).max(), err_msg=name)
    assert works["numpy"].flops == works["torch"].flops
    assert works["numpy"].bytes == works["torch"].bytes
    for work in works.values():
        work.run()                                       # once more: nothing of it is used up


def _numbers(work: Work) -> dict[str, np.ndarray]:
    assert work.numbers is not None
    return {name: np.asarray(array) for name, array in work.numbers().items()}


@pytest.mark.parametrize("size", SIZES)
def test_rows_have_names_of_their_own(size: str) -> None:
    rows = workload_rows(size)                           # type: ignore[arg-type]
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.axis is None or row.at in row.options.values() for row in rows)


def test_a_curve_has_several_points() -> None:
    families: dict[str, list[float | None]] = {}
    for row in workload_rows("medium"):
        if row.axis is not None:
            families.setdefault(row.family, []).append(row.at)
    assert {"length", "width", "batch", "experts", "rank", "elements"} <= {row.axis for row in workload_rows("medium")}
    assert all(len(points) > 2 and points == sorted(points, key=float) for points in families.values())   # type: ignore[arg-type]
