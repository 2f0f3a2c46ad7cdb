"""Nested list operations: expressions such as Max(First(2, 8), Second(5, 1)) over digits, whose value is a digit (after Nangia & Bowman
2018, arXiv:1804.06028). To predict the value, a model must find which brackets belong together. Two operations more give a list, and stand
outside all others: Sort(Max(4, 7), 2) is 2, 7."""

import difflib
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from byhand.checks import choice, demand, in_range, size

_DEEPEST = 100       # levels that `parse` follows


class ListOperationError(ValueError):
    """Text that is no nested list operation.

    place : int   where in the text, 0 for its first character
    """

    def __init__(self, message: str, place: int):
        super().__init__(message)
        self.place = place


class Call(NamedTuple):
    """An operation and what it is applied to: digits, and other calls."""

    operation: str
    arguments: tuple["Expression", ...]

    def __str__(self) -> str:
        return f"{self.operation}({', '.join(map(str, self.arguments))})"


Expression: TypeAlias = int | Call


def _median(values: list[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]   # of an even number of values the lower one of the two in the middle


OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "First": lambda values: values[0],
    "Second": lambda values: values[1],
    "Last": lambda values: values[-1],
    "Max": max,
    "Min": min,
    "Median": _median,
    "Sum": lambda values: sum(values) % 10,          # its last digit, so that every value is a digit
}

LISTS: dict[str, Callable[[list[int]], list[int]]] = {"Sort": sorted, "Reverse": lambda values: values[::-1]}   # of digits, a list of them
_NAMES = (*OPERATIONS, *LISTS)


def parse(text: str) -> Expression:
    """The expression that a text writes, spaces apart.

    Raises
    ------
    ListOperationError   with the place: an unknown operation, a bracket or comma too many or missing, a number that is no digit, fewer
                         than two arguments, an argument that is a list, too many levels

    Examples
    --------
    >>> parse("Max(First(2, 8), 5)")
    Call(operation='Max', arguments=(Call(operation='First', arguments=(2, 8)), 5))
    >>> try:
    ...     parse("Max(Mix(1, 2), 3)")
    ... except ListOperationError as error:
    ...     print(error)
    'Mix' at character 4 is no operation (did you mean 'Min'?)
    """
    demand("list_operations.parse", isinstance(text, str), "an expression as text", text=text)
    tokens = [(found[0], found.start()) for found in re.finditer(r"\w+|[^\w\s]", text)]
    reader = _Reader(tokens, len(text))
    expression = reader.expression(0)
    if reader.next < len(tokens):
        token, place = tokens[reader.next]
        raise ListOperationError(f"nothing may follow the expression; got {token!r} at character {place}", place)
    return expression


def evaluate(expression: Expression | str) -> int | list[int]:
    """The value, 0 to 9, or the list of such that Sort and Reverse give; a text is parsed first.

    Raises
    ------
    ListOperationError   if a text is no expression
    ValueError           if it is neither a text nor a digit nor a call, or a call that is not from `parse` has another operation, fewer
                         than two arguments, or arguments that are neither digits nor have them as values

    Examples
    --------
    >>> evaluate("Max(First(2, 8), Second(5, 1))"), evaluate("Sum(9, 9, Median(3, 1, 2))"), evaluate("Sort(Max(4, 7), 2, 2)")
    (2, 0, [2, 2, 7])
    """
    expression = parse(expression) if isinstance(expression, str) else expression
    if isinstance(expression, int):
        demand("list_operations.evaluate", 0 <= expression <= 9, "digits", digit=expression)
        return expression
    demand("list_operations.evaluate", isinstance(expression, Call), "a text, a digit or a Call", expression=expression)
    choice("list_operations.evaluate", _NAMES, operation=expression.operation)
    demand("list_operations.evaluate", len(expression.arguments) > 1, "two arguments or more", arguments=expression.arguments)
    values: list[int] = []
    for argument in expression.arguments:
        value = evaluate(argument)
        if isinstance(value, list):
            demand("list_operations.evaluate", False, "arguments that are digits, not lists", argument=str(argument))
        else:
            values.append(value)
    operation = expression.operation
    return LISTS[operation](values) if operation in LISTS else OPERATIONS[operation](values)


