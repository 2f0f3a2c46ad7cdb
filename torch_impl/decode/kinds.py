"""The ways of keeping keys and values, by name."""

from collections.abc import Sequence
from typing import Any

from byhand.checks import choice, demand
from torch_impl.decode.cache import Store
from torch_impl.decode.contiguous import ContiguousStore

KINDS = ("auto", "contiguous", "rolling", "paged", "int8", "nf4")


def make_stores(windows: Sequence[int | None], *, kind: str = "auto", **options: Any) -> list[Store]:
    """A store for every layer: windows say how many tokens each one sees, None all; options are those of the kind."""
    who = "make_stores"
    choice(who, KINDS, kind=kind)
    known = {"paged": ("page",), "int8": ("recent",), "nf4": ("recent", "block")}.get(kind, ())
    for name in options:
        demand(who, name in known, f"options from {known} for kind={kind!r}", option=name)
    if kind == "paged":
        from torch_impl.decode.paged import PagedStore, PageTable

        table = PageTable(**options)
        return [PagedStore(table=table) for _ in windows]
    if kind in ("int8", "nf4"):
        from torch_impl.decode.quantized import QuantizedStore

        return [QuantizedStore(kind=kind, **options) for _ in windows]
    if kind == "rolling":
        demand(who, all(window is not None for window in windows), "a window in every layer for kind='rolling'", windows=list(windows))
    if kind == "contiguous" or not any(windows):
        return [ContiguousStore() for _ in windows]
    from torch_impl.decode.rolling import RollingStore

    return [ContiguousStore() if window is None or kind == "contiguous" else RollingStore(window=window) for window in windows]
