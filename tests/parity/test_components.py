"""Every component under every law that applies to it: generated from the registry, driven and shrunk by hypothesis."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity.laws import COMPONENT_LAWS, TRIAL_LAWS, not_applicable
from parity.registry import broken, components
from parity.runner import run_component
from parity.runner import settings as torch_settings
from parity.trial import Reference, Trial
from parity.values import Hypothesis

MODELS = ("models", "train")  # rooms whose examples cost most


def pairs(laws):
    return [
        pytest.param(component, law, id=f"{component.name}-{law}")
        for component in components().values()
        for law in laws
        if not not_applicable(component, law)
    ]


@pytest.fixture(autouse=True)
def one_thread():
    with torch_settings():
        yield


def test_every_case_file_can_be_imported():
    assert broken() == {}


@pytest.mark.parametrize(("component", "law"), pairs(TRIAL_LAWS))
def test_law_holds_of_every_example(component, law):
    @settings(max_examples=3 if component.room in MODELS else 10, suppress_health_check=list(HealthCheck))
    @given(data=st.data(), ordinary=st.booleans(), seed=st.integers(0, 2**16))
    def holds(data, ordinary, seed):
        example = component.example(f"hypothesis {seed}", Hypothesis(data.draw, ordinary=ordinary))
        TRIAL_LAWS[law](Trial(Reference(component, example)))

    holds()


@pytest.mark.parametrize(("component", "law"), pairs(COMPONENT_LAWS))
def test_law_holds_of_the_component(component, law):
    COMPONENT_LAWS[law](component)


@pytest.mark.gpu
@pytest.mark.parametrize("component", [pytest.param(c, id=c.name) for c in components().values()])
def test_component_agrees_on_the_gpu(component):
    with torch_settings("cuda"):
        result = run_component(component, examples=8, device="cuda")
    assert result.passed, result.failures
