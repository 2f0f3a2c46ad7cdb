"""Linear layers in four bits: bitsandbytes' own layer, what stays in memory, what a state dict holds, and casts."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
import torch

import numpy_impl.layers.linear
import numpy_impl.quantize.linear_4bit
import torch_impl.layers.linear
import torch_impl.quantize.linear_4bit
from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.quantize.four_bit import dequantize_4bit, quantize_4bit

NumPyLinear, TorchLinear = numpy_impl.layers.linear.Linear, torch_impl.layers.linear.Linear
NumPy4bit, Torch4bit = numpy_impl.quantize.linear_4bit.Linear4bit, torch_impl.quantize.linear_4bit.Linear4bit
linear_4bit = numpy_impl.quantize.linear_4bit.linear_4bit


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("block, width, outputs", [(64, 128, 72), (128, 256, 40), (64, 64, 300)])
def test_bitsandbytes_own_layer(kind, double, block, width, outputs):
    """Outputs and input gradients, at shapes whose rows are whole blocks: elsewhere its CPU kernel is wrong."""
    bnb = pytest.importorskip("bitsandbytes")
    linear = NumPyLinear(width, outputs, rng=np.random.default_rng(1))
    ours = NumPy4bit.from_linear(linear, kind=kind, block=block, double=double)
    weight = bnb.nn.Params4bit(torch.from_numpy(linear.weight.copy()), requires_grad=False, compress_statistics=double, blocksize=block,
                               quant_type=kind).to("cpu")
    assert np.array_equal(weight.data.numpy().ravel(), ours.codes)
    x, dy = torch.from_numpy(inputs(2, 9, width)).requires_grad_(), inputs(2, 9, outputs, seed=1)
    theirs = bnb.matmul_4bit(x, weight.data.view(-1, 1), quant_state=weight.quant_state, bias=torch.from_numpy(linear.bias))
    (want,) = torch.autograd.grad(theirs, x, torch.from_numpy(dy))
    y, backward = ours.forward(x.detach().numpy())
    assert np.abs(y - theirs.detach().numpy()).max() < 2e-5
    assert np.abs(backward(dy)[0] - want.numpy()).max() < 2e-5


@pytest.mark.parametrize("double", [False, True])
def test_the_pullback_keeps_neither_x_nor_anything_dequantized(double):
    layer = NumPy4bit(256, 128, double=double, rng=np.random.default_rng(0))
    x = inputs(4, 256)
    kept = weakref.ref(x)
    backward = layer.forward(x)[1]
    del x
    gc.collect()
    assert kept() is None
    held, seen = [backward], {}
    while held:                                     # everything that the closure reaches, but the layer's own arrays
        thing = held.pop()
        if id(thing) in seen or isinstance(thing, (type, type(np))):
            continue
        seen[id(thing)] = thing
        held += [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
        if isinstance(thing, (tuple, list, dict)):
            held += thing.values() if isinstance(thing, dict) else thing
    own = {id(array) for array in layer.state_dict().values()}
    assert [thing.shape for key, thing in seen.items() if isinstance(thing, np.ndarray) and key not in own] == []
    assert len(seen) > 5


@pytest.mark.parametrize("double", [False, True])
def test_the_graph_keeps_neither_x_nor_anything_dequantized(double):
    layer = Torch4bit(256, 128, double=double)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        x = torch.ones(4, 256, requires_grad=True)
        inner = x * 1
        kept = weakref.ref(inner)
        y = layer(inner)
        del inner
    gc.collect()
    assert kept() is None
    assert saved == []
    y.sum().backward()
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(4, -1), atol=1e-5)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_states_pass_from_one_to_another_and_to_the_other_side(double, bias):
    first, second = (NumPy4bit(130, 31, bias=bias, double=double, rng=np.random.default_rng(i)) for i in range(2))
    twin, x = Torch4bit(130, 31, bias=bias, double=double), inputs(3, 130)
    want = first(x)
    assert not np.allclose(second(x), want)
    second.load_state_dict(first.state_dict())
    assert np.array_equal(second(x), want)
    twin.load_state_dict({key: torch.from_numpy(value) for key, value in first.state_dict().items()}, strict=True)
    assert np.allclose(twin(torch.from_numpy(x)).detach().numpy(), want, atol=1e-5)
    assert {k: (v.dtype.name, v.shape) for k, v in first.state_dict().items()} == {
        k: (str(v.dtype).removeprefix("torch."), tuple(v.shape)) for k, v in twin.state_dict().items()
    }


def test_codes_that_were_cut_off_are_refused_and_change_nothing():
    layer = NumPy4bit(130, 31, rng=np.random.default_rng(0))
    before = {key: value.copy() for key, value in layer.state_dict().items()}
    other = NumPy4bit(130, 31, rng=np.random.default_rng(1)).state_dict()
    for wrong in (other | {"codes": other["codes"][:-1]}, other | {"absmax": other["absmax"][1:]}, other | {"codes": other["codes"][None]}):
        with pytest.raises(ValueError, match="of shape"):
            layer.load_state_dict(wrong)
    with pytest.raises(ValueError, match="unknown"):
        layer.load_state_dict(NumPy4bit(130, 31, double=True).state_dict())
    assert all(np.array_equal(layer.state_dict()[key], value) for key, value in before.items())


def test_frozen_and_trained_biases_stay_what_they_were():
    linear = NumPyLinear(8, 4)
    assert list(NumPy4bit.from_linear(linear).parameters()) == ["bias"]
    layer = NumPy4bit.from_linear(linear.freeze())
    assert list(layer.parameters()) == []
    x = inputs(2, 8)
    assert layer.forward(x)[1](inputs(2, 4))[1] == {}
    twin = TorchLinear(8, 4)
    twin.bias.requires_grad_(False)
    assert [p for p in Torch4bit.from_linear(twin).parameters() if p.requires_grad] == []


def test_a_cast_leaves_the_scales_alone():
    layer = Torch4bit(128, 16, double=True)
    plain = Torch4bit(128, 16)
    want = {name: buffer.clone() for module in (layer, plain) for name, buffer in module.named_buffers() if "absmax" in name}
    for module in (layer, plain):
        module.to(torch.bfloat16)
        for name, buffer in module.named_buffers():
            if "absmax" in name:
                assert torch.equal(buffer, want[name])
        assert module.weight.dtype == module.bias.dtype == torch.bfloat16
        assert module(torch.ones(2, 128, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("double", [False, True])
def test_a_layer_without_memory_takes_another_s_state(double):
    want, x = Torch4bit(128, 16, double=double), torch.ones(2, 128)
    with torch.device("meta"):
        layer = Torch4bit(128, 16, double=double)
    assert layer(x.to("meta")).shape == (2, 16)
    layer.load_state_dict(want.state_dict(), assign=True)
    assert torch.equal(layer(x), want(x))
    empty = Torch4bit(128, 16, double=double).to("meta").to_empty(device="cpu")
    empty.load_state_dict(want.state_dict())
    assert torch.equal(empty(x), want(x))


@pytest.mark.parametrize("wrong", [None, torch.nn.Conv1d(2, 3, 1)])
def test_only_a_matrix_can_be_held(wrong):
    for layer in (NumPy4bit, Torch4bit):
        with pytest.raises(ValueError, match="Linear4bit needs a layer whose weight is a matrix"):
            layer.from_linear(wrong)


def test_strips_begin_anywhere():
    """Rows that end within a byte and a block, block sizes above the matrix, one row or all at a time: the same products."""
    x, dy = inputs(3, 37).astype(np.float64), inputs(3, 11, seed=1).astype(np.float64)
    weight = inputs(11, 37, seed=2)
    for block in (1, 5, 64, 1000):
        codes, absmax = quantize_4bit(weight, block=block)
        want = dequantize_4bit(codes, absmax=absmax, shape=(11, 37), block=block, dtype=np.float64)
        for strip in (None, 1, 2, 4, 10, 11, 99):
            y, backward = linear_4bit(x, codes=codes, absmax=absmax, out_features=11, block=block, strip=strip)
            assert np.abs(y - x @ want.T).max() < 1e-12
            assert np.abs(backward(dy)[0] - dy @ want).max() < 1e-12


def test_dora_goes_through_a_quantized_weight_strip_by_strip():
    """The lengths of the rows, and their gradient, need each row once: the weight, 32 MiB, is never there as a whole."""
    layer = LoRALinear(NumPy4bit.from_linear(NumPyLinear(2048, 4096, bias=False)), r=2, alpha=2, dora=True, detach_norm=False)
    x = inputs(1, 2048)
    tracemalloc.start()
    y, backward = layer.forward(x)
    backward(y)
    layer.add("another", r=2, alpha=2, dora=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert np.array_equal(np.concatenate([part for _, part in layer.base.strips()]), layer.base.weight)


def test_bitsandbytes_product_of_scales_that_are_quantized_themselves():
    """What the graphics card is given, tried on the CPU."""
    pytest.importorskip("bitsandbytes")
    for double in (False, True):
        layer = Torch4bit(128, 64, double=double)
        x = torch.from_numpy(inputs(5, 128)).requires_grad_()
        names = ("absmax_codes", "absmax_absmax", "absmax_offset") if double else ("absmax",)
        scales = {name: getattr(layer, name) for name in names}
        y = torch_impl.quantize.linear_4bit._matmul_4bit(x, layer.bias, layer.codes, (64, 128), "nf4", 64, **scales)
        assert torch.allclose(y, layer(x), atol=1e-5)
        assert torch.allclose(torch.autograd.grad(y.sum(), x)[0], layer.weight.sum(0).expand(5, -1), atol=1e-5)
    with pytest.raises(ValueError, match="x on CUDA"):
        Torch4bit(128, 64, kernel="bitsandbytes")(x)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("rows", [1, 40])
def test_kernels_agree_on_a_gpu(dtype, kind, double, rows):
    pytest.importorskip("bitsandbytes")
    linear = TorchLinear(256, 192, device="cuda", dtype=dtype)
    plain, fast = (Torch4bit.from_linear(linear, kind=kind, double=double, kernel=kernel) for kernel in ("plain", "bitsandbytes"))
    x = torch.randn(rows, 256, device="cuda", dtype=dtype, requires_grad=True)
    want, got = plain(x), fast(x)
    bound = (2e-5 if dtype == torch.float32 else 2e-2) * want.abs().max()
    assert (got - want).abs().max() <= bound
    dy = torch.randn_like(want)
    dx, dgot = (torch.autograd.grad(y, x, dy)[0] for y in (want, got))
    assert (dgot - dx).abs().max() <= (2e-5 if dtype == torch.float32 else 2e-2) * dx.abs().max()
