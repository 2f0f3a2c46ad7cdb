"""The norm of DoRA where float32 cancels, and against peft's; that magnitude and direction are what they are called."""

import numpy as np
import torch
from peft.tuners.lora.dora import DoraLinearLayer

from numpy_impl.finetune.dora import dora_norm
from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.layers.linear import Linear


def test_norm_is_pefts():
    rng = np.random.default_rng(0)
    weight, lora_A, lora_B = (rng.standard_normal(shape) for shape in ((5, 7), (2, 7), (5, 2)))
    theirs = DoraLinearLayer(fan_in_fan_out=False).get_weight_norm(torch.from_numpy(weight), torch.from_numpy(lora_B @ lora_A), 0.7)
    np.testing.assert_allclose(dora_norm(lora_A, lora_B, weight=weight, scaling=0.7)[0], theirs.numpy(), rtol=1e-14)


def test_norm_survives_an_update_that_nearly_cancels_the_weight():
    """The expanded ‖W‖² + 2s (W Aᵀ) ∘ B + s² … would lose every digit here, where V is a thousandth of W."""
    rng = np.random.default_rng(1)
    lora_A, lora_B = rng.standard_normal((3, 40)), rng.standard_normal((6, 3))
    rest = 1e-3 * rng.standard_normal((6, 40))
    exact = np.linalg.norm((rest - lora_B @ lora_A).astype(np.float32) + lora_B @ lora_A, axis=1)
    arrays = [array.astype(np.float32) for array in (lora_A, lora_B, rest - lora_B @ lora_A)]
    got = dora_norm(arrays[0], arrays[1], weight=arrays[2], scaling=1.0)[0]
    np.testing.assert_allclose(got, exact, rtol=1e-3)
    w, s = arrays[2], arrays[1] @ arrays[0]
    expanded = np.sqrt(np.maximum((w * w).sum(1) + 2 * (w * s).sum(1) + (s * s).sum(1), 0))
    assert np.abs(expanded / exact - 1).max() > 0.01


def test_rows_have_the_lengths_that_the_magnitude_says():
    rng = np.random.default_rng(2)
    layer = LoRALinear(Linear(6, 5, dtype=np.float64), r=2, alpha=3, dora=True, rng=rng)
    adapter = layer.adapters["default"]
    np.testing.assert_allclose(adapter.magnitude, np.linalg.norm(layer.base.weight, axis=1))
    x = rng.standard_normal((4, 6))
    np.testing.assert_allclose(layer(x), layer.base(x), atol=1e-14)         # the start changes nothing
    adapter.lora_B[...] = rng.standard_normal((5, 2))
    adapter.magnitude[...] = [1.0, -2.0, 0.0, 3.0, 0.5]
    layer.merge()
    np.testing.assert_allclose(np.linalg.norm(layer.base.weight, axis=1), np.abs(adapter.magnitude), atol=1e-12)


def test_full_gradient_is_across_the_row_and_the_detached_one_is_not():
    """y = m x·V/‖V‖ does not change when V grows along itself: the full gradient has no such component, the detached one has."""
    rng = np.random.default_rng(4)
    base = Linear(6, 1, bias=False, dtype=np.float64)
    along = {}
    for detached in (False, True):
        layer = LoRALinear(base, r=1, alpha=1, dora=True, detach_norm=detached, rng=np.random.default_rng(5))
        adapter = layer.adapters["default"]
        adapter.lora_A[...] = base.weight                                   # so that B moves V along itself
        adapter.lora_B[...] = 0.5
        y, backward = layer.forward(rng.standard_normal((3, 6)))
        along[detached] = abs(backward(np.ones_like(y))[1]["adapters"]["default"]["lora_B"].item())
    assert along[False] < 1e-12 < 1e-3 < along[True]


def test_a_row_of_zeros_stays_zero():
    base = Linear(4, 3)
    base.weight[1] = 0
    layer = LoRALinear(base, r=2, alpha=1, dora=True)
    y, backward = layer.forward(np.ones((2, 4), np.float32))
    np.testing.assert_allclose(y, base(np.ones((2, 4), np.float32)), atol=1e-6)
    _, grads = backward(np.ones_like(y))
    assert all(np.isfinite(grad).all() for grad in grads["adapters"]["default"].values())
