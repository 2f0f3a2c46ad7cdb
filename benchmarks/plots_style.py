"""What the drawings share: one colour and one marker for a column, wherever it is drawn."""

from typing import Any

# Colours of Okabe and Ito, told apart by people with any colour vision; markers differ as well.
COLORS = {
    "numpy default": "#0072B2", "numpy tuned": "#56B4E9", "torch": "#E69F00", "onednn": "#D55E00", "compiled": "#CC79A7",
    "cuda": "#009E73", "cuda with transfers": "#009E73", "cuda compiled": "#005C43", "cuda compiled with transfers": "#005C43",
}
MARKERS = {
    "numpy default": "o", "numpy tuned": "^", "torch": "s", "onednn": "D", "compiled": "v", "cuda": "P", "cuda with transfers": "X",
    "cuda compiled": "*", "cuda compiled with transfers": "h",
}
NAMES = {
    "numpy default": "NumPy", "numpy tuned": "NumPy, tuned BLAS", "torch": "PyTorch eager", "onednn": "PyTorch, oneDNN",
    "compiled": "PyTorch compiled", "cuda": "CUDA", "cuda with transfers": "CUDA with transfers", "cuda compiled": "CUDA compiled",
    "cuda compiled with transfers": "CUDA compiled, with transfers",
}
INK, FAINT = "#222222", "#999999"


def legend(figure: Any, handles: list[Any], *, columns: int = 4) -> None:
    """Below the drawing, outside of all data."""
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), fontsize=8.5, handlelength=1.8)


def times(value: float, _: Any = None) -> str:
    """A ratio as a tick: ½×, 1×, 2×, …"""
    if value >= 1:
        return f"{value:g}×"
    return {0.5: "½×", 0.25: "¼×", 0.125: "⅛×"}.get(value, f"1/{1 / value:g}×")
