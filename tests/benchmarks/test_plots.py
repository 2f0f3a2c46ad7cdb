"""The drawings of the benchmark: which are made of which figures, that they are the same for the same, and where lines cross."""

import copy
import math
import xml.etree.ElementTree

import pytest

from benchmarks.plots import draw
from benchmarks.plots_curves import crossing

pytest.importorskip("matplotlib")

WHOLE = {"summary", "speedup", "speedup-ops", "speedup-optim", "roofline", "scaling", "threads", "crossover", "memory"}


def _names(paths):
    return {path.stem.removeprefix("benchmark-") for path in paths}


def test_every_drawing_is_readable_and_the_same_for_the_same_figures(figures, tmp_path):
    paths = draw(figures, tmp_path / "images")
    assert _names(paths) == WHOLE
    again = draw(copy.deepcopy(figures), tmp_path / "again")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        xml.etree.ElementTree.fromstring(text)
        assert "<text" in text                        # words stay words
        assert "fill: #ffffff" in text                # a ground of its own
        assert "<dc:date>" not in text
    assert "no GPU was measured" in (tmp_path / "images" / "benchmark-crossover.svg").read_text(encoding="utf-8")


def test_gpu_and_tuned_columns_are_drawn_where_they_are(figures, tmp_path):
    for row in figures["rows"]:
        if row["seconds"]:
            row["seconds"] |= {column: {key: value / 50 for key, value in row["seconds"]["numpy default"].items()}
                               for column in ("cuda", "cuda with transfers", "numpy tuned")}
    draw(figures, tmp_path)
    crossover = (tmp_path / "benchmark-crossover.svg").read_text(encoding="utf-8")
    assert "CUDA with transfers: faster at every size" in crossover
    assert "no GPU was measured" not in crossover
    assert "tuned BLAS" in (tmp_path / "benchmark-speedup.svg").read_text(encoding="utf-8")


def test_rows_that_lack_things_break_nothing(figures, tmp_path):
    bare = {"schema": 2, "machine": {}, "rows": []}
    assert draw(bare, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    for row in figures["rows"]:
        row |= {"peak_bytes": None, "bytes": None, "floor": None, "share": None, "elements": None}
        row["seconds"].pop("torch", None)
    figures["machine"]["roofline"] = {}
    assert _names(draw(figures, tmp_path)) == {"scaling", "threads"}


@pytest.mark.parametrize(
    ("theirs", "size"),
    [
        ([4.0, 4.0, 5.0], None),              # never faster at the end
        ([0.5, 1.0, 2.0], 1),                 # from the smallest on
        ([2.0, 4.0, 2.0], math.sqrt(1e3)),    # 2 times ours at 10 and half of it at 100: halfway in the log-log picture
    ],
)
def test_crossing(theirs, size):
    found = crossing([(1, 1.0), (10, 2.0), (100, 4.0)], list(zip((1, 10, 100), theirs, strict=True)))
    assert found == (None if size is None else pytest.approx(size))
