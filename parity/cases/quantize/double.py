"""What 8-bit dynamic quantization is fed: the points of its grid and what lies between, zeros, subnormal blocks, ragged ends; scales."""

import dataclasses

import numpy as np

from parity.cases import array, case, dims, ids, left_out, one_of
from parity.cases.quantize._weights import codes, draw_shape
from parity.values import Filled


@dataclasses.dataclass(frozen=True)
class grid(Filled):
    """Numbers halfway between two points of the grid, or next to it, in blocks whose absmax is a power of two."""

    def make(self, rng, hostility):
        halfway = np.asarray(2 * rng.integers(0, 65536, self.shape) / 65535 - 1 + 1 / 65535, dtype=np.float32).clip(-1, 1)
        x = np.nextafter(halfway, rng.choice(np.array([-2, 2], dtype=np.float32), self.shape))
        x = np.where(rng.random(self.shape) < 0.5, x, halfway)
        return np.asarray(np.where(rng.random(self.shape) < 0.1, 1, x) * 2.0 ** rng.integers(-100, 100), dtype=np.float64)


def _block(draw):
    return draw(one_of(256, 1, 2, 3, 5, 64, 100, 1 << 40))


@case("quantize.dynamic_map", gradient=False)
def dynamic_map(draw):
    return {}


@case(
    "quantize.quantize_dynamic",
    gradient=False,
    refuses=[
        dict(x=ids(2, 3, below=5)),
        dict(x=np.array([1.0, np.nan, 2.0])),
        dict(x=np.array([1.0, np.inf, 2.0])),
        dict(x=array(2, 3), block=0),
        dict(x=array(2, 3), block=1.5),
    ],
)
def quantize_dynamic(draw):
    shape = draw_shape(draw, large=((3, 1003),))
    x = draw(one_of(array(*shape), array(*shape, scale=10.0 ** draw(one_of(0, -44, -39, -38, -30, 37))), grid(shape)))
    return dict(x=x, block=draw(left_out(_block(draw))))


def _dequantized(draw):
    count, block = draw(one_of(draw(dims(min_rank=1, max_rank=1))[0], 0 if draw.edges else 515)), _block(draw)
    options = dict(block=draw(left_out(block))) if block == 256 else dict(block=block)
    return dict(codes=codes((count,)), absmax=array(-(-count // block))) | options


_REFUSED = [
    dict(codes=codes((3,)), absmax=array(2)),
    dict(codes=codes((3,)), absmax=array(1), block=2),
    dict(codes=codes((3,)), absmax=array(1, 1)),
    dict(codes=codes((3, 1)), absmax=array(1)),
    dict(codes=ids(3, below=256), absmax=array(1)),
    dict(codes=codes((3,)), absmax=ids(1, below=5)),
    dict(codes=codes((3,)), absmax=array(1), block=0),
]


@case("quantize.dequantize_dynamic", gradient=False, refuses=_REFUSED)
def dequantize_dynamic(draw):
    return _dequantized(draw)


def _beyond_half_a_step(side, absmax, **options):
    """What comes back lies within half of the largest gap between two codes, of the block's absmax, of what was there."""
    codes, largest, offset = side.get("quantize.double_quantize")(absmax, **options)
    back = side.get("quantize.double_dequantize")(codes, absmax=largest, offset=offset, **options)
    scales = [np.asarray(side.numpy(v), dtype=np.float64) for v in (absmax, back, largest, offset)]
    size = np.abs(scales[0]).max(initial=0) + np.abs(scales[3])
    bound = scales[2].repeat(min(options.get("block", 256), max(len(scales[0]), 1)))[:len(scales[0])] * 0.0071 + 1e-6 * size + 1e-38
    yield "beyond half a step", np.maximum((np.abs(scales[0] - scales[1]) - bound).max(initial=0.0), 0.0), np.float64(0.0)


@case(
    "quantize.double_quantize",
    gradient=False,
    also=[_beyond_half_a_step],
    refuses=[
        dict(absmax=ids(3, below=5)),
        dict(absmax=array(2, 3)),
        dict(absmax=np.array([1.0, np.nan])),
        dict(absmax=np.array([1.0, np.inf])),
        dict(absmax=np.array([3e38, 3e38, -3e38])),
        dict(absmax=array(3), block=0),
    ],
)
def double_quantize(draw):
    count = draw(one_of(draw(dims(min_rank=1, max_rank=1))[0], 0 if draw.edges else 1003))
    absmax = draw(one_of(array(count, low=0.01, high=0.1), array(count), array(count, scale=1e-30)))
    return dict(absmax=absmax, block=draw(left_out(_block(draw))))


@case(
    "quantize.double_dequantize",
    gradient=False,
    refuses=[bad | dict(offset=array()) for bad in _REFUSED] + [dict(codes=codes((3,)), absmax=array(1), offset=array(1))],
)
def double_dequantize(draw):
    return _dequantized(draw) | dict(offset=array())
