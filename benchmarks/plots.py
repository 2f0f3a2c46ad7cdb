"""Drawings of the figures of `python -m benchmarks`, as SVG. They need matplotlib, the `plot` extra.

Every drawing has a white ground of its own, so it can be read on a dark page as well, keeps text as text, and is the same file for the same
figures: where a number changes, a few lines do.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.plots_bars import draw_memory, draw_speedup, draw_summary, draw_threads, rooms_drawn
from benchmarks.plots_curves import draw_crossover, draw_scaling
from benchmarks.plots_roofline import draw_roofline
from benchmarks.reading import Figures, settled
from byhand.run_directory import write_whole

PREFIX = "benchmark-"

_STYLE: Any = {
    "svg.hashsalt": "byhand", "svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.edgecolor": "#888888",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True, "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False, "text.color": "#222222", "axes.labelcolor": "#222222", "xtick.color": "#444444", "ytick.color": "#444444",
    "figure.facecolor": "white", "savefig.facecolor": "white",
}


def draw(figures: Figures, directory: Path) -> list[Path]:
    """Write all drawings for which there are figures into a directory, as benchmark-NAME.svg; nothing empty is written.

    Raises
    ------
    ValueError   if matplotlib is not installed
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("benchmarks needs matplotlib to draw: pip install 'byhand[plot]'") from error
    figures = settled(figures)
    drawings: dict[str, Callable[[Any], bool]] = {
        "summary": lambda figure: draw_summary(figures, figure),
        "speedup": lambda figure: draw_speedup(figures, figure),
        **{f"speedup-{room}": _of_room(figures, room) for room in rooms_drawn(figures)},
        "roofline": lambda figure: draw_roofline(figures, figure),
        "scaling": lambda figure: draw_scaling(figures, figure),
        "threads": lambda figure: draw_threads(figures, figure),
        "crossover": lambda figure: draw_crossover(figures, figure),
        "memory": lambda figure: draw_memory(figures, figure),
    }
    written = []
    for name, drawing in drawings.items():
        with matplotlib.rc_context(_STYLE):
            figure = Figure(layout="constrained")
            FigureCanvasSVG(figure)
            if drawing(figure):
                image = io.BytesIO()
                figure.savefig(image, format="svg", bbox_inches="tight", pad_inches=0.15, metadata={"Date": None, "Creator": None})
                written.append(directory / f"{PREFIX}{name}.svg")
                directory.mkdir(parents=True, exist_ok=True)
                write_whole(written[-1], _without_trailing_spaces(image.getvalue()))
    return written


def _of_room(figures: Figures, room: str) -> Callable[[Any], bool]:
    return lambda figure: draw_speedup(figures, figure, room)


def _without_trailing_spaces(svg: bytes) -> bytes:
    return b"\n".join(line.rstrip() for line in svg.splitlines()) + b"\n"
