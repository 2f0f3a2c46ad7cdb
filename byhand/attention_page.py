"""Attention weights as a page: one HTML file that needs nothing else, where one points at a token and sees what it attends to."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.run_directory import write_whole


class Layer(NamedTuple):
    """One attention layer: its name, weights (H, T, S), the numbers of its heads, and which texts its queries and keys are tokens of."""

    name: str
    weights: NDArray
    heads: Sequence[int]
    queries: str
    keys: str


def write_page(path: Path, layers: Sequence[Layer], texts: Mapping[str, Sequence[str]], *, title: str) -> None:
    """Write the page; weights are kept in steps of 1/65535.

    texts : the tokens, as they are to be written, of every text that a layer names
    """
    data = {
        "texts": {name: list(tokens) for name, tokens in texts.items()},
        "layers": [
            {"name": layer.name, "heads": list(layer.heads), "queries": layer.queries, "keys": layer.keys,
             "weights": base64.b64encode(np.rint(np.asarray(layer.weights, np.float64) * 65535).astype("<u2").tobytes()).decode()}
            for layer in layers
        ],
    }
    # Inside a script nothing but "</script" and "<!--" can do harm, and neither can be written without "<".
    page = _PAGE.replace("TITLE", html.escape(title)).replace("DATA", json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))
    write_whole(path, page.encode())


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>Attention: TITLE</title>
<style>
:root { color-scheme: light dark; --page: #fff; --text: #1c1e21; --faint: #6b7076; --line: #d9dce0; --unseen: #f3efe7;
        --c0: 247,251,255; --c1: 43,123,186; --c2: 8,32,74; --mark: #e8590c }
@media (prefers-color-scheme: dark) { :root { --page: #15171a; --text: #e6e6e6; --faint: #9aa0a6; --line: #3a3f45; --unseen: #24221e;
        --c0: 24,32,42; --c1: 45,125,190; --c2: 205,230,255; --mark: #ffa94d } }
* { box-sizing: border-box }
body { margin: 0; padding: 20px 24px; background: var(--page); color: var(--text); font: 14px/1.45 system-ui, sans-serif }
h1 { font-size: 17px; margin: 0 0 2px } h2 { font-size: 13px; margin: 0 0 6px; font-weight: 600 }
p { margin: 0 0 14px; color: var(--faint) }
main { display: flex; gap: 28px; align-items: flex-start; flex-wrap: wrap }
main > :last-child { flex: 1 1 270px; max-width: 560px }
#heads { display: grid; gap: 5px; align-items: center; font-size: 11px; color: var(--faint); max-height: 88vh; overflow: auto;
         padding: 2px }
#heads button { padding: 0; border: 1px solid var(--line); border-radius: 3px; background: none; cursor: pointer; line-height: 0 }
#heads button[aria-pressed=true], #heads button:focus-visible { outline: 2px solid var(--mark); outline-offset: 0 }
#heads canvas { width: 52px; height: 52px; image-rendering: pixelated; border-radius: 2px }
#heads .number { text-align: center } #heads .name { max-width: 130px; overflow-wrap: anywhere }
#matrix { display: block; cursor: crosshair; touch-action: none }
#told { min-height: 1.5em; margin: 8px 0 0; font-variant-numeric: tabular-nums }
#told b { font: 600 13px ui-monospace, monospace; border: 1px solid var(--line); padding: 1px 5px; border-radius: 3px }
.strip { font: 14px/1.75 ui-monospace, monospace; margin: 0 0 16px; white-space: pre-wrap; overflow-wrap: anywhere }
.strip span { padding: 2px 1px; border-radius: 2px; cursor: pointer } .strip .at { outline: 2px solid var(--mark) }
.strip br + span { margin-left: 0 }
#scale { height: 9px; width: 190px; margin-top: 10px; border: 1px solid var(--line); border-radius: 2px }
.ends { display: flex; justify-content: space-between; width: 190px; font-size: 11px; color: var(--faint) }
</style></head><body>
<h1>TITLE</h1>
<p>Each row of a square is a token that attends, each column a token attended to. Point at a square or at a word; click keeps it.
Arrow keys go from head to head.</p>
<main>
<section><h2>Heads</h2><div id=heads></div></section>
<section><h2 id=which></h2><canvas id=matrix></canvas><div id=told></div>
<canvas id=scale width=190 height=1></canvas><div class=ends><span>0</span><span>0.25</span><span>1</span></div></section>
<section>
<h2>The token that attends</h2><div class=strip id=queries></div>
<h2>What it attends to, as shares of its largest weight</h2><div class=strip id=keys></div>
</section>
</main>
<script type=application/json id=data>DATA</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent), $ = id => document.getElementById(id);
for (const layer of data.layers) {
  const bytes = Uint8Array.from(atob(layer.weights), c => c.charCodeAt(0)), view = new DataView(bytes.buffer);
  layer.T = data.texts[layer.queries].length; layer.S = data.texts[layer.keys].length;
  layer.at = (head, t, s) => view.getUint16(2 * ((head * layer.T + t) * layer.S + s), true) / 65535;
}
let now = { layer: 0, head: 0 }, row = null, column = null, kept = false, css;

function readColours() {
  const style = getComputedStyle(document.documentElement), read = name => style.getPropertyValue(name).trim();
  css = { stops: ["--c0", "--c1", "--c2"].map(name => read(name).split(",").map(Number)), unseen: read("--unseen"), text: read("--text"),
          faint: read("--faint"), mark: read("--mark") };
}
function colour(weight) {
  if (weight === 0) return css.unseen;
  const x = 2 * Math.sqrt(weight), i = Math.min(Math.floor(x), 1);
  return `rgb(${css.stops[i].map((a, k) => Math.round(a + (css.stops[i + 1][k] - a) * (x - i))).join()})`;
}
function cells(context, layer, head, x, y, size) {
  for (let t = 0; t < layer.T; t++) for (let s = 0; s < layer.S; s++) {
    context.fillStyle = colour(layer.at(head, t, s));
    const left = Math.round(x + s * size), top = Math.round(y + t * size);   // whole pixels: no seams
    context.fillRect(left, top, Math.round(x + (s + 1) * size) - left, Math.round(y + (t + 1) * size) - top);
  }
}
function thumbnails() {
  const columns = Math.max(...data.layers.map(layer => layer.heads.length)), box = $("heads");
  box.replaceChildren();
  box.style.gridTemplateColumns = `auto repeat(${columns}, 54px)`;
  const say = (text, kind) => { const div = document.createElement("div"); div.className = kind; div.textContent = text; box.append(div); };
  const same = data.layers.every(layer => layer.heads.join() === data.layers[0].heads.join());
  say("", "name");
  for (let h = 0; h < columns; h++) say(same ? data.layers[0].heads[h] : "", "number");
  data.layers.forEach((layer, l) => {
    say(layer.name, "name");
    for (let h = 0; h < columns; h++) {
      if (h >= layer.heads.length) { say("", "name"); continue; }
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      canvas.width = layer.S; canvas.height = layer.T;
      cells(canvas.getContext("2d"), layer, h, 0, 0, 1);
      button.append(canvas);
      button.title = `${layer.name}, head ${layer.heads[h]}`;
      button.onclick = () => choose(l, h);
      button.id = `head-${l}-${h}`;
      box.append(button);
    }
  });
}
function choose(layer, head) {
  now = { layer, head };
  for (const button of document.querySelectorAll("#heads button"))
    button.setAttribute("aria-pressed", button.id === `head-${layer}-${head}`);
  $(`head-${layer}-${head}`).scrollIntoView({ block: "nearest" });
  const own = data.layers[layer];
  $("which").textContent = `${own.name}, head ${own.heads[head]}`;
  if (row >= own.T || column >= own.S) row = column = null;
  strips(); draw();
}
function geometry() {
  const layer = data.layers[now.layer], room = Math.max(Math.min(innerWidth - 60, Math.max(innerHeight - 190, 480), 860), 240);
  const size = Math.max(Math.min(Math.floor(room / Math.max(layer.T, layer.S)), 26), 1);
  const font = size >= 8 ? Math.min(size - 1, 13) : 0, longest = name => Math.max(...data.texts[name].map(token => token.length), 1);
  const wide = name => font ? Math.ceil(longest(name) * font * 0.62) + 6 : 0;
  const upright = longest(layer.keys) * font * 0.62 <= size;
  return { layer, size, font, upright, left: wide(layer.queries), top: upright ? font + 5 : wide(layer.keys) };
}
function draw() {
  const { layer, size, font, upright, left, top } = geometry(), canvas = $("matrix"), dense = devicePixelRatio || 1;
  const width = left + size * layer.S + 1, height = top + size * layer.T + 1;
  canvas.width = width * dense; canvas.height = height * dense; canvas.style.width = width + "px"; canvas.style.height = height + "px";
  const context = canvas.getContext("2d");
  cells(context, layer, now.head, left * dense, top * dense, size * dense);
  context.scale(dense, dense);
  if (font) {
    context.font = `${font}px ui-monospace, monospace`; context.textBaseline = "middle";
    data.texts[layer.queries].forEach((token, t) => {
      context.fillStyle = t === row ? css.mark : css.text; context.textAlign = "right";
      context.fillText(token, left - 4, top + (t + 0.5) * size);
    });
    data.texts[layer.keys].forEach((token, s) => {
      context.save(); context.fillStyle = s === column ? css.mark : css.text;
      context.translate(left + (s + 0.5) * size, top - 4);
      if (upright) { context.textAlign = "center"; context.textBaseline = "alphabetic"; }
      else { context.rotate(-Math.PI / 2); context.textAlign = "left"; }
      context.fillText(token, 0, 0); context.restore();
    });
  }
  if (row !== null) {
    context.strokeStyle = css.mark; context.lineWidth = 1.5;
    context.strokeRect(left + 0.5, top + row * size + 0.5, size * layer.S - 1, size - 1);
    if (column !== null) context.strokeRect(left + column * size + 0.5, top + 0.5, size - 1, size * layer.T - 1);
  }
  tell();
}
function tell() {
  const layer = data.layers[now.layer], box = $("told");
  box.replaceChildren();
  if (row === null) return;
  const token = (name, i) => { const b = document.createElement("b"); b.textContent = data.texts[name][i]; return b; };
  box.append(`query ${row} `, token(layer.queries, row));
  let s = column;
  if (s === null) {
    s = 0;
    for (let i = 1; i < layer.S; i++) if (layer.at(now.head, row, i) > layer.at(now.head, row, s)) s = i;
    box.append(" attends most to");
  } else box.append(" attends to");
  box.append(` key ${s} `, token(layer.keys, s), ` with weight ${layer.at(now.head, row, s).toFixed(4)}`);
}
function strips() {
  const layer = data.layers[now.layer];
  for (const [id, name] of [["queries", layer.queries], ["keys", layer.keys]]) {
    const box = $(id);
    box.replaceChildren();
    data.texts[name].forEach((token, i) => {
      const span = document.createElement("span");
      span.textContent = token.replaceAll("␣", " ").replaceAll("⇥", "    ");
      if (id === "queries") {
        span.onpointerenter = () => { if (!kept) point(i, null); };
        span.onclick = () => { kept = !(kept && row === i); point(i, null); };
      } else {
        span.onpointerenter = () => { if (row !== null) point(row, i); };
      }
      box.append(span);
      if (token.includes("↵")) box.append(document.createElement("br"));
    });
  }
  shade();
}
function shade() {
  const layer = data.layers[now.layer];
  const mark = (id, i) => [...$(id).querySelectorAll("span")].forEach((span, k) => span.classList.toggle("at", k === i));
  mark("queries", row); mark("keys", column);
  const weights = [...Array(layer.S).keys()].map(s => row === null ? 0 : layer.at(now.head, row, s)), most = Math.max(...weights) || 1;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  [...$("keys").querySelectorAll("span")].forEach((span, s) => {
    const share = (weights[s] / most) ** 2;                        // undoes the root of the scale: here small ones may fade
    span.style.background = weights[s] ? colour(share) : "none";
    span.style.color = share > 0.15 ? (dark && share > 0.4 ? "#10151b" : "#fff") : "";
    span.title = row === null ? "" : weights[s].toFixed(4);
  });
}
function point(t, s) { row = t; column = s; draw(); shade(); }
$("matrix").onpointermove = event => {
  if (kept) return;
  const { layer, size, left, top } = geometry();
  const t = Math.floor((event.offsetY - top) / size), s = Math.floor((event.offsetX - left) / size);
  if (t >= 0 && t < layer.T && s < layer.S) point(t, s >= 0 ? s : null);
};
$("matrix").onpointerleave = () => { if (!kept) point(null, null); };
$("matrix").onclick = () => { kept = !kept; };
addEventListener("keydown", event => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (event.key === "Escape") { kept = false; point(null, null); }
  if (!step) return;
  const layer = now.layer + step[0], head = now.head + step[1];
  if (data.layers[layer]?.heads[head] !== undefined) { choose(layer, head); event.preventDefault(); }
});
function begin() {
  readColours(); thumbnails(); choose(now.layer, now.head);
  const scale = $("scale").getContext("2d");
  for (let x = 0; x < 190; x++) { scale.fillStyle = colour(((x + 0.5) / 190) ** 2); scale.fillRect(x, 0, 1, 1); }
}
matchMedia("(prefers-color-scheme: dark)").onchange = begin;
addEventListener("resize", draw);
begin();
</script></body></html>
"""
