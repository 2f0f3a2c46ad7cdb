"""Names that are missing or unknown, told briefly: a large model has thousands."""

from collections.abc import Sequence

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


def _first(names: Sequence[str]) -> str:
    more = len(names) - _TOLD
    return str(list(names[:_TOLD])) + (f" and {more} more" if more > 0 else "")
