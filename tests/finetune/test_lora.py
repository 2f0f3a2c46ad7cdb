"""The low-rank update against the product it stands for, and the scalings against peft's."""

import math

import numpy as np
import peft
import pytest
from torch import nn

from byhand.noise import Noise, at
from numpy_impl.finetune.lora import lora_delta, lora_scaling
from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.layers.linear import Linear
from numpy_impl.ops.dropout import dropout


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("r", "alpha"), [(1, 1), (8, 16), (7, 3), (64, 16)])
def test_scalings_are_pefts(r, alpha, rslora):
    config = peft.LoraConfig(r=r, lora_alpha=alpha, use_rslora=rslora, target_modules=["0"])
    layer = peft.get_peft_model(nn.Sequential(nn.Linear(3, 4)), config).base_model.model[0]
    assert lora_scaling(r, alpha, rslora=rslora) == layer.scaling["default"]


def test_update_keeps_its_size_with_the_rank_only_where_that_is_stabilized():
    """α/√r keeps ‖s B A‖ where it is for independent entries; α/r lets it fall as 1/√r."""
    rng = np.random.default_rng(0)
    sizes = {}
    for r in (4, 256):
        product = rng.standard_normal((64, r)) @ rng.standard_normal((r, 64))
        sizes[r] = [lora_scaling(r, 1, rslora=stable) * product.std() for stable in (False, True)]
    assert sizes[256][0] / sizes[4][0] == pytest.approx(math.sqrt(4 / 256), rel=0.15)
    assert sizes[256][1] / sizes[4][1] == pytest.approx(1, rel=0.15)


def test_delta_is_the_moved_weight():
    rng = np.random.default_rng(1)
    x, lora_A, lora_B = (rng.standard_normal(shape) for shape in ((5, 7), (3, 7), (4, 3)))
    delta, _ = lora_delta(x, lora_A, lora_B, scaling=0.7)
    np.testing.assert_allclose(delta, x @ (0.7 * lora_B @ lora_A).T, atol=1e-13)


def test_every_adapter_drops_by_the_stream_of_its_name_and_the_base_not_at_all():
    layer = LoRALinear(Linear(6, 4, dtype=np.float64), r=None, alpha=1)
    rng, noise, x = np.random.default_rng(2), Noise(seed=9), np.random.default_rng(3).standard_normal((50, 6))
    want = layer.base(x)
    for name in ("one", "two"):
        layer.add(name, r=2, alpha=2, dropout=0.5)
        layer.adapters[name].lora_B[...] = rng.standard_normal((4, 2))
        want = want + dropout(x, p=0.5, noise=at(noise, name))[0] @ layer.delta(name).T
    np.testing.assert_allclose(layer(x, noise=noise), want, atol=1e-12)
