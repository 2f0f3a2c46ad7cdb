"""RMS norm against the layers of Llama and Gemma, and in bfloat16."""

import numpy as np
import pytest
import torch

import numpy_impl.ops.rms_norm as by_hand
import torch_impl.ops.rms_norm as twin

RNG = np.random.default_rng(0)
X, WEIGHT = RNG.standard_normal((5, 8)), RNG.standard_normal(8)


@pytest.mark.parametrize("family,layer,unit_offset", [("llama", "LlamaRMSNorm", False), ("gemma", "GemmaRMSNorm", True)])
def test_equals_the_layers_that_models_use(family, layer, unit_offset):
    modeling = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    norm = getattr(modeling, layer)(8, eps=1e-5)
    norm.weight.data = torch.tensor(WEIGHT, dtype=torch.float32)
    got, _ = by_hand.rms_norm(X, WEIGHT, eps=1e-5, unit_offset=unit_offset)
    want = norm(torch.tensor(X, dtype=torch.float32)).detach()  # these layers compute in float32 whatever they are given
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unit_offset", [False, True])
def test_bfloat16_is_accumulated_in_float32(unit_offset):
    x, weight = torch.randn(16, 512).bfloat16() * 30, torch.randn(512).bfloat16()
    got = twin.rms_norm(x, weight, unit_offset=unit_offset)
    want = twin.rms_norm(x.double(), weight.double(), unit_offset=unit_offset)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, twin.rms_norm(x.float(), weight.float(), unit_offset=unit_offset).bfloat16())
    assert (got.double() - want).abs().max() <= 2**-8 * want.abs().max()  # one rounding, at the end
