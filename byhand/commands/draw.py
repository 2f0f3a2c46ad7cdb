"""`byhand draw attention`: the attention weights of a model on a text, as PNG, SVG or a page to point at."""

import inspect
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from byhand.attention_figure import Panel, draw_panels
from byhand.attention_maps import AttentionMap, attention_maps
from byhand.attention_page import Layer, write_page
from byhand.checks import choice, demand, fail
from byhand.model_source import Source, open_model

_ENDINGS = (".png", ".svg", ".html")
_LONGEST = 1024  # tokens: a million weights a head


class _Text(NamedTuple):
    ids: list[int]
    tokens: list[str]


def draw_attention(model: str, *, text: str, target: str | None, ids: str | None, layer: str | None, head: int | None, out: Path,
                   seed: int) -> None:
    """Run the model on the text and draw a head, the heads of a layer, or all.

    Raises
    ------
    ValueError   if the model cannot be opened, does not take the text, or has no such layer or head
    """
    choice("draw", _ENDINGS, **{f"{out}, a picture with an ending": out.suffix.lower()})
    source = open_model(model, seed=seed)
    texts = _texts(source, text, target, ids)
    inputs = [np.array([entry.ids], dtype=np.int64) for entry in texts.values()]
    with np.errstate(all="ignore"):
        maps = _chosen(attention_maps(source.model, *inputs), layer)
    layers = [_layer(found, texts, head) for found in maps]
    if out.parent != Path():
        out.parent.mkdir(parents=True, exist_ok=True)
    tokens = {name: entry.tokens for name, entry in texts.items()}
    if out.suffix.lower() == ".html":
        write_page(out, layers, tokens, title=source.title)
    else:
        panels = [Panel(f"{entry.name}, head {number}", weights, tokens[entry.queries], tokens[entry.keys])
                  for entry in layers for number, weights in zip(entry.heads, entry.weights, strict=True)]
        heads = max(len(entry.heads) for entry in layers)
        draw_panels(out, panels, columns=heads if len(layers) > 1 else math.ceil(math.sqrt(heads)), title=source.title)
    drawn, lengths = sum(len(entry.heads) for entry in layers), " and ".join(str(len(words)) for words in tokens.values())
    Console(highlight=False, soft_wrap=True).print(
        f"{out}: {source.title}; {drawn} {'head' if drawn == 1 else 'heads'} on {lengths} tokens", markup=False
    )


def _texts(source: Source, text: str, target: str | None, ids: str | None) -> dict[str, _Text]:
    """What the model reads, by the names of its own arguments: ids, or source and target where it reads one text and writes another."""
    expected = [name for name, parameter in inspect.signature(type(source.model).forward).parameters.items()
                if name != "self" and parameter.kind == parameter.POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty]
    demand("draw", target is None or len(expected) == 2, "a target only for a model that reads one text and writes another", target=target)
    given = {expected[0]: numbered(ids) if ids is not None else _Text(*source.tokenize(text))}
    if len(expected) == 2:
        given[expected[1]] = _Text(*source.tokenize(text if target is None else target))
    for name, entry in given.items():
        demand("draw", 1 <= len(entry.ids) <= _LONGEST, f"a text of 1 to {_LONGEST} tokens as {name}", tokens=len(entry.ids))
    return given


def numbered(ids: str) -> _Text:
    """The numbers of tokens in a text such as "3, 1, 4", and how they are written."""
    words = ids.replace(",", " ").split()
    demand("draw", all(word.isdecimal() for word in words), "ids as numbers with spaces or commas between them", ids=ids)
    return _Text([int(word) for word in words], words)


def _chosen(maps: list[AttentionMap], layer: str | None) -> list[AttentionMap]:
    """All layers, or the one of that number or name."""
    if layer is None:
        return maps
    names = [found.layer for found in maps]
    if layer.isdecimal():
        demand("draw", int(layer) < len(maps), f"a layer from 0 to {len(maps) - 1}", layer=int(layer))
        return [maps[int(layer)]]
    choice("draw", names, layer=layer)
    return [maps[names.index(layer)]]


def _layer(found: AttentionMap, texts: dict[str, _Text], head: int | None) -> Layer:
    heads, t, s = found.weights.shape
    if head is not None and not 0 <= head < heads:
        fail("draw", f"a head from 0 to {heads - 1} in {found.layer}", f"head={head}")
    first, last = next(iter(texts)), list(texts)[-1]
    reads, writes = (first, first) if found.layer.startswith("encoder") else (first if "cross" in found.layer else last, last)
    fits = (len(texts[writes].tokens), len(texts[reads].tokens)) == (t, s)
    demand("draw", fits, f"a token for every row and column of {found.layer}", weights=found.weights)
    numbers = list(range(heads)) if head is None else [head]
    return Layer(found.layer, found.weights[numbers], numbers, queries=writes, keys=reads)
