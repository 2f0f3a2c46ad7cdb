"""The figure of a run is drawn for one implementation and for two, however little they differ."""

import sys

import pytest

from byhand.curves import draw_losses

ONE = [5.0, 4.0, 3.0]


@pytest.mark.parametrize(
    "losses",
    [
        {"numpy": ONE},
        {"numpy": ONE, "torch": [5.0, 4.0 + 1e-15, 3.0]},
        {"numpy": ONE, "torch": ONE},                       # nothing has a place on a logarithmic axis
        {"numpy": ONE, "torch": [5.5, 3.0, 300.0]},
        {"numpy": ONE[:1], "torch": ONE[:1]},
    ],
)
@pytest.mark.parametrize("bound", [None, 1e-9])
def test_a_figure_is_drawn(tmp_path, losses, bound):
    draw_losses(tmp_path / "losses.png", losses, validation={"numpy": {2: 4.5}}, title="a run", bound=bound)
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["losses.png"]


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"pip install 'byhand\[plot\]'"):
        draw_losses(tmp_path / "losses.png", {"numpy": ONE}, validation={}, title="a run")
