"""The suite of tasks: parts that share nothing, tasks in equal number, answers that are right, tokens that are read back."""

import collections
import hashlib
import re

import numpy as np
import pytest

from byhand.tasks import multi_task
from byhand.tasks.list_operations import LISTS, OPERATIONS, evaluate, parse, written
from byhand.tasks.multi_task import IGNORED, SKILLS, TASKS, VOCABULARY, Example, accuracy, batch, decode, encode, examples, pretraining


def test_answers_are_those_of_the_expressions():
    for example in examples(400, seed=0):
        expression = example.prompt.removesuffix(" =")
        assert parse(expression).operation == example.task
        assert example.answer == f"{written(evaluate(expression))}\n"


def test_the_parts_have_nothing_in_common():
    parts = [{example.prompt for seed in range(3) for example in examples(1500, seed=seed, part=part)}
             for part in ("train", "validation", "test")]
    assert all(len(part) > 2000 for part in parts)
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_every_task_has_its_turn():
    assert collections.Counter(example.task for example in examples(8 * 5, seed=1)) == dict.fromkeys(TASKS, 5)
    assert [example.task for example in examples(3, seed=1, tasks=("Sum", "Sort"))] == ["Sum", "Sort", "Sum"]


def test_examples_follow_from_seed_and_number_alone():
    few, many = list(examples(5, seed=1)), list(examples(16, seed=1))
    assert few == many[:5] and few != list(examples(5, seed=2)) and list(examples(3, seed=1, first=2)) == many[2:5]
    lines = "".join(example.prompt + example.answer for example in examples(1000, seed=0))
    assert hashlib.sha256(lines.encode()).hexdigest() == (
        "da2ece28820a5b5c71e494451d452a43667b19fec0df78f191c3c308b681ba6d")   # on every machine


def test_a_base_is_told_no_value_of_a_task():
    lines = list(pretraining(800, seed=0))
    silent = [line for line in lines if line.answer == "\n"]
    assert len(silent) == 200 and {line.task for line in silent} == {*OPERATIONS, *LISTS}
    for line in lines:
        if line.answer != "\n":
            assert not set(re.findall(r"[A-Za-z]+", line.prompt)) & {*OPERATIONS, *LISTS}
            skills = {name: lambda *values, skill=skill: skill(list(values)) for name, skill in SKILLS.items()}
            value = eval(line.prompt.removesuffix(" ="), skills)
            assert line.answer == f"{written(value)}\n"
    assert {line.task for line in lines} == {*OPERATIONS, *LISTS, *SKILLS}
    assert list(pretraining(3, seed=0)) == lines[:3] != list(pretraining(3, seed=1))


def test_skills_follow_from_their_names():
    values = [7, 4, 5, 1]
    assert {name: skill(values) for name, skill in SKILLS.items()} == {
        "Count": 4, "Odd": 3, "Big": 2, "Range": 6, "Difference": 6, "Product": 0, "Penultimate": 5, "Copy": values, "Rotate": [4, 5, 1, 7]}


def test_what_is_encoded_is_read_back():
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    for example in examples(100, seed=0):
        line = f"{example.prompt} {example.answer}"
        assert decode(encode(line)) == line
    with pytest.raises(ValueError, match="'Mix'"):
        encode("Mix(1, 2)")
    with pytest.raises(ValueError, match="numbers of tokens, 0 to"):
        decode([len(VOCABULARY)])


def test_a_batch_counts_answers_alone():
    drawn = list(examples(32, seed=0))
    ids, targets = batch(drawn)
    _, whole = batch(drawn, whole=True)
    for row, example in enumerate(drawn):
        answer = encode(example.answer)
        counted = np.flatnonzero(targets[row] != IGNORED)
        assert targets[row, counted].tolist() == answer
        assert ids[row, counted].tolist() == [1, *answer[:-1]]            # "=" foretells the first
        assert decode([*ids[row, :counted[-1] + 1], answer[-1]]) == f"{example.prompt} {example.answer}"
        assert whole[row, :counted[-1] + 1].tolist() == [*ids[row, 1:counted[-1] + 1], answer[-1]]
        assert (whole[row, counted[-1] + 1:] == IGNORED).all()


def test_only_exact_answers_count():
    drawn = [Example("Max", "Max(1, 2) =", "2\n"), Example("Sort", "Sort(2, 1) =", "1, 2\n"), Example("Max", "Max(1, 3) =", "3\n")]
    assert accuracy(drawn, ["2\n", "1, 2", "2\n"]) == {"Max": 0.5, "Sort": 0.0}
    with pytest.raises(ValueError, match="an answer to every example"):
        accuracy(drawn, [])


@pytest.mark.parametrize("wrong", [dict(count=-1), dict(seed=-1), dict(part="all"), dict(tasks=()), dict(tasks=("Mix",)), dict(depth=0),
                                   dict(shortest=1), dict(longest=1), dict(nested=2), dict(first=-1)])
def test_bad_options_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).rstrip("s")):
        examples(**(dict(count=1, seed=0) | wrong))


def test_too_few_expressions_end():
    with pytest.raises(ValueError, match="needs options with more expressions"):
        multi_task._example(0, 0, "nothing", "Max", dict(depth=1, shortest=2, longest=2, nested=0))
