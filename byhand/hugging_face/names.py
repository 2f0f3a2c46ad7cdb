"""Names in files: made alike, and told briefly where they are missing or unknown, for a large model has thousands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_TOLD = 8


def listed(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """What is told of them.

    Examples
    --------
    >>> listed(["a"], [])
    "missing ['a'], unknown []"
    >>> listed([], [f"w{i}" for i in range(100)])
    "missing [], unknown ['w0', 'w1', 'w2', 'w3', 'w4', 'w5', 'w6', 'w7'] and 92 more"
    """
    return f"missing {_first(missing)}, unknown {_first(unknown)}"


def renamed(who: str, arrays: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """The arrays under the names that `rename` gives them.

    Raises
    ------
    ValueError   if two of them get one name: which is meant, no one can tell

    Examples
    --------
    >>> renamed("read", {"h.0": 1, "wte": 2}, str.upper)
    {'H.0': 1, 'WTE': 2}
    >>> renamed("read", {"wte": 1, "transformer.wte": 2}, lambda name: name.removeprefix("transformer."))
    Traceback (most recent call last):
        ...
    ValueError: read needs one array for wte; got 'wte' and 'transformer.wte'
    """
    found: dict[str, str] = {}
    for name in arrays:
        ours = rename(name)
        if ours in found:
            raise ValueError(f"{who} needs one array for {ours}; got {found[ours]!r} and {name!r}")
        found[ours] = name
    return {ours: arrays[name] for ours, name in found.items()}


def _first(names: Sequence[str]) -> str:
    more = len(names) - _TOLD
    return str(list(names[:_TOLD])) + (f" and {more} more" if more > 0 else "")
