"""What 8-bit dynamic quantization is fed: the points of its grid and what lies between, zeros, subnormal blocks, ragged ends; scales."""

import dataclasses
import math

import numpy as np

from numpy_impl.quantize.double import dynamic_map as dynamic_levels
from parity.cases import array, case, dims, ids, left_out, one_of
from parity.cases.quantize._weights import codes, draw_blocks, draw_shape
from parity.values import Filled


@dataclasses.dataclass(frozen=True)
class grid(Filled):
    """Numbers halfway between two points of the grid that have different codes, or next to that; absmax is mostly a power of two."""

    def make(self, rng, hostility):
        points = 2 * np.arange(65536) / 65535 - 1
        levels = dynamic_levels().astype(np.float64)
        nearest = np.searchsorted((levels[:-1] + levels[1:]) / 2, points)
        halfway = ((points[:-1] + points[1:]) / 2)[nearest[:-1] != nearest[1:]].astype(np.float32)
        steps = rng.integers(-2, 3, self.shape) * np.float32(2**-25)          # a share of absmax moves in steps of 2⁻²⁵ and more
        x = np.where(rng.random(self.shape) < 0.1, 1, rng.choice(halfway, self.shape) + steps)
        return np.asarray(x.clip(-1, 1) * 2.0 ** rng.integers(-100, 100), dtype=np.float32).astype(np.float64)


_EQUIVALENT = {
    "share.astype(np.float64) * 65535 + 0.5 -> share.astype(np.float64) * 65535 + 0.5000005": "of all shares that float32 "
    "can hold it moves 34 to the next point of the grid, and none to a point with another code",
    "np.arange(65536, dtype=np.float32) -> np.arange(65537, dtype=np.float32)": "no share reaches the point beyond the grid",
}


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
        dict(x=None),
    ],
    equivalent=_EQUIVALENT,
)
def quantize_dynamic(draw):
    shape = draw_shape(draw)
    x = draw(one_of(array(*shape), grid(shape), array(*shape, scale=1e-40), array(*shape, scale=10.0 ** draw(one_of(-44, -38, -30, 37)))))
    return dict(x=x, block=draw(left_out(_block(draw))))


def _dequantized(draw):
    shape, options, blocks = draw_blocks(draw, 256)
    return dict(codes=codes((math.prod(shape),)), absmax=array(blocks)) | options


_REFUSED = [
    dict(codes=codes((3,)), absmax=array(2)),
    dict(codes=codes((3,)), absmax=array(1), block=2),
    dict(codes=codes((3,)), absmax=array(1, 1)),
    dict(codes=codes((3, 1)), absmax=array(1)),
    dict(codes=ids(3, below=256), absmax=array(1)),
    dict(codes=codes((3,)), absmax=ids(1, below=5)),
    dict(codes=codes((3,)), absmax=array(1), block=0),
    dict(codes=None, absmax=array(1)),
    dict(codes=codes((3,)), absmax=None),
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
        dict(absmax=None),
    ],
    equivalent=_EQUIVALENT,
)
def double_quantize(draw):
    count = draw(one_of(draw(dims(min_rank=1, max_rank=1))[0], 0 if draw.edges else 1003))
    absmax = draw(one_of(array(count, low=0.01, high=0.1), array(count), array(count, scale=1e-30)))
    return dict(absmax=absmax, block=draw(left_out(_block(draw))))


@case(
    "quantize.double_dequantize",
    gradient=False,
    refuses=[bad | dict(offset=array()) for bad in _REFUSED] + [
        dict(codes=codes((3,)), absmax=array(1), offset=array(1)),
        dict(codes=codes((3,)), absmax=array(1), offset=None),
    ],
)
def double_dequantize(draw):
    return _dequantized(draw) | dict(offset=array())
