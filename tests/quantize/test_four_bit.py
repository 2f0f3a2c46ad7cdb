"""4-bit codes against bitsandbytes on a CPU, byte for byte, and what they cost in memory.

Its dequantize_4bit is wrong there where a row is not made of whole blocks, and compiles PyTorch code from blocks of 2048 on; so it is asked
for whole blocks of less. It knows only some block sizes; ours are any.
"""

import math
import tracemalloc

import numpy as np
import pytest
import torch

import numpy_impl.quantize.four_bit as by_hand
import torch_impl.quantize._packed as packed
import torch_impl.quantize.four_bit as twin
from numpy_impl.quantize.fp4 import fp4_table
from numpy_impl.quantize.nf4 import nf4_table

KINDS = {"nf4": nf4_table, "fp4": fp4_table}
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)


def drawn(kind, i):
    """Weights of one to three axes, ragged or not, of any scale; with zeros, ties, constant blocks, subnormal numbers, a wide spread."""
    rng = np.random.default_rng([i, len(kind)])
    block = int(rng.choice(BLOCKS))
    shape = [(int(rng.integers(1, 6000)),), (int(rng.integers(1, 40)), int(rng.integers(1, 200))), (2, int(rng.integers(1, 9)), 64)][i % 3]
    x = rng.standard_normal(shape).astype(np.float32)
    what = ("ordinary", "zeros", "rounded", "constant", "subnormal", "spread", "midpoints", "zero blocks")[i // 3 % 8]
    match what:
        case "zeros":
            x[rng.random(shape) < 0.4] = 0
        case "rounded":
            x = np.round(x * 2) / 2
        case "constant":
            x[...] = x.flat[0]
        case "spread":
            x *= np.float32(10) ** rng.integers(-20, 20, shape).astype(np.float32)
        case "midpoints":
            levels = np.sort(KINDS[kind]())
            x = rng.choice(np.concatenate([(levels[:-1] + levels[1:]) / 2, np.ones(3, np.float32)]), shape)
        case "zero blocks":
            x.reshape(-1)[: 2 * block] = 0
    if what != "spread":
        x *= np.float32(1e-41) if what == "subnormal" else np.float32(10.0 ** rng.integers(-30, 31))
    return x.astype(np.float32), block


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_those_of_bitsandbytes(kind):
    functional = pytest.importorskip("bitsandbytes.functional")
    for i in range(480):
        x, block = drawn(kind, i)
        assert np.isfinite(x).all()
        codes, state = functional.quantize_4bit(torch.from_numpy(x), blocksize=block, quant_type=kind)
        tensor, options = torch.from_numpy(x), dict(kind=kind, block=block)
        for got in (by_hand.quantize_4bit(x, **options), by_hand.quantize_4bit(x.astype(np.float64), **options),
                    twin.quantize_4bit(tensor, **options), twin.quantize_4bit(tensor, **options, kernel="bitsandbytes")):
            assert np.asarray(got.codes).tobytes() == codes.numpy().tobytes(), (i, x.shape, block)
            assert np.asarray(got.absmax).tobytes() == state.absmax.numpy().tobytes(), (i, x.shape, block)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_those_of_bitsandbytes(kind, dtype):
    functional = pytest.importorskip("bitsandbytes.functional")
    rng = np.random.default_rng(3)
    for block in BLOCKS[:6]:
        for rows in (1, 2, 7, 30):
            codes, absmax = rng.integers(0, 256, rows * block // 2, dtype=np.uint8), rng.lognormal(0, 3, rows).astype(np.float32)
            given, options = (torch.from_numpy(codes), torch.from_numpy(absmax)), dict(shape=(rows, block), kind=kind, block=block)
            state = functional.QuantState(given[1], shape=torch.Size((rows, block)), dtype=dtype, blocksize=block, quant_type=kind)
            want = functional.dequantize_4bit(given[0], state, blocksize=block, quant_type=kind)
            for kernel in ("plain", "bitsandbytes"):
                assert torch.equal(twin.dequantize_4bit(given[0], absmax=given[1], **options, dtype=dtype, kernel=kernel), want)
            if dtype == torch.float32:
                np.testing.assert_array_equal(by_hand.dequantize_4bit(codes, absmax=absmax, **options), want)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_agree_where_bitsandbytes_alone_is_wrong(kind):
    pytest.importorskip("bitsandbytes")
    rng = np.random.default_rng(4)
    for shape, block in (((3, 50), 64), ((7, 33), 32), ((5, 64), 128), ((3, 1000), 2048), ((1,), 64), ((0, 4), 64), ((2, 3, 40), 32)):
        x = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        codes, absmax = twin.quantize_4bit(x, kind=kind, block=block)
        given = dict(absmax=absmax, shape=shape, kind=kind, block=block)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            want = by_hand.dequantize_4bit(codes.numpy(), **given | dict(absmax=absmax.numpy()))
            for kernel in ("auto", "plain", "bitsandbytes"):
                got = twin.dequantize_4bit(codes, **given, dtype=dtype, kernel=kernel)
                assert got.dtype == dtype and torch.equal(got, torch.from_numpy(want).to(dtype))


def test_what_bitsandbytes_cannot_do_is_refused_when_it_is_named(monkeypatch):
    x = torch.ones(2, 48)
    if packed._has_bitsandbytes():
        with pytest.raises(ValueError, match="block from 32, 64"):
            twin.quantize_4bit(x, block=48, kernel="bitsandbytes")
    with pytest.raises(ValueError, match="kernel from 'auto', 'plain', 'bitsandbytes'"):
        twin.quantize_4bit(x, kernel="triton")
    monkeypatch.setattr(packed, "_has_bitsandbytes", lambda: False)
    with pytest.raises(ValueError, match="quantize_nf4 needs bitsandbytes installed"):
        twin.quantize_4bit(x, kernel="bitsandbytes")
    codes, absmax = twin.quantize_4bit(x)
    with pytest.raises(ValueError, match="dequantize_nf4 needs bitsandbytes installed"):
        twin.dequantize_4bit(codes, absmax=absmax, shape=(2, 48), kernel="bitsandbytes")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gives_the_same(kind):
    for i in range(24):
        x, block = drawn(kind, i)
        want = by_hand.quantize_4bit(x, kind=kind, block=block)
        got = twin.quantize_4bit(torch.from_numpy(x).cuda(), kind=kind, block=block)
        assert np.array_equal(got.codes.cpu(), want.codes) and np.array_equal(got.absmax.cpu(), want.absmax)
        whole = by_hand.dequantize_4bit(want.codes, absmax=want.absmax, shape=x.shape, kind=kind, block=block)
        kernels = ("auto", "plain", "bitsandbytes") if packed._has_bitsandbytes() else ("auto", "plain")
        for kernel in kernels if np.abs(whole).max() > 1e-30 else ("plain",):                 # the kernel takes subnormal numbers for 0
            back = twin.dequantize_4bit(got.codes, absmax=got.absmax, shape=x.shape, kind=kind, block=block, kernel=kernel)
            assert np.array_equal(back.cpu(), whole)


def peak(call):
    """Bytes that a call needs at its peak, its result included."""
    tracemalloc.start()
    call()
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_the_result_and_a_chunk(kind):
    x = np.random.default_rng(5).standard_normal((1024, 4096)).astype(np.float32)             # 16 MiB
    codes, absmax = by_hand.quantize_4bit(x, kind=kind)
    assert codes.nbytes + absmax.nbytes == x.size // 2 + x.size // 16
    assert peak(lambda: by_hand.quantize_4bit(x, kind=kind)) < codes.nbytes + absmax.nbytes + (2 << 20)
    assert peak(lambda: by_hand.dequantize_4bit(codes, absmax=absmax, shape=x.shape, kind=kind)) < x.nbytes + (1 << 20)
    strip = dict(absmax=absmax[64:128], shape=(1, 4096), kind=kind)
    assert peak(lambda: by_hand.dequantize_4bit(codes[2048:4096], **strip)) < 4 * 4096 + (64 << 10)


def test_weights_beyond_the_first_chunk_are_looked_at():
    x = np.zeros(300_001, dtype=np.float32)
    for place in (70_000, 300_000):
        for bad in (np.nan, np.inf, -np.inf):
            x[place] = bad
            with pytest.raises(ValueError, match=r"quantize_nf4 needs x finite in float32; got x float32 \(300001,\)"):
                by_hand.quantize_4bit(x)
        x[place] = 0
    with pytest.raises(ValueError, match="finite in float32"):
        by_hand.quantize_4bit(np.array([1.0, 1e39]))                                          # finite, but only in float64


@pytest.mark.parametrize("kind", KINDS)
def test_every_level_comes_back_from_any_block_size(kind):
    rng = np.random.default_rng(6)
    for block in (1, 2, 3, 7, 48, 1000, 70_001):
        levels, count = KINDS[kind](), 3 * min(block, 50_000) + 5
        x = rng.choice(levels, count)
        x[::block] = 1                                                                        # so that absmax is 1 in every block
        codes, absmax = by_hand.quantize_4bit(x, kind=kind, block=block)
        assert absmax.tolist() == [1.0] * math.ceil(count / block)
        np.testing.assert_array_equal(by_hand.dequantize_4bit(codes, absmax=absmax, shape=(count,), kind=kind, block=block), x)


@pytest.mark.parametrize("kind, block, error", [("nf4", 64, 0.0728), ("nf4", 128, 0.0768), ("nf4", 256, 0.0804), ("nf4", 4096, 0.0925),
                                                ("fp4", 64, 0.0966), ("fp4", 128, 0.1029), ("fp4", 256, 0.1087), ("fp4", 4096, 0.1296)])
def test_normal_numbers_come_back_with_the_error_that_is_known_for_each_block_size(kind, block, error):
    """The mean of |x − back|, as bitsandbytes' own tests have measured it."""
    x = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    codes, absmax = by_hand.quantize_4bit(x, kind=kind, block=block)
    back = by_hand.dequantize_4bit(codes, absmax=absmax, shape=x.shape, kind=kind, block=block)
    assert abs(float(np.abs(x - back).mean()) - error) < 0.001
