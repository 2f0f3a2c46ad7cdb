"""What every module shares: names, strict loading, freezing."""

import numpy as np
import pytest

from numpy_impl.layers.block import Block
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import flatten


@pytest.fixture
def block():
    return Block(4, 2, 8, rng=np.random.default_rng(0))


def test_loading_copies_into_the_arrays_that_are_there(block):
    arrays = block.state_dict()
    block.load_state_dict({name: np.full(array.shape, 0.5) for name, array in arrays.items()})
    assert all(block.state_dict()[name] is array and (array == 0.5).all() and array.dtype == np.float32 for name, array in arrays.items())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_a_state_that_does_not_fit_changes_nothing(block, fault):
    before = {name: array.copy() for name, array in block.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()}
    if fault == "missing":
        del state["norm2.bias"]
        words = r"missing \['norm2.bias'\], unknown \[\]"
    elif fault == "unknown":
        state["norm3.bias"] = np.zeros(4)
        words = r"missing \[\], unknown \['norm3.bias'\]"
    else:
        state["norm2.bias"] = np.zeros((1, 4))
        words = r"norm2.bias of shape \(4,\); got \(1, 4\)"
    with pytest.raises(ValueError, match=words):
        block.load_state_dict(state)
    assert all(np.array_equal(array, before[name]) for name, array in block.state_dict().items())


def test_freezing_goes_by_pattern(block):
    block.freeze("attn.*", "norm1.weight")
    assert set(block.parameters()) == {name for name in block.state_dict() if not name.startswith("attn.") and name != "norm1.weight"}
    block.unfreeze("attn.q_proj.*")
    assert {name for name in block.parameters() if name.startswith("attn.")} == {"attn.q_proj.weight", "attn.q_proj.bias"}


def test_a_frozen_layer_still_passes_the_gradient_on(block):
    x = np.random.default_rng(1).standard_normal((2, 3, 4), dtype=np.float32)
    _, free = block.forward(x)
    block.freeze()
    _, frozen = block.forward(x)
    dy = np.ones_like(x)
    assert np.array_equal(free(dy)[0], frozen(dy)[0])
    assert flatten(frozen(dy)[-1]) == {}


def test_absent_parameters_have_no_name():
    assert list(Linear(3, 2, bias=False).state_dict()) == ["weight"]
