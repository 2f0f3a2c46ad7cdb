"""Which modules of a model an adapter goes to, and which rank it gets there: decided by their dotted names alone."""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from byhand.checks import demand, fail, matching

ADAPTABLE = ("Linear", "Linear4bit", "Embedding", "Conv1d", "Conv2d")
_LINEAR = ("Linear", "Linear4bit")
_HEAD = "head"

Names = str | tuple[str, ...]
Value = TypeVar("Value")


def matches(name: str, patterns: Names) -> bool:
    """Whether a module's dotted name is one of those meant.

    patterns : str            a regular expression for the whole name
               tuple of str   names or shell patterns, for the whole name or for what follows one of its dots: ``"q_proj"`` means every
                              q_proj, ``"attn.q_proj"`` those in an attn, ``"*_proj"`` every projection; ``*`` also spans dots

    Examples
    --------
    >>> matches("blocks.0.attn.q_proj", ("q_proj",)), matches("blocks.0.attn.q_proj", ("proj",))
    (True, False)
    >>> matches("blocks.0.attn.q_proj", ("attn.*",)), matches("blocks.0.attn.q_proj", r"blocks\\.[02].*"), matches("q_proj.old", "q_proj")
    (True, True, False)
    """
    if isinstance(patterns, str):
        return re.fullmatch(patterns, name) is not None
    return any(fnmatch.fnmatchcase(name, p) or fnmatch.fnmatchcase(name, f"*.{p}") for p in patterns)


def block_number(name: str) -> int | None:
    """The first number among a name's parts, which counts the blocks; None if there is none.

    Examples
    --------
    >>> block_number("blocks.3.experts.7.up_proj"), block_number("tokens")
    (3, None)
    """
    found = re.search(r"\.(\d+)(?:\.|$)", name)
    return int(found[1]) if found else None


def by_key(values: Mapping[str, Value], name: str, default: Value) -> Value:
    """The value of the first key that matches a module's name: a regular expression for all of it, or for all that follows a dot.

    Examples
    --------
    >>> by_key({"v_proj": 4, "blocks.0.*": 2}, "blocks.0.attn.v_proj", 8), by_key({"proj": 4}, "blocks.0.attn.v_proj", 8)
    (4, 8)
    """
    return next((value for key, value in values.items() if _key_matches(key, name)), default)


def select(function: str, modules: Mapping[str, str], *, targets: Names, exclude: Names = (), layers: tuple[int, ...] | None = None,
           keys: Iterable[str] = ()) -> list[str]:
    """The names of the modules that get an adapter, in the model's order.

    Parameters
    ----------
    function : str              who speaks in an error
    modules : dict              the class name of every module by its dotted name
    targets : str, tuple        as in `matches`; "all-linear" stands for every Linear and Linear4bit that is not called head
    exclude : str, tuple        as in `matches`: what is left out again
    layers : tuple of int       only modules in the blocks of these numbers; None: wherever they are
    keys : iterable of str      the keys of rank and alpha patterns, each of which must mean one of the modules found

    Raises
    ------
    ValueError   if a target, an exclusion, a layer or a key means no module that an adapter can go to (a word misspelt in a list would
                 otherwise go unnoticed), or if nothing is left; near names are listed
    """
    known = {name: kind for name, kind in modules.items() if kind in ADAPTABLE}
    if targets == "all-linear":
        found = [name for name, kind in known.items() if kind in _LINEAR and name.rpartition(".")[2] != _HEAD]
        demand(function, bool(found), "a model with a Linear for the targets 'all-linear'", kinds=sorted(set(modules.values())))
    else:
        for target in (targets,) if isinstance(targets, str) else targets:
            alone: Names = target if isinstance(targets, str) else (target,)
            kinds = {kind for name, kind in modules.items() if matches(name, alone)}
            if kinds and not kinds & set(ADAPTABLE):
                fail(function, f"targets of the kinds {', '.join(ADAPTABLE)}", f"{target!r}, which means {', '.join(sorted(kinds))}")
            if not kinds and isinstance(targets, str):
                hint = "; a string is a regular expression for a whole name, put names in a list"
                fail(function, f"targets that match some of the model's modules{hint}", f"{target!r} (near: {_near(target, known)})")
        found = [name for name in known if matches(name, targets)] if isinstance(targets, str) else matching(
            function, known, of="modules", targets=targets
        )
    for word in (exclude,) if isinstance(exclude, str) else exclude:
        one: Names = word if isinstance(exclude, str) else (word,)
        if word and not any(matches(name, one) for name in known):
            hint = "; a string is a regular expression for a whole name, put names in a list" if isinstance(exclude, str) else ""
            fail(function, f"exclude that matches some of the model's modules{hint}", f"{word!r} (near: {_near(word, known)})")
    left = [name for name in found if not matches(name, exclude)] if exclude else found
    for layer in layers or ():
        numbers = sorted({n for n in map(block_number, left) if n is not None})
        demand(function, layer in numbers, f"layers among {numbers}, the blocks with a target", layer=layer)
    if layers is not None:
        left = [name for name in left if block_number(name) in layers]
    demand(function, bool(left), "a target that exclude and layers leave", targets=targets, exclude=exclude, layers=layers)
    for key in keys:
        if not any(_key_matches(key, name) for name in left):
            fail(function, "pattern keys that match a target", f"{key!r} (near: {_near(key, left)})")
    return left


def _key_matches(key: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({key})$", name) is not None


def _near(word: str, names: Iterable[str]) -> str:
    """The names most like `word`, whole or by their last part, or the first few if none is like it."""
    options = dict.fromkeys([name.rpartition(".")[2] for name in names] + list(names))
    return ", ".join(difflib.get_close_matches(word, options, n=3) or [*options][:8])
