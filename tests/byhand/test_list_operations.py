"""Expressions are drawn from a seed alone, and what is written is read back; what is no expression is refused with its place."""

import hashlib
import random
import re

import pytest

from byhand.tasks.list_operations import OPERATIONS, Call, ListOperationError, evaluate, generate, parse, text


def test_values_follow_from_the_definitions():
    rng = random.Random(0)
    for _ in range(300):
        values = [rng.randrange(10) for _ in range(rng.randrange(2, 8))]
        written = ", ".join(map(str, values))
        ordered = sorted(values)
        want = {"First": values[0], "Second": values[1], "Last": values[-1], "Max": ordered[-1], "Min": ordered[0],
                "Median": next(v for v in ordered if 2 * sum(w <= v for w in values) >= len(values)), "Sum": int(str(sum(values))[-1])}
        assert {name: evaluate(f"{name}({written})") for name in OPERATIONS} == want
        assert evaluate(f"Sort({written})") == ordered and evaluate(f"Reverse({written})") == values[::-1]
    assert evaluate("Max(First(2, 8), Second(5, 1))") == 2 and evaluate(" 7 ") == 7
    assert evaluate(Call("Sum", (3, Call("Min", (4, 9))))) == 7


def test_every_expression_is_read_back_and_evaluated():
    lines = text(500, seed=3).splitlines()
    for line, expression in zip(lines, generate(500, seed=3), strict=True):
        written, value = line.split(" = ")
        assert parse(written) == expression and str(expression) == written
        assert evaluate(parse(written.replace(" ", ""))) == int(value)
        # Python, given the operations as functions, agrees.
        functions = {name: lambda *values, call=call: call(list(values)) for name, call in OPERATIONS.items()}
        assert eval(written, functions) == int(value)
    assert all(f"{name}(" in line for name in OPERATIONS for line in [" ".join(lines)])
    assert {line[-1] for line in lines} == set("0123456789")


def test_expressions_follow_from_seed_and_number_alone():
    few, many = list(generate(5, seed=1)), list(generate(9, seed=1))
    assert few == many[:5] and few != list(generate(5, seed=2))
    assert hashlib.sha256(text(1000, seed=0).encode()).hexdigest() == (
        "3adf291f586ce7bdb1b641752345052d84b623032857ba256533aa5782412318")  # on every machine
    assert text(0, seed=0) == ""


def depth(expression):
    return 0 if isinstance(expression, int) else 1 + max(map(depth, expression.arguments))


def longest(expression):
    return 0 if isinstance(expression, int) else max(len(expression.arguments), *map(longest, expression.arguments))


def test_options_bound_what_is_drawn():
    assert {depth(e) for e in generate(300, seed=0)} == {1, 2, 3}
    assert {depth(e) for e in generate(20, seed=0, depth=5, nested=1.0)} == {5}
    assert {depth(e) for e in generate(20, seed=0, nested=0)} == {1}
    assert {longest(e) for e in generate(200, seed=0, longest=6)} == {2, 3, 4, 5, 6}
    assert {str(e).partition("(")[0] for e in generate(20, seed=0, outermost="Sort")} == {"Sort"}
    assert {len(e.arguments) for e in generate(50, seed=0, shortest=3, nested=0)} == {3, 4}
    for wrong in (dict(count=-1), dict(seed=-1), dict(depth=0), dict(depth=101), dict(longest=1), dict(nested=1.5), dict(shortest=1),
                  dict(shortest=5), dict(outermost="Sorted")):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            generate(**(dict(count=1, seed=0) | wrong))


@pytest.mark.parametrize(
    ("written", "complaint", "place"),
    [
        ("", "the end is neither a digit nor an operation", 0),
        ("Mix(1, 2)", "'Mix' at character 0 is no operation (did you mean 'Min'?)", 0),
        ("Max(1, 12)", "'12' at character 7 is neither a digit", 7),
        ("Max(1, -2)", "'-' at character 7", 7),
        ("Max(1, ²)", "'²' at character 7", 7),
        ("Max 1", "'(' must stand after Max; got '1' at character 4", 4),
        ("Max", "'(' must stand after Max; got the end", 3),
        ("Max(1", "',' or ')' must follow an argument of Max; got the end", 5),
        ("Max(1 2)", "',' or ')' must follow an argument of Max; got '2' at character 6", 6),
        ("Max(1,)", "')' at character 6 is neither", 6),
        ("Max()", "')' at character 4", 4),
        ("First(1, Max(2))", "Max at character 9 needs two arguments or more", 9),
        ("Max(1, 2))", "nothing may follow the expression; got ')' at character 9", 9),
        ("1 = 1", "nothing may follow the expression; got '=' at character 2", 2),
        ("Max(Sort(1, 2), 2)", "Sort at character 4 gives a list, and can be no argument", 4),
        ("Max(1, " * 5000, "more than 100 levels", 700),
    ],
)
def test_what_is_no_expression_is_refused_with_its_place(written, complaint, place):
    with pytest.raises(ListOperationError, match=re.escape(complaint)) as refused:
        parse(written)
    assert refused.value.place == place


def test_calls_of_other_making_are_refused():
    with pytest.raises(ValueError, match="did you mean 'Max'"):
        evaluate(Call("Maxx", (1, 2)))
    with pytest.raises(ValueError, match="two arguments or more"):
        evaluate(Call("Second", (1,)))
    with pytest.raises(ValueError, match=r"digits, not lists; got argument 'Sort\(1, 2\)'"):
        evaluate(Call("Max", (Call("Sort", (1, 2)), 3)))
    for wrong in (12, -1, Call("Max", (12, 3))):
        with pytest.raises(ValueError, match="needs digits; got digit"):
            evaluate(wrong)
    for wrong in (None, 3.5, ("Max", (1, 2))):
        with pytest.raises(ValueError, match="a text, a digit or a Call"):
            evaluate(wrong)
    for wrong in (None, b"Max(1, 2)"):
        with pytest.raises(ValueError, match="an expression as text"):
            parse(wrong)
