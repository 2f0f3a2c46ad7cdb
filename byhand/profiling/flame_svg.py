"""A flame graph as one SVG that needs nothing else."""

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from byhand.profiling.measure import Profile
from byhand.profiling.names import Frame
from byhand.profiling.recorder import Node, components

_WIDTH, _ROW, _TOP, _BOTTOM = 1200, 18, 64, 12
_NARROWEST = 0.05                      # pixels; what is narrower is part of what is above it
_LEGIBLE = 26                          # pixels; what is narrower bears no name


class _Box(NamedTuple):
    node: Node
    depth: int
    begin: int                         # nanoseconds
    total: int


def draw(profile: Profile, title: str) -> str:
    """Boxes as wide as their time, callers above what they call, in the order in which they first came."""
    total = profile.time.sum("time") or 1
    boxes = [box for box in _boxes(profile.time, 0, 0) if box.total * _WIDTH / total >= _NARROWEST]
    height = _TOP + _ROW * (1 + max(box.depth for box in boxes)) + _BOTTOM
    peaks = {row.frame.label: row.peak for row in components(profile.memory)}
    drawn = "".join(_drawn(box, total, profile.runs, peaks) for box in boxes)
    legend = "".join(f'<rect class="{kind}" x="{12 + 150 * i}" y="36" width="12" height="12" rx="2"/>'
                     f'<text class="note" x="{30 + 150 * i}" y="46">{text}</text>' for i, (kind, text) in enumerate(_LEGEND.items()))
    head = f"{escape(title)}: {total / profile.runs / 1e6:,.3f} ms a {profile.what}"
    # titles and names come last: they may hold any word
    numbers = _SVG.replace("WIDTH", str(_WIDTH)).replace("LEGIBLE", str(_LEGIBLE)).replace("HEIGHT", str(height))
    return numbers.replace("LEGEND", legend).replace("BOXES", drawn, 1).replace("HEAD", head, 1)


_LEGEND = {"forward": "forward", "backward": "backward", "plain": "neither", "operator": "operators", "outside": "outside"}


def _boxes(node: Node, depth: int, begin: int) -> Iterator[_Box]:
    """Children begin where their parent does; its own time is the gap behind them."""
    total = node.sum("time")
    yield _Box(node, depth, begin, total)
    for child in node.children.values():
        yield from _boxes(child, depth + 1, begin)
        begin += child.sum("time")


def _drawn(box: _Box, total: int, runs: int, peaks: dict[str, int]) -> str:
    node, label = box.node, escape(box.node.frame.label)
    x, width = box.begin * _WIDTH / total, box.total * _WIDTH / total
    told = (f"{label}\n{box.total / runs / 1e6:,.3f} ms, {box.total / total:.1%}; itself {node.time / runs / 1e6:,.3f} ms\n"
            f"calls: {node.calls / runs:,g}")
    if node.frame.label in peaks:
        told += f"; at most {peaks[node.frame.label] / 2**20:,.2f} MiB at once in one"
    hidden = "" if width > _LEGIBLE else ' display="none"'
    return (f'<svg class="{_kind(node.frame)}" x="{x:.3f}" y="{_TOP + _ROW * box.depth}" width="{width:.3f}" height="{_ROW - 1}">'
            f'<title>{told}</title><rect width="100%" height="100%" rx="2"/><text x="4" y="13"{hidden}>{label}</text></svg>\n')


def _kind(frame: Frame) -> str:
    if frame.kind != "component":
        return "outside" if frame.kind == "outside" else "operator"
    return frame.phase or "plain"


# A box is an svg of its own, which cuts its text off at its edge. A click scales begin and width of them all; without scripts the picture
# is the same, and titles still tell.
_SVG = """<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 WIDTH HEIGHT" width="WIDTH" height="HEIGHT">
<style>
  svg { background: #fff; font: 11px ui-monospace, Menlo, Consolas, monospace }
  svg svg { cursor: pointer; background: none }
  svg svg:hover rect { stroke: #1c1e21; stroke-width: 1.5 }
  text { fill: #1c1e21 } .head { font: 600 14px system-ui, sans-serif } .note { font: 12px system-ui, sans-serif; fill: #6b7076 }
  .forward { fill: #f4a259 } .backward { fill: #6fa8dc } .plain { fill: #8cc7a1 } .operator { fill: #d9dce0 } .outside { fill: #bfb6d9 }
</style>
<text class="head" x="12" y="22">HEAD</text>
LEGEND
<text class="note" x="1188" y="46" text-anchor="end">click a box to see it wider, the topmost to see all</text>
BOXES<script><![CDATA[
  const boxes = [...document.querySelectorAll("svg svg")].map(box => ({ box, x: +box.getAttribute("x"), width: +box.getAttribute("width"),
    y: +box.getAttribute("y") }));
  for (const chosen of boxes) chosen.box.addEventListener("click", () => {
    const scale = WIDTH / chosen.width;
    for (const { box, x, width, y } of boxes) {
      const above = y < chosen.y && x <= chosen.x + 0.001 && x + width >= chosen.x + chosen.width - 0.001;
      const begin = above ? 0 : (x - chosen.x) * scale, wide = above ? WIDTH : width * scale;
      box.style.display = begin + wide > 0.001 && begin < WIDTH - 0.001 ? "" : "none";
      box.setAttribute("x", begin);
      box.setAttribute("width", wide);
      box.querySelector("text").setAttribute("display", wide > LEGIBLE ? "inline" : "none");
    }
  });
]]></script>
</svg>
"""
