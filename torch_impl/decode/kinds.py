"""The ways of keeping keys and values, by name."""

from collections.abc import Sequence
from typing import Any

from byhand.checks import choice, demand
from torch_impl.decode.cache import Store
from torch_impl.decode.contiguous import ContiguousStore
from torch_impl.decode.paged import PagedStore, PageTable
from torch_impl.decode.quantized import QuantizedStore
from torch_impl.decode.rolling import RollingStore

_OPTIONS = {
    "auto": (), "contiguous": (), "rolling": ("spare",), "paged": ("page",), "int8": ("recent", "block"), "nf4": ("recent", "block"),
}
KINDS = tuple(_OPTIONS)


def make_stores(windows: Sequence[int | None], *, kind: str = "auto", **options: Any) -> list[Store]:
    """A store for every layer: windows say how many tokens each one sees, None all; options are those of the kind."""
    who = "make_stores"
    choice(who, KINDS, kind=kind)
    for name in options:
        demand(who, name in _OPTIONS[kind], f"options from {_OPTIONS[kind]} for kind={kind!r}", option=name)
    if kind == "rolling":
        demand(who, None not in windows, "a window in every layer for kind='rolling'", windows=list(windows))
    if kind == "paged":
        table = PageTable(**options)
        return [PagedStore(table=table) for _ in windows]
    if kind in ("int8", "nf4"):
        return [QuantizedStore(kind=kind, **options) for _ in windows]
    return [
        ContiguousStore() if window is None or kind == "contiguous" else RollingStore(window=window, **options) for window in windows
    ]
