"""The benchmark of fine-tuning, at sizes that take no time: what it derives is right, and every part is measured, told and drawn."""

import io
import json

import pytest
from rich.console import Console

from benchmarks.studies import finetune, finetune_cost
from benchmarks.studies.finetune_figures import draw
from benchmarks.studies.finetune_report import publish, text
from benchmarks.studies.finetune_run import measure_parts, read_parts
from byhand.configs.llama import LLAMA_PRESETS
from numpy_impl.models.llama import Llama


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    for module in (finetune, finetune_cost):
        patch.setattr(module, "RANKS", (1, 8))
        patch.setattr(module, "WINDOWS", dict(batch=2, length=16))
    patch.setattr(finetune, "RATES", {"full": (1e-3, 2e-3), "lora": (5e-3,)})
    file = tmp_path_factory.mktemp("figures") / "figures.json"
    quiet = Console(file=io.StringIO())
    sizes = dict(steps=4, seeds=2, rounds=1)
    measure_parts(["qlora", "ranks"], base="llama-nano", json_=file, log=quiet, **sizes)
    measure_parts(["quantized", "cost"], base="llama-nano", json_=file, log=quiet, **sizes)
    patch.undo()
    return read_parts(["qlora", "ranks", "quantized", "cost"], file)


def test_steps_to_a_level():
    slow = {0: 4.0, 10: 3.0, 20: 2.0}
    fast = {0: 4.0, 10: 2.0, 20: 1.0}
    rows = {row["level"]: row for row in finetune.steps_to_level(slow, fast)}
    assert rows[0.5]["loss"] == 3.0 and rows[0.5]["steps"] == [10.0, 5.0] and rows[0.5]["ratio"] == 0.5
    assert rows[0.75]["steps"] == [15.0, 7.5]
    assert all(row["steps"][1] is None and row["ratio"] is None for row in finetune.steps_to_level(fast, {0: 4.0, 20: 3.9}))


def test_parts_of_one_file_stand_beside_each_other(figures):
    assert list(figures) == ["qlora", "ranks", "quantized", "cost"]
    assert all(found["machine"]["threads"] >= 1 and found["machine"]["base"] == "llama-nano, as it is" for found in figures.values())


def test_shares_are_of_full_fine_tuning(figures):
    full, *ranks = figures["ranks"]["rows"]
    assert full["way"] == "full" and sum(full["share_of_improvement"]) / 2 == pytest.approx(1)
    assert full["share_of_parameters"] == 1
    assert [row["trained"] for row in ranks] == [2432, 19456]
    assert full["lr"] in (1e-3, 2e-3) and {row["lr"] for row in ranks} == {5e-3}
    assert figures["qlora"]["kept"]


def test_bytes_are_those_of_arrays(figures):
    rows = {row["way"]: row for row in figures["cost"]["rows"]}
    whole = sum(array.nbytes for array in Llama(LLAMA_PRESETS["llama-nano"]).state_dict().values())
    assert rows["full"]["trained_bytes"] == rows["r=1"]["frozen_bytes"] == whole
    assert rows["r=8"]["state_bytes"] == 2 * rows["r=8"]["gradient_bytes"] == 2 * 4 * rows["r=8"]["parameters"]
    assert rows["r=16, base in NF4"]["frozen_bytes"] < whole / 3
    assert figures["quantized"]["rows"][0]["worse"] == 0


def test_every_part_is_told_and_drawn(figures, tmp_path):
    document = tmp_path / "results.md"
    document.write_text("".join(f"<!-- finetune-{part}:start -->\n<!-- finetune-{part}:end -->\n" for part in figures))
    out = Console(file=io.StringIO(), width=200)
    publish(figures, out, document)
    written = document.read_text()
    for part in figures:
        assert f"python -m benchmarks finetune {part}" in written and text(part, figures[part]).splitlines()[4] in out.file.getvalue()
    drawn = {path.name for path in (tmp_path / "images").iterdir()}
    assert drawn == {f"experiment-finetune-{part}.png" for part in ("qlora", "ranks", "cost")}
    assert draw("quantized", figures["quantized"], tmp_path / "none.png") is None


def test_a_document_without_markers_is_refused_before_anything_is_written(figures, tmp_path):
    (tmp_path / "results.md").write_text("nothing")
    with pytest.raises(ValueError, match="markers"):
        publish(figures, Console(file=io.StringIO()), tmp_path / "results.md")


def test_nothing_to_reuse(tmp_path):
    with pytest.raises(ValueError, match="a file of figures"):
        read_parts(["qlora"], tmp_path / "none.json")


def test_a_step_is_the_same_as_peft_s(tmp_path):
    pytest.importorskip("peft")
    file = tmp_path / "figures.json"
    measure_parts(["peft"], base="llama-nano", json_=file, log=Console(file=io.StringIO()), steps=4, seeds=1, rounds=1)
    for row in json.loads(file.read_text())["peft"]["rows"]:
        assert row["parameters"][0] == row["parameters"][1]
        assert row["differences"][0] < 1e-5
