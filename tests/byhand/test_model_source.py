"""A preset and a seed are one model: on both sides, in every dtype, and filled from its own arrays."""

import numpy as np
import pytest
import torch

from byhand.filling import filled
from byhand.model_source import model_class, open_model, presets

SMALL = sorted(name for name in presets() if name.endswith("-nano"))


@pytest.mark.parametrize("name", SMALL)
def test_a_preset_and_a_seed_are_one_model(name):
    want = open_model(name, seed=3).model.state_dict()
    for side in ("numpy", "torch"):
        for dtype in ("float32", "float64"):
            state = open_model(name, seed=3, side=side, dtype=dtype).model.state_dict()
            assert list(state) == list(want)
            for key, array in state.items():
                assert str(array.dtype).removeprefix("torch.") == dtype and np.array_equal(np.asarray(array), want[key]), key
    other = open_model(name, seed=4).model.state_dict()
    assert any(not np.array_equal(other[key], want[key]) for key in want)


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_of_model_can_be_filled(name):
    config = presets()[name]
    made = model_class(config, "numpy_impl")(config, rng=np.random.default_rng(0))
    for make, device in ((type(made), None), (model_class(config, "torch_impl"), "cpu")):
        state = filled(make, config, made.state_dict(), device=device).state_dict()
        assert all(np.array_equal(np.asarray(torch.as_tensor(state[key])), array) for key, array in made.state_dict().items())
        with pytest.raises(ValueError, match="shape"):
            filled(make, config, {key: array[..., :1] for key, array in made.state_dict().items()}, device=device)