def written(value: int | list[int]) -> str:
    """A value as it stands behind the sign of equality: ``7``, or ``2, 7``."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def generate(
    count: int, seed: int, *, depth: int = 3, shortest: int = 2, longest: int = 4, nested: float = 0.35, outermost: str | None = None
) -> Iterator[Call]:
    """`count` expressions; the i-th follows from (seed, i) and the options alone, on every machine.

    Parameters
    ----------
    count : int      how many
    seed : int       which ones
    depth : int      the most levels of operations, at least 1
    shortest : int   the fewest arguments of an operation, at least 2
    longest : int    the most, at least `shortest`
    nested : float   the share of arguments that are operations, 0 to 1
    outermost        the operation that all others stand in, Sort and Reverse among them; None: any of OPERATIONS, which are all inside

    Raises
    ------
    ValueError   if an argument is out of range

    Examples
    --------
    >>> [str(expression) for expression in generate(2, seed=1, depth=2)]
    ['Last(3, Max(8, 5, 9, 2), Second(3, 6, 6, 0))', 'Last(2, 9, Median(0, 5, 2))']
    """
    who = "list_operations.generate"
    size(who, at_least=0, count=count, seed=seed)
    size(who, depth=depth)
    size(who, at_least=2, shortest=shortest, longest=longest)
    demand(who, shortest <= longest, "shortest <= longest", shortest=shortest, longest=longest)
    demand(who, depth <= _DEEPEST, f"depth <= {_DEEPEST}", depth=depth)
    in_range(who, 0, 1, nested=nested)
    if outermost is not None:
        choice(who, _NAMES, outermost=outermost)
    return (draw(random.Random(f"{seed}, {i}").random, depth, shortest, longest, nested, outermost) for i in range(count))


def text(count: int, seed: int, **options: Any) -> str:
    """Lines such as ``Max(First(2, 8), Second(5, 1)) = 2``, of `generate`'s expressions and their values.

    Examples
    --------
    >>> print(text(2, seed=0), end="")
    Max(9, 5) = 9
    Sum(0, 2, Sum(3, First(1, 6, 0), First(7, 3, 5, 5)), 0) = 3
    """
    return "".join(f"{expression} = {written(evaluate(expression))}\n" for expression in generate(count, seed, **options))


def draw(uniform: Callable[[], float], depth: int, shortest: int, longest: int, nested: float, outermost: str | None = None,
         names: Sequence[str] = tuple(OPERATIONS)) -> Call:
    """One of `generate`'s expressions, from a source of numbers in [0, 1); names: of the operations that it is made of."""
    operation = outermost or names[int(uniform() * len(names))]
    arguments: list[Expression] = []
    for _ in range(shortest + int(uniform() * (longest - shortest + 1))):
        deeper = uniform() < nested and depth > 1
        arguments.append(draw(uniform, depth - 1, shortest, longest, nested, None, names) if deeper else int(uniform() * 10))
    return Call(operation, tuple(arguments))


class _Reader:
    """Reads tokens from left to right: an expression is a digit, or a name and two or more expressions in brackets."""

    def __init__(self, tokens: list[tuple[str, int]], length: int):
        self.tokens, self.length, self.next = tokens, length, 0

    def take(self) -> tuple[str, int]:
        token = self.tokens[self.next] if self.next < len(self.tokens) else ("", self.length)
        self.next += 1
        return token

    def expression(self, level: int) -> Expression:
        token, place = self.take()
        if len(token) == 1 and token in "0123456789":
            return int(token)
        if token not in _NAMES:
            near = difflib.get_close_matches(token, _NAMES, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            shown = f"{token!r} at character {place}" if token else "the end"
            what = "no operation" if token[:1].isalpha() else "neither a digit nor an operation"
            raise ListOperationError(f"{shown} is {what}{hint}", place)
        if token in LISTS and level > 0:
            raise ListOperationError(f"{token} at character {place} gives a list, and can be no argument", place)
        if level == _DEEPEST:
            raise ListOperationError(f"more than {_DEEPEST} levels of operations at character {place}", place)
        start = place
        self.expect("(", f"after {token}")
        arguments = [self.expression(level + 1)]
        while True:
            mark, place = self.take()
            if mark == ")":
                break
            if mark != ",":
                shown = f"{mark!r} at character {place}" if mark else "the end"
                raise ListOperationError(f"',' or ')' must follow an argument of {token}; got {shown}", place)
            arguments.append(self.expression(level + 1))
        if len(arguments) < 2:
            raise ListOperationError(f"{token} at character {start} needs two arguments or more", start)
        return Call(token, tuple(arguments))

    def expect(self, mark: str, where: str) -> None:
        got, place = self.take()
        if got != mark:
            raise ListOperationError(f"{mark!r} must stand {where}; got {f'{got!r} at character {place}' if got else 'the end'}", place)
