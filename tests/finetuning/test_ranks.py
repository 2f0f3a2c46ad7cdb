"""Ranks from budgets: never above the budget or the matrix, nothing left that would fit, the same every time."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byhand.configs.lora import LoRAConfig
from byhand.finetuning.ranks import BudgetError, ranks_for_memory, ranks_for_parameters, ranks_for_share
from byhand.finetuning.sizes import adapter_parameters, largest_rank, rank_cost, trained_bytes

AXES = st.integers(1, 12)
SHAPES = st.lists(st.one_of(st.tuples(AXES, AXES), st.tuples(AXES, AXES, st.integers(1, 3))), min_size=1, max_size=6).map(
    lambda shapes: {f"blocks.{i}.attn.q_proj": shape for i, shape in enumerate(shapes)})
ALLOCATIONS = st.sampled_from(["uniform", "parameters", "energy"])


def singular_values(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {n: np.linalg.svd(rng.standard_normal((s[0], math.prod(s[1:]))), compute_uv=False).tolist() for n, s in shapes.items()}


def plan_for(shapes, budget, allocation, dora):
    return ranks_for_parameters(shapes, budget, allocation=allocation, dora=dora, spectra=singular_values(shapes))


@given(SHAPES, st.integers(0, 1500), ALLOCATIONS, st.booleans())
def test_a_plan_keeps_to_its_budget_and_leaves_nothing_that_fits(shapes, budget, allocation, dora):
    try:
        plan = plan_for(shapes, budget, allocation, dora)
    except BudgetError as error:
        smallest = error.smallest
        assert smallest > budget
        assert plan_for(shapes, smallest, allocation, dora).parameters <= smallest
        return
    assert list(plan.ranks) == list(shapes) and all(0 <= r <= largest_rank(shapes[n]) for n, r in plan.ranks.items())
    assert plan.parameters == sum(adapter_parameters(shapes[n], r, dora=dora) for n, r in plan.ranks.items()) <= budget
    left, growing = budget - plan.parameters, [n for n, r in plan.ranks.items() if r < largest_rank(shapes[n])]
    if allocation == "uniform":
        highest = max(plan.ranks.values())
        assert all(r == min(highest, largest_rank(shapes[n])) for n, r in plan.ranks.items())
        assert not growing or sum(rank_cost(shapes[n]) for n in growing) > left
    else:
        assert all(rank_cost(shapes[n]) > left for n in growing)
    assert plan == plan_for(shapes, budget, allocation, dora)


@given(SHAPES, st.integers(1, 800), st.integers(0, 200))
def test_a_larger_budget_never_lowers_a_uniform_rank(shapes, budget, more):
    try:
        small = ranks_for_parameters(shapes, budget)
    except BudgetError:
        return
    large = ranks_for_parameters(shapes, budget + more)
    assert all(small.ranks[name] <= large.ranks[name] for name in shapes)


@given(st.lists(st.tuples(AXES, AXES), min_size=2, max_size=6))
def test_equal_parameters_differ_by_less_than_one_unit_of_rank(shapes):
    shapes = {f"w{i}": shape for i, shape in enumerate(shapes)}
    budget = sum(rank_cost(s) * largest_rank(s) for s in shapes.values()) // 2
    try:
        plan = ranks_for_parameters(shapes, budget, allocation="parameters")
    except BudgetError:
        return
    for low in shapes:                       # whoever could still grow has hardly less than anyone else, or cannot afford it
        left = budget - plan.parameters
        for high in shapes:
            one, other = (adapter_parameters(shapes[n], plan.ranks[n]) for n in (low, high))
            if plan.ranks[low] < largest_rank(shapes[low]) and one + rank_cost(shapes[low]) < other:
                assert rank_cost(shapes[low]) > left


def test_energy_takes_the_best_set_of_singular_values():
    # With equal shapes the greedy choice is the best there is: the largest σ of all matrices together.
    shapes = dict.fromkeys("abc", (6, 9))
    spectra = {"a": [9, 1, 1, 0, 0, 0], "b": [5, 4, 3, 2, 1, 0], "c": [0.5, 0, 0, 0, 0, 0]}
    assert ranks_for_parameters(shapes, 15 * 5 + 14, allocation="energy", spectra=spectra).ranks == {"a": 1, "b": 4, "c": 0}
    # where a unit of rank costs twice as much, it has to catch more than twice as much
    shapes, spectra = {"a": (8, 2), "b": (3, 2)}, {"a": [2.8, 0], "b": [2, 1]}
    assert ranks_for_parameters(shapes, 10, allocation="energy", spectra=spectra).ranks == {"a": 0, "b": 2}


@given(SHAPES, st.integers(0, 20_000), st.sampled_from(["float32", "bfloat16"]), st.sampled_from([0, 1, 2]), ALLOCATIONS)
def test_a_memory_budget_is_kept_in_bytes(shapes, budget, storage, states, allocation):
    spectra = singular_values(shapes)
    try:
        plan = ranks_for_memory(shapes, budget, storage=storage, states=states, allocation=allocation, spectra=spectra)
    except BudgetError as error:
        assert error.smallest * trained_bytes(storage, states=states) > budget              # noqa: PT017 (it may also fit)
        return
    width = 4 if storage == "float32" else 2
    assert plan.parameters * (2 * width + 4 * states) <= budget


@given(SHAPES, st.integers(1, 10_000), st.integers(1, 20_000).map(lambda n: Decimal(n) / 10_000), ALLOCATIONS)
def test_a_share_is_kept(shapes, total, share, allocation):
    try:
        plan = ranks_for_share(shapes, float(share), total=total, allocation=allocation, spectra=singular_values(shapes))
    except BudgetError:
        return
    assert plan.budget == int(share * total) and plan.parameters <= share * total


@given(SHAPES, st.integers(0, 1500), ALLOCATIONS)
def test_a_plan_becomes_a_config_that_says_the_same(shapes, budget, allocation):
    try:
        plan = plan_for(shapes, budget, allocation, False)
    except BudgetError:
        return
    config = plan.config(LoRAConfig(targets=("q_proj",), rank_pattern={"q_proj": 77}, alpha=5))
    assert {name: config.rank(name) for name in shapes} == plan.ranks and config.alpha == 5
    config.select(dict.fromkeys(shapes, "Linear"))                  # no key that means nothing
    assert len(config.rank_pattern) <= len(shapes) - max(map(list(plan.ranks.values()).count, plan.ranks.values()))


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(shapes={}, budget=9), "the shape of at least one weight"),
    (dict(shapes={"w": (3,)}, budget=9), "at least 2 axes"),
    (dict(shapes={"w": (3, 0)}, budget=9), r"an axis of shapes\['w'\] as an integer >= 1"),
    (dict(shapes={"w": (3, 2)}, budget=-1), "budget as an integer >= 0"),
    (dict(shapes={"w": (3, 2)}, budget=1e6), "budget as an integer >= 0"),
    (dict(shapes={"w": (3, 2)}, budget=9, allocation="energie"), "did you mean 'energy'"),
    (dict(shapes={"w": (3, 2)}, budget=9, allocation="energy"), r"spectra, .*missing \['w'\]"),
    (dict(shapes={"w": (3, 2)}, budget=9, allocation="energy", spectra={"w": [1, 2]}), "2 falling, finite singular values"),
    (dict(shapes={"w": (3, 2)}, budget=9, allocation="energy", spectra={"w": [2]}), "2 falling, finite singular values"),
    (dict(shapes={"w": (3, 2)}, budget=9, allocation="energy", spectra={"w": [2, math.nan]}), "2 falling, finite singular values"),
    (dict(shapes={"w": (3, 2), "v": (2, 2)}, budget=8), "a budget of at least 9 parameters for rank 1; got 8"),
    (dict(shapes={"w": (3, 2), "v": (2, 2)}, budget=3, allocation="parameters"), "a budget of at least 4 parameters"),
    (dict(shapes={"w": (3, 2)}, budget=7, dora=True), "a budget of at least 8 parameters"),
])
def test_what_cannot_be_planned_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^ranks_for_parameters needs .*{message}"):
        ranks_for_parameters(**arguments)


@pytest.mark.parametrize("share", [0, -0.1, math.inf, math.nan, "1 %", True])
def test_a_share_is_a_positive_number(share):
    with pytest.raises(ValueError, match=r"^ranks_for_share needs share > 0 and finite"):
        ranks_for_share({"w": (3, 2)}, share, total=10)


def test_seven_billion_parameters_are_planned_at_once():
    block = {"q_proj": (4096, 4096), "k_proj": (4096, 4096), "up_proj": (11008, 4096), "down_proj": (4096, 11008)}
    shapes = {f"blocks.{i}.{name}": shape for i in range(32) for name, shape in block.items()}
    plan = ranks_for_share(shapes, 0.01, total=6_738_415_616, allocation="parameters")
    assert 0.99 * plan.budget < plan.parameters <= plan.budget
    assert plan.ranks["blocks.0.q_proj"] > plan.ranks["blocks.0.up_proj"]
