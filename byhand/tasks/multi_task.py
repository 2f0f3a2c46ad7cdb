"""Eight tasks on the same kind of lists, for one model to learn at once: given ``Max(First(2, 8), 5) =``, write ``5`` and a newline.

The task is the outermost operation. All of them read the same arguments and differ only in what they make of them, so that what one task
needs of a layer is in the way of another. The value of an argument that is an operation itself must be found first.

A line is read in tokens of its own (`VOCABULARY`): a digit, a mark or the name of an operation each are one, spaces none.
"""

import math
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand, size
from byhand.tasks.list_operations import LISTS, OPERATIONS, Expression, draw, evaluate, generate, written

TASKS = ("Max", "Min", "Median", "First", "Last", "Sum", "Sort", "Reverse")

# What a base knows before it meets the tasks: other operations, of which the last two give lists. None is a task under another name.
SKILLS: dict[str, Callable[[list[int]], int | list[int]]] = {
    "Count": len,
    "Odd": lambda values: sum(value % 2 for value in values),
    "Big": lambda values: sum(value > 4 for value in values),
    "Range": lambda values: max(values) - min(values),
    "Difference": lambda values: (values[0] - values[-1]) % 10,
    "Product": lambda values: math.prod(values) % 10,
    "Penultimate": lambda values: values[-2],
    "Copy": lambda values: values,
    "Rotate": lambda values: [*values[1:], values[0]],
}
_INSIDE = tuple(SKILLS)[:-2]

VOCABULARY: tuple[str, ...] = ("\n", "=", "(", ")", ",", *"0123456789", *OPERATIONS, *LISTS, *SKILLS)

IGNORED = -100     # a target that no loss counts
PADDING = 0        # a newline, which no prompt holds
_PATIENCE = 10_000

Part = Literal["train", "validation", "test"]

_NUMBER = {token: number for number, token in enumerate(VOCABULARY)}


class Example(NamedTuple):
    """task : str     the outermost operation
    prompt : str   ``Max(First(2, 8), 5) =``
    answer : str   ``5`` and a newline
    """

    task: str
    prompt: str
    answer: str


def examples(count: int, seed: int, *, part: Part = "train", tasks: Sequence[str] = TASKS, depth: int = 2, shortest: int = 2,
             longest: int = 3, nested: float = 0.2, first: int = 0) -> Iterator[Example]:
    """`count` examples from number `first` on, the tasks in turn, so that each has as many as any other (or one more).

    The i-th follows from (seed, i) and the options alone. To which part an expression belongs follows from its text alone: a tenth of all
    expressions is for validation, a tenth for the test, and whatever seeds they are drawn with, the parts have nothing in common.

    Parameters
    ----------
    count : int                               how many
    seed : int                                which ones
    part : str                                "train", "validation" or "test"
    tasks                                     names of operations, Sort and Reverse among them
    depth, shortest, longest, nested          as `list_operations.generate` takes them

    Raises
    ------
    ValueError   if an argument is out of range or a task is unknown

    Examples
    --------
    >>> [example.prompt + " " + example.answer.strip() for example in examples(3, seed=0, tasks=("Max", "Sort"))]
    ['Max(Min(5, 6, 7), 1, 2) = 5', 'Sort(5, Sum(9, 4), 2) = 2, 3, 5', 'Max(6, 8) = 8']
    """
    who = "multi_task.examples"
    size(who, at_least=0, count=count, seed=seed, first=first)
    choice(who, get_args(Part), part=part)
    demand(who, len(tasks) > 0, "at least one task", tasks=tuple(tasks))
    for task in tasks:
        choice(who, (*OPERATIONS, *LISTS), task=task)
    shape: dict[str, Any] = dict(depth=depth, shortest=shortest, longest=longest, nested=nested)
    generate(0, 0, **shape)    # refuses what is out of range now, not when the first is drawn
    return (_example(seed, i, part, tasks[i % len(tasks)], shape) for i in range(first, first + count))


def pretraining(count: int, seed: int, *, depth: int = 2, shortest: int = 2, longest: int = 3, nested: float = 0.2) -> Iterator[Example]:
    """`count` lines for a base that is to know the syntax, and other operations, but none of the tasks.

    One line in four is an expression of the suite's operations, without a value; the others are of SKILLS, with theirs.

    Examples
    --------
    >>> [example.prompt + " " + example.answer.strip() for example in pretraining(3, seed=0)]
    ['Last(Min(7, 5, 2), Sum(3, 1, 0), Max(9, 2)) = ', 'Odd(8, 2) = 0', 'Big(Big(7, 2), 2, 0) = 0']
    """
    size("multi_task.pretraining", at_least=0, count=count, seed=seed)
    shape: dict[str, Any] = dict(depth=depth, shortest=shortest, longest=longest, nested=nested)
    generate(0, 0, **shape)
    return (_line(seed, i, shape) for i in range(count))


