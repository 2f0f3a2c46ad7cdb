"""`--compare`: a slowdown that was planted is found, and only that; the machine's own drift is not taken for one."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import app
from benchmarks.comparing import compare


def figures(drift: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """Thirty rows in two columns with a spread of some 3 %, the second column `drift` times as slow."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(30):
        seconds = {}
        for column, factor in (("numpy default", drift), ("torch", 1.0)):
            median = 1e-3 * (i + 1) * factor * rng.normal(1, 0.01)
            seconds[column] = {"median": median, "low": median * 0.97, "high": median * 1.03, "count": 20}
        rows.append({
            "name": f"ops.row_{i}", "group": "components", "family": "ops", "axis": None, "at": None, "threads": 1, "shapes": "",
            "seconds": seconds, "errors": {}, "unable": {}, "flops": 0, "bytes": 0, "elements": None, "units": None,
            "floor": {"products": 0.0, "memory": 1e-4}, "bound": "memory", "share": {}, "peak_bytes": {}, "compile_seconds": None,
        })
    machine = {"size": "medium", "threads": [1], "roofline": {}, "processes": {}, "absent": {}, "cpu": "test", "cores": 2,
               "date": "2026-01-01", "seconds": 60.0}
    return {"schema": 2, "machine": machine, "rows": rows}


def slowed(figures: dict[str, Any], row: int, factor: float) -> dict[str, Any]:
    changed = copy.deepcopy(figures)
    for key in ("median", "low", "high"):
        changed["rows"][row]["seconds"]["numpy default"][key] *= factor
    return changed


def test_nothing_is_slower_than_itself() -> None:
    found = compare(figures(), figures(seed=1))
    assert not found.slower and not found.faster and len(found.changes) == 60


@pytest.mark.parametrize("factor", [1.2, 1.5, 10.0])
def test_a_planted_slowdown_is_found_in_its_row_and_column(factor: float) -> None:
    found = compare(figures(), slowed(figures(seed=1), 7, factor))
    assert [(c.name, c.column) for c in found.slower] == [("ops.row_7", "numpy default")]
    assert found.slower[0].ratio == pytest.approx(factor, rel=0.05)


def test_a_slower_machine_slows_every_row_and_hides_none() -> None:
    other = slowed(figures(drift=1.6, seed=1), 3, 1.5)
    other["machine"]["cpu"] = "another"
    found = compare(figures(), other)
    assert found.drift["numpy default"] == pytest.approx(1.6, rel=0.02)
    assert [c.name for c in found.slower] == ["ops.row_3"] and not found.faster


def test_what_slows_all_of_numpy_alone_is_no_drift() -> None:
    found = compare(figures(), figures(drift=1.3, seed=1))
    assert {c.column for c in found.slower} == {"numpy default"} and len(found.slower) >= 28
    assert found.drift["numpy default"] == found.drift["torch"] == pytest.approx(1, rel=0.02)
    assert not compare(figures(), figures(drift=1.05, seed=1)).slower


def test_a_load_that_slows_both_sides_of_a_row_is_no_change_of_code() -> None:
    busy = figures(seed=1)
    for spread in busy["rows"][5]["seconds"].values():
        spread.update({key: spread[key] * 1.7 for key in ("median", "low", "high")})
    assert not compare(figures(), busy).slower
    assert [c.ratio for c in compare(figures(), slowed(busy, 5, 1.5)).slower] == [pytest.approx(1.5, rel=0.05)]


def test_a_wide_spread_explains_a_change() -> None:
    noisy = slowed(figures(seed=1), 7, 1.2)
    noisy["rows"][7]["seconds"]["numpy default"]["high"] *= 1.3
    assert not compare(figures(), noisy).slower


def test_rows_of_one_run_alone_are_named() -> None:
    fewer = figures()
    del fewer["rows"][0]
    assert compare(figures(), fewer).gone == ["ops.row_0 (numpy default, 1 thread)", "ops.row_0 (torch, 1 thread)"]


def test_other_schemas_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="schema 2"):
        compare({"machine": {}}, figures())
    other = figures()
    other["machine"]["size"] = "small"
    with pytest.raises(ValueError, match="one size; got small and medium"):
        compare(other, figures())


def test_the_command_ends_with_1_and_names_the_row(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(figures()))
    new.write_text(json.dumps(slowed(figures(seed=1), 7, 2.0)))
    assert app(["--reuse", str(new), "--compare", str(old)], exit_on_error=False) == 1
    printed = capsys.readouterr().out
    assert "1 of 60 times slower beyond the spread" in printed and "ops.row_7" in printed.split("\nslower", 1)[1]
    assert app(["--reuse", str(old), "--compare", str(old)], exit_on_error=False) == 0
