"""Figures in documents: what is replaced, what stays, what is refused, and what the goals' table says."""

import pytest

from benchmarks.goals import outcomes
from benchmarks.publish import publish
from benchmarks.tables import BLOCKS


@pytest.fixture(autouse=True)
def _drawings(monkeypatch):
    """The real ones have tests of their own."""
    monkeypatch.setattr("benchmarks.publish.draw", lambda figures, images: [images / "benchmark-scaling.svg"])


def _document(folder, *names, text="Before.\r\n{}\r\nAfter  "):
    path = folder / "page.md"
    path.write_bytes(text.format("\n".join(f"<!-- benchmark:{name}:start -->old<!-- benchmark:{name}:end -->" for name in names)).encode())
    return path


def _published(figures, folder, *names):
    path = _document(folder, *names)
    publish(figures, [path], folder / "images")
    return path.read_bytes().decode()


def test_every_name_is_written_and_the_rest_stays(figures, tmp_path):
    said = _published(figures, tmp_path, *BLOCKS)
    assert said.startswith("Before.\r\n<!-- benchmark:machine:start -->\n\nIntel(R) Xeon(R) Processor, 2 cores, 1 and 2 threads;")
    assert said.endswith("<!-- benchmark:bounds:end -->\r\nAfter  ")
    assert "old" not in said.replace("threshold", "")
    assert "![Time against size](images/benchmark-scaling.svg)" in said
    said = said.replace("\N{NO-BREAK SPACE}", " ")
    assert "| GPT training step, d256 L4 | 310 ms | 294 ms | 0.95× | 254 ms (compiled) | 0.82× |" in said
    assert "284 tokens/s" in said
    assert "| `layer_norm` | 12.0 ms | 4.92 ms | 0.41× |" in said
    assert "Not timed, because of “TypeError: no example”: train.fit in NumPy; train.fit in PyTorch eager." in said
    assert "thinc is not installed" in said


def test_publishing_twice_changes_nothing(figures, tmp_path):
    said = _published(figures, tmp_path, *BLOCKS)
    publish(figures, [tmp_path / "page.md"], tmp_path / "images")
    assert (tmp_path / "page.md").read_bytes().decode() == said


def test_a_document_without_the_machine_says_where_it_was_measured(figures, tmp_path):
    said = _published(figures, tmp_path, "summary", "peers")
    assert said.count("Intel(R) Xeon(R) Processor, 2 cores") == 1
    assert "Ratios from other machines differ." in said
    assert "PyTorch 2.13.0+cpu, openblas 0.3.31 SkylakeX; 2026-11-22" in said


def test_a_document_without_marks_is_not_touched(figures, tmp_path):
    path = tmp_path / "page.md"
    path.write_text("nothing here", encoding="utf-8")
    publish(figures, [path], tmp_path / "images")
    assert path.read_text(encoding="utf-8") == "nothing here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- benchmark:speed:start --><!-- benchmark:speed:end -->", "'speed'"),
        ("<!-- benchmark:peers:start -->", "benchmark:peers:end"),
        ("<!-- benchmark:peers:start --><!-- benchmark:goals:start --><!-- benchmark:goals:end -->", "benchmark:peers:end"),
        ("<!-- benchmark:peers:end -->", "benchmark:peers:start"),
        ("<!-- benchmark:peers:start --><!-- benchmark:peers:end -->" * 2, "'peers' stands twice"),
    ],
)
def test_wrong_marks_are_refused_before_anything_is_written(figures, tmp_path, text, message):
    good, wrong = _document(tmp_path, "goals"), tmp_path / "wrong.md"
    wrong.write_text(text, encoding="utf-8")
    before = good.read_bytes()
    with pytest.raises(ValueError, match=message):
        publish(figures, [good, wrong], tmp_path / "images")
    assert good.read_bytes() == before
    assert wrong.read_text(encoding="utf-8") == text


def test_a_document_that_is_not_there(figures, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.md"):
        publish(figures, [tmp_path / "nowhere.md"], tmp_path / "images")


def test_goals_are_judged_by_the_figures(figures):
    found = {(one.goal, one.row): (one.measured, one.met) for one in outcomes(figures)}
    step = "GPT training step, d256 L4"
    assert found["GPT training step (tuned BLAS)", step] == ("0.95×", False)
    assert found["GPT training step, 2 threads (tuned BLAS)", step] == ("0.95×", False)
    assert found["GPT training step against torch's fastest column", step] == ("0.82×", False)
    assert found["share of the GEMM roofline in the training step", step] == ("83%", True)      # 31e9 / 120e9 / 0.31 s
    assert found["attention, T = 4096 (tuned BLAS)", "attention, length 4096"] == ("2.50×", True)
    assert found["layer norm", "ops.layer_norm"] == ("0.41×", False)
    assert found["training step against autograd-class and llm.c-class peers (tuned BLAS)", step] == ("3.87×", False)
    assert found["cross-entropy over 32k", ""] == ("no row measures this", None)
    assert [one for (goal, _), one in found.items() if "copy bandwidth" in goal] == [("no GPU measured", None)]


def test_both_settings_of_blas_have_goals_of_their_own(figures):
    for row in figures["rows"]:
        if row["seconds"]:
            row["seconds"]["numpy tuned"] = {key: value / 2 for key, value in row["seconds"]["numpy default"].items()}
    found = {one.goal: (one.wanted, one.measured, one.met) for one in outcomes(figures)}
    assert found["MoE, top 2 of 8 (tuned BLAS)"] == ("≥ 2×", "3.20×", True)
    assert found["MoE, top 2 of 8 (default BLAS)"] == ("≥ 1.25×", "1.60×", True)
    assert found["layer norm"] == ("≥ 0.55×", "0.82×", True)


def test_two_settings_with_the_same_kernels_are_one(figures):
    for row in figures["rows"]:
        if row["group"] == "workloads":
            row["seconds"]["numpy tuned"] = row["seconds"]["torch"]
    figures["machine"]["same"] = {"numpy tuned": "OpenBLAS chooses the same kernels by itself"}
    found = {one.goal: one.measured for one in outcomes(figures)}
    assert found["MoE, top 2 of 8 (tuned BLAS)"] == "1.60×"
    assert "MoE, top 2 of 8 (default BLAS)" not in found
    assert found["layer norm"] == "0.41×"


def test_without_figures_every_goal_says_so(figures):
    figures["rows"] = []
    assert {one.met for one in outcomes(figures)} == {None}
