"""Starts of adapters against peft's: PiSSA, OLoRA, LoftQ. Signs of singular vectors are free, so products are compared."""

import bitsandbytes
import numpy as np
import peft
import pytest
import torch
from peft.utils.loftq_utils import loftq_init

from numpy_impl.finetune.starts import loftq, olora, pissa
from numpy_impl.quantize.four_bit import dequantize_4bit, quantize_4bit
from torch_impl.finetune import starts as twin


def weight(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("start", [pissa, olora])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7), (1, 5), (5, 1)])
@pytest.mark.parametrize("r", [1, 4])
def test_peft_s_starts(start, shape, r):
    """s · B A and the base that is left are peft's, as far as there are singular values; the layer computes what it did."""
    w = weight(*shape)
    model = torch.nn.Sequential(torch.nn.Linear(shape[1], shape[0], bias=False))
    model[0].weight.data = torch.from_numpy(w.copy())
    config = peft.LoraConfig(r=r, lora_alpha=3 * r, target_modules=["0"], init_lora_weights=start.__name__)
    layer = peft.get_peft_model(model, config).base_model.model[0]
    lora_A, lora_B, base = start(w, r=r, scaling=3.0)
    assert lora_A.shape == (r, shape[1]) and lora_B.shape == (shape[0], r)
    theirs = (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach()
    np.testing.assert_allclose(lora_B @ lora_A, theirs, atol=1e-5)
    np.testing.assert_allclose(base, layer.base_layer.weight.detach(), atol=1e-5)
    np.testing.assert_allclose(base + 3 * (lora_B @ lora_A), w, atol=1e-5)


def test_factors_of_equal_size():
    """PiSSA shares every singular value out: rows of A and columns of B have the same lengths, √(S/s), falling."""
    w = weight(8, 12)
    lora_A, lora_B, _ = pissa(w, r=8, scaling=2.0)
    want = np.sqrt(np.linalg.svd(w)[1] / 2)
    np.testing.assert_allclose(np.linalg.norm(lora_A, axis=1), want, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(lora_B, axis=0), want, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_peft_s_loftq(steps, monkeypatch):
    """peft's quantized weight and its product B A. (It asks for a GPU by name; here that name means the CPU.)"""
    def here(method):
        def named(place):
            return "cpu" if place == "cuda" else place
        return lambda self, *args, **options: method(self, *map(named, args), **{key: named(value) for key, value in options.items()})

    w = weight(32, 64)  # whole rows of blocks, which bitsandbytes dequantizes rightly on a CPU
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "to", here(torch.Tensor.to))
        patched.setattr(bitsandbytes.nn.Params4bit, "to", here(bitsandbytes.nn.Params4bit.to))
        quantized, their_A, their_B = loftq_init(torch.from_numpy(w.copy()), num_bits=4, reduced_rank=4, num_iter=steps)
    lora_A, lora_B, base = loftq(w, r=4, scaling=1.0, steps=steps)
    codes, absmax = quantize_4bit(base)
    ours = dequantize_4bit(codes, absmax=absmax, shape=w.shape)
    np.testing.assert_allclose(ours, quantized, atol=1e-6)
    np.testing.assert_allclose(lora_B @ lora_A, (their_B @ their_A), atol=1e-5)
    codes, absmax = quantize_4bit(w)
    plain = dequantize_4bit(codes, absmax=absmax, shape=w.shape)
    assert np.linalg.norm(w - ours - lora_B @ lora_A) < 0.9 * np.linalg.norm(w - plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """The torch side takes half precision, which no LAPACK does: computed in float32, returned in the weight's dtype."""
    w = torch.from_numpy(weight(6, 8)).to(dtype)
    for start in (twin.pissa, twin.olora, twin.loftq):
        got, want = start(w, r=2, scaling=2.0), start(w.float(), r=2, scaling=2.0)
        assert {array.dtype for array in got} == {dtype}
        for ours, exact in zip(got[:2] if start is not twin.loftq else got, want, strict=False):
            assert torch.equal(ours, exact.to(dtype))


@pytest.mark.parametrize("start", [twin.pissa, twin.olora], ids=["pissa", "olora"])
def test_in_half_precision_the_rest_makes_up_for_what_the_factors_lose(start):
    """The factors hold nearly all of this weight; what rounds them to bfloat16 is 2⁻⁹ of it, what rounds the rest 2⁻⁹ of the rest."""
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(1, -3, 48))
    weight = weight.to(torch.bfloat16)
    lora_A, lora_B, base = (array.double() for array in start(weight, r=24, scaling=2.0))
    lost = weight.double() - (base + 2 * lora_B @ lora_A)
    assert lost.abs().max() <= 2**-8 * base.abs().max() < 0.02 * weight.abs().max()