def encode(text: str) -> list[int]:
    """The numbers of a text's tokens in VOCABULARY.

    Raises
    ------
    ValueError   if the text holds anything else, spaces apart

    Examples
    --------
    >>> encode("Max(2, 8) ="), decode(encode("Sort(2, 8) = 2, 8\\n"))
    ([18, 2, 7, 4, 13, 3, 1], 'Sort(2, 8) = 2, 8\\n')
    """
    demand("multi_task.encode", isinstance(text, str), "a text", text=text)
    tokens = re.findall(r"[A-Za-z]+|[^A-Za-z ]", text)
    for token in tokens:
        choice("multi_task.encode", VOCABULARY, token=token)
    return [_NUMBER[token] for token in tokens]


def decode(numbers: Sequence[int]) -> str:
    """The text of these tokens, a space after each comma and around the sign of equality."""
    for number in numbers:
        demand("multi_task.decode", 0 <= number < len(VOCABULARY), f"numbers of tokens, 0 to {len(VOCABULARY) - 1}", number=number)
    return "".join({",": ", ", "=": " = "}.get(token, token) for token in (VOCABULARY[number] for number in numbers))


def batch(drawn: Sequence[Example], *, whole: bool = False) -> tuple[NDArray, NDArray]:
    """(ids, targets), each (B, T) int64: the tokens of every example, and what follows each, padded to the longest.

    whole : False: only the answer counts, the targets within prompt and padding are IGNORED; True: the prompt counts as well

    Examples
    --------
    >>> ids, targets = batch([Example("Max", "Max(2, 8) =", "8\\n")])
    >>> decode(ids[0]), targets[0].tolist()
    ('Max(2, 8) = 8', [-100, -100, -100, -100, -100, -100, 13, 0])
    """
    lines = [(encode(example.prompt), encode(example.answer)) for example in drawn]
    demand("multi_task.batch", len(lines) > 0, "at least one example", examples=0)
    longest = max(len(prompt) + len(answer) for prompt, answer in lines) - 1
    ids = np.full((len(lines), longest), PADDING, np.int64)
    targets = np.full((len(lines), longest), IGNORED, np.int64)
    for row, (prompt, answer) in enumerate(lines):
        line, first = [*prompt, *answer], 1 if whole else len(prompt)
        ids[row, :len(line) - 1] = line[:-1]
        targets[row, first - 1:len(line) - 1] = line[first:]
    return ids, targets


def accuracy(drawn: Sequence[Example], given: Sequence[str]) -> dict[str, float]:
    """The share of exact answers by task: every digit and the newline right, and nothing else."""
    demand("multi_task.accuracy", len(drawn) == len(given), "an answer to every example", examples=len(drawn), answers=len(given))
    right: dict[str, list[bool]] = {}
    for example, answer in zip(drawn, given, strict=True):
        right.setdefault(example.task, []).append(answer == example.answer)
    return {task: sum(each) / len(each) for task, each in right.items()}


def _example(seed: int, i: int, part: str, task: str, shape: dict[str, Any]) -> Example:
    uniform = random.Random(f"{seed}, {i}").random
    for _ in range(_PATIENCE):
        expression = draw(uniform, outermost=task, **shape)
        if _part(str(expression)) == part:
            return Example(task, f"{expression} =", f"{written(evaluate(expression))}\n")
    raise ValueError(f"multi_task.examples needs options with more expressions: none of {_PATIENCE:,} of {task} is for {part!r}")


def _line(seed: int, i: int, shape: dict[str, Any]) -> Example:
    uniform = random.Random(f"pretraining {seed}, {i}").random
    if i % 4 == 0:
        known = (*OPERATIONS, *LISTS)
        expression = draw(uniform, outermost=known[int(uniform() * len(known))], **shape)
        return Example(expression.operation, f"{expression} =", "\n")
    expression = draw(uniform, outermost=tuple(SKILLS)[int(uniform() * len(SKILLS))], names=_INSIDE, **shape)
    return Example(expression.operation, f"{expression} =", f"{written(_skilled(expression))}\n")


def _skilled(expression: Expression) -> Any:
    return expression if isinstance(expression, int) else SKILLS[expression.operation]([_skilled(value) for value in expression.arguments])


def _part(expression: str) -> str:
    return {0: "test", 1: "validation"}.get(zlib.crc32(expression.encode()) % 10, "train")
