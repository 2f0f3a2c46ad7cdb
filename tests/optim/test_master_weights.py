"""Master weights beside bfloat16: what they are for, and that a torch parameter really may be bfloat16."""

import numpy as np
import pytest
import torch

from numpy_impl.optim import adamw as by_hand
from numpy_impl.optim import master_weights as numpy_side
from torch_impl.optim import adamw as twin
from torch_impl.optim import master_weights as torch_side


def test_a_thousand_updates_that_no_bfloat16_sees_alone_arrive():
    weights = {"w": np.ones(3, np.float32)}
    optimizer = numpy_side.BFloat16Weights(weights, make=by_hand.AdamW, lr=1e-4, weight_decay=0.0)
    for _ in range(1000):
        optimizer.step({"w": np.ones(3, np.float32)})
    assert np.allclose(weights["w"], 0.9, atol=0.004)                 # without masters each of them would round back to 1
    assert torch.equal(torch.from_numpy(weights["w"]), torch.from_numpy(weights["w"]).bfloat16().float())


def test_tensors_in_bfloat16_hold_what_rounded_float32_holds():
    rng = np.random.default_rng(0)
    start, grads = rng.standard_normal((4, 5)).astype(np.float32), rng.standard_normal((6, 4, 5)).astype(np.float32)
    grads = torch.from_numpy(grads).bfloat16().float().numpy()
    weights = {"w": start.copy()}
    half = {"w": torch.nn.Parameter(torch.from_numpy(start.copy()).bfloat16())}
    weights["w"][...] = half["w"].detach().float().numpy()            # both masters begin there
    one = numpy_side.BFloat16Weights(weights, make=by_hand.AdamW, lr=0.05)
    other = torch_side.BFloat16Weights(half, make=twin.AdamW, lr=0.05)
    for grad in grads:
        one.step({"w": grad})
        other.step({"w": torch.from_numpy(grad).bfloat16()})
    assert half["w"].dtype == torch.bfloat16 and other.masters["w"].dtype == torch.float32
    assert np.allclose(one.masters["w"], other.masters["w"].numpy(), rtol=1e-5, atol=1e-7)
    assert np.abs(weights["w"] - half["w"].detach().float().numpy()).max() <= 2**-8 * np.abs(weights["w"]).max()
    again = {"w": torch.nn.Parameter(torch.zeros(4, 5, dtype=torch.bfloat16))}
    torch_side.BFloat16Weights(again, make=twin.AdamW, lr=0.05).load_state_dict(other.state_dict())
    assert torch.equal(again["w"], half["w"])


@pytest.mark.parametrize("make, module, ones", [(by_hand.AdamW, numpy_side, lambda *shape: np.ones(shape, np.float32)),
                                                (twin.AdamW, torch_side, torch.ones)])
def test_what_is_refused_changes_nothing(make, module, ones):
    params = {"a": ones(3), "b": ones(2, 2)}
    optimizer = module.BFloat16Weights(params, make=make, lr=0.1)
    optimizer.step({"a": ones(3), "b": ones(2, 2)})
    before = {key: np.asarray(value).copy() for key, value in optimizer.state_dict().items()}
    for grads in (None, [ones(3)], {"a": ones(3), "b": None}):
        with pytest.raises(ValueError, match="AdamW needs grads"):
            optimizer.step(grads)
    for wrong in ("a.master", "b.exp_avg", "step"):
        with pytest.raises(ValueError, match="as an array"):
            optimizer.load_state_dict(optimizer.state_dict() | {wrong: None})
    assert all(np.array_equal(value, before[key]) for key, value in optimizer.state_dict().items())
    with pytest.raises(ValueError, match="as an array"):
        module.BFloat16Weights({"a": None}, make=make, lr=0.1)
