"""The ways of keeping keys and values, by name."""

from collections.abc import Sequence
from typing import Any

from byhand.checks import choice, demand
from numpy_impl.decode.cache import Store
from numpy_impl.decode.contiguous import ContiguousStore
from numpy_impl.decode.paged import PagedStore, PageTable
from numpy_impl.decode.quantized import QuantizedStore
from numpy_impl.decode.rolling import RollingStore

_OPTIONS = {
    "auto": (), "contiguous": (), "rolling": ("spare",), "paged": ("page",), "int8": ("recent", "block"), "nf4": ("recent", "block"),
}
KINDS = tuple(_OPTIONS)


def make_stores(windows: Sequence[int | None], *, kind: str = "auto", **options: Any) -> list[Store]:
    """A store for every layer.

    Parameters
    ----------
    windows   a layer: how many tokens each one sees, its own among them; None: all
    kind      "contiguous": all keys and values, in one array; "rolling": those that a window still sees; "paged": in pages, which
              rows with a common beginning share; "int8", "nf4": quantized, but for the most recent; "auto": rolling where there is a
              window, else contiguous
    options   those of the store: spare of "rolling", page of "paged", recent and block of "int8" and "nf4"

    Raises
    ------
    ValueError   if there is no such kind, it has no such option, or a rolling store is asked for where a layer sees all tokens

    Examples
    --------
    >>> [type(store).__name__ for store in make_stores([None, 4])]
    ['ContiguousStore', 'RollingStore']
    """
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
