"""Memory: the plan counts what a model holds, the measurement stands in a process of its own, and the bounds are kept."""

import os

import pytest

from byhand.cli import main
from byhand.configs.gpt2 import GPT2_PRESETS
from byhand.configs.llama import LLAMA_PRESETS
from byhand.finetuning.memory import linear_shapes, measure_memory, plan_memory
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama

measured = pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="only Linux tells the peak of a process")


@pytest.mark.parametrize("name", ["llama-nano", "gpt2-nano"])
def test_the_shapes_of_a_block_are_those_of_the_model(name):
    config = (LLAMA_PRESETS | GPT2_PRESETS)[name]
    model = Llama(config) if name in LLAMA_PRESETS else GPT2(config)
    block = model.blocks.layers[0].state_dict()
    assert {f"{name}.weight": shape for name, shape in linear_shapes(config).items()} == {
        name: array.shape for name, array in block.items() if name.endswith("proj.weight")
    }


def test_what_is_bounded_is_planned_within_its_bounds():
    """QLoRA of 1 × 128 tokens: 512 MB for SmolLM2-135M, 2 GB for TinyLlama-1.1B, 8 GB for Llama-2-7B; at most half of float32 LoRA."""
    for name, bound in (("smollm2-135m", 512e6), ("tinyllama-1.1b", 2e9), ("llama-2-7b", 8e9)):
        small, large = (plan_memory(LLAMA_PRESETS[name], method=method) for method in ("qlora", "lora"))
        assert small.total < bound
        assert small.total <= large.total / 2


def test_every_option_moves_the_plan_the_right_way():
    config = LLAMA_PRESETS["smollm2-135m"]
    plan = plan_memory(config)
    assert plan_memory(config, length=512).activations > plan.activations
    assert plan_memory(config, batch=4).activations > plan.activations
    assert plan_memory(config, recompute=False).activations > plan.activations
    assert plan_memory(config, double=False).weights > plan.weights
    assert plan_memory(config, block=128, double=False).weights < plan_memory(config, double=False).weights
    assert plan_memory(config, r=32).states == 4 * plan.states
    assert plan_memory(config, targets=["q_proj"]).adapters < plan.adapters
    assert plan_memory(config, method="full").states == 8 * config.parameters
    assert plan_memory(config, r=0).adapters == 0
    with pytest.raises(ValueError, match="plan_memory needs method from"):
        plan_memory(config, method="qlra")
    for wrong in (dict(double="off"), dict(recompute=None)):
        with pytest.raises(ValueError, match=f"plan_memory needs {next(iter(wrong))} from False, True"):
            plan_memory(config, **wrong)
    with pytest.raises(ValueError, match="q_prj"):
        plan_memory(config, targets=["q_prj"])


@measured
@pytest.mark.parametrize("method", ["qlora", "lora", "full"])
def test_the_plan_of_a_small_model_is_near_what_is_measured(method):
    """The interpreter is most of it; the models of real size are measured by the slow test and by `python -m benchmarks memory`."""
    seen = measure_memory(model="llama-1m", method=method, length=64)
    planned = plan_memory(LLAMA_PRESETS["llama-1m"], method=method, length=64)
    assert abs(planned.total / seen["total"] - 1) < 0.2
    assert 0 < seen["imported"] <= seen["built"] <= seen["total"]


@measured
@pytest.mark.slow
@pytest.mark.parametrize("method", ["qlora", "lora"])
def test_smollm2_is_fine_tuned_within_its_bound(method):
    seen = measure_memory(model="smollm2-135m", method=method)
    assert abs(plan_memory(LLAMA_PRESETS["smollm2-135m"], method=method).total / seen["total"] - 1) <= 0.1
    if method == "qlora":
        assert seen["total"] < 512e6


@measured
def test_a_process_that_fails_is_told_of():
    with pytest.raises(ValueError, match="a preset from"):
        measure_memory(model="llama-0")
    with pytest.raises(ValueError, match=r"exit 1 of type int, error .*r as an integer"):
        measure_memory(model="llama-nano", r="x")
    with pytest.raises(ValueError, match=r"measure_memory needs method from .*did you mean 'qlora'"):
        measure_memory(model="llama-nano", method="qlra")


def test_the_command_prints_the_plan(capsys):
    assert main(["memory", "--model", "llama-2-7b"]) == 0
    shown = capsys.readouterr().out
    assert "6,738,415,616 parameters" in shown
    assert "peak of a step" in shown
    assert main(["memory", "--model", "llama-3"]) == 2
