"""8-bit dynamic codes and double quantization against bitsandbytes on a CPU, byte for byte.

The offset is the one number that cannot be: bitsandbytes takes torch's float32 mean, whose last bits depend on the vectors and threads of
the machine. Ours is exact and rounded once. Where a float32 sum is exact in any order, everything is equal; elsewhere all but the offset.
"""

import numpy as np
import pytest
import torch

import numpy_impl.quantize.double as by_hand
import torch_impl.quantize.double as twin
from numpy_impl.quantize.four_bit import quantize_4bit

fused = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch.linspace, from which bitsandbytes makes its map, rounds twice here"
)


def same(got, codes, absmax):
    return np.asarray(got.codes).tobytes() == codes.numpy().tobytes() and np.asarray(got.absmax).tobytes() == absmax.numpy().tobytes()


@fused
def test_the_map_is_that_of_bitsandbytes_to_the_last_bit():
    functional = pytest.importorskip("bitsandbytes.functional")
    want = functional.create_dynamic_map().numpy()
    assert by_hand.dynamic_map().tobytes() == want.tobytes() == twin.dynamic_map().numpy().tobytes()


@fused
def test_bytes_are_those_of_quantize_blockwise():
    functional = pytest.importorskip("bitsandbytes.functional")
    for i in range(400):
        rng = np.random.default_rng([i, 8])
        x = rng.standard_normal(int(rng.integers(1, 5000))).astype(np.float32) * np.float32(10.0 ** rng.integers(-44, 31))
        match i % 6:
            case 1:
                x[rng.random(x.size) < 0.3] = 0
            case 2:
                x = np.abs(x)
            case 3:
                x[...] = x[0]
            case 4:
                x = (2 * rng.integers(0, 65536, x.size) / 65535 - 1 + 1 / 65535).astype(np.float32)   # halfway between two points
            case 5:
                x[: x.size // 2] = 0
        block = int(rng.choice([1, 3, 64, 100, 256, 4096]))
        codes, state = functional.quantize_blockwise(torch.from_numpy(x), blocksize=block)
        assert same(by_hand.quantize_dynamic(x, block=block), codes, state.absmax), (i, x.size, block)
        assert same(twin.quantize_dynamic(torch.from_numpy(x), block=block), codes, state.absmax), (i, x.size, block)
        back = by_hand.dequantize_dynamic(codes.numpy(), absmax=state.absmax.numpy(), block=block)
        assert back.tobytes() == functional.dequantize_blockwise(codes, state).numpy().tobytes()


@fused
def test_nested_bytes_are_those_of_compress_statistics():
    functional = pytest.importorskip("bitsandbytes.functional")
    for i in range(320):
        rng = np.random.default_rng([i, 16])
        block, kind = int(rng.choice([32, 64, 128, 256])), ("nf4", "fp4")[i % 2]
        x = rng.standard_normal(int(rng.integers(1, 40000))).clip(-8, 8)
        x = (np.round(x * 256) / 256 * 2.0 ** rng.integers(-60, 60)).astype(np.float32)        # twelve bits: sums of absmax are exact
        x[-1] = x[0]                                                                           # the last block may be short, not of zeros
        codes, state = functional.quantize_4bit(torch.from_numpy(x), blocksize=block, quant_type=kind, compress_statistics=True)
        got = quantize_4bit(x, kind=kind, block=block)
        assert got.codes.tobytes() == codes.numpy().tobytes()
        nested = by_hand.double_quantize(got.absmax)
        assert nested.offset.tobytes() == state.offset.numpy().tobytes()
        assert same(nested, state.absmax, state.state2.absmax)
        assert same(twin.double_quantize(torch.from_numpy(got.absmax)), state.absmax, state.state2.absmax)
        back = by_hand.double_dequantize(nested.codes, absmax=nested.absmax, offset=nested.offset)
        assert back.tobytes() == (functional.dequantize_blockwise(state.absmax, state.state2) + state.offset).numpy().tobytes()


@fused
def test_elsewhere_all_but_the_last_bits_of_the_offset_is_the_same():
    functional = pytest.importorskip("bitsandbytes.functional")
    for i in range(320):
        rng = np.random.default_rng([i, 32])
        x = rng.standard_normal(int(rng.integers(64, 60000))).astype(np.float32) * np.float32(10.0 ** rng.integers(-8, 3))
        _, state = functional.quantize_4bit(torch.from_numpy(x), blocksize=64, quant_type="nf4", compress_statistics=True)
        absmax, theirs = quantize_4bit(x).absmax, state.offset.numpy()
        ours = by_hand.double_quantize(absmax).offset
        assert abs(ours - theirs) <= 4 * np.spacing(theirs)
        assert ours == np.float32(absmax.astype(np.longdouble).mean())
        assert same(by_hand.quantize_dynamic(absmax - theirs), state.absmax, state.state2.absmax)


def test_the_grid_has_no_zero():
    """bitsandbytes' grid on a CPU is even: an exact zero becomes 2.1e-5 of absmax. Its map has a zero, which nothing reaches."""
    codes, absmax = by_hand.quantize_dynamic(np.array([1.0, 0.0], dtype=np.float32))
    back = by_hand.dequantize_dynamic(codes, absmax=absmax)
    assert back.tolist() == [1.0, pytest.approx(2.125e-5)]
    assert not (by_hand._NEAREST == 127).any() and by_hand.dynamic_map()[127] == 0


def test_no_scales_at_all():
    for side, empty in ((by_hand, np.zeros(0, np.float32)), (twin, torch.zeros(0))):
        codes, absmax, offset = side.double_quantize(empty)
        assert len(codes) == len(absmax) == 0 and float(offset) == 0.0
