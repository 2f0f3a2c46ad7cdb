"""What FP4 is fed: ties, zeros and subnormal numbers in blocks of every size, ragged at the end; every byte, with any scales."""

import math

import numpy as np

from numpy_impl.quantize.fp4 import fp4_table as levels
from parity.cases import array, case, ids
from parity.cases.quantize._weights import codes, draw_blocks, draw_weights


@case("quantize.fp4_table", gradient=False)
def fp4_table(draw):
    return {}


@case(
    "quantize.quantize_fp4",
    gradient=False,
    refuses=[
        dict(x=ids(2, 3, below=5)),
        dict(x=np.array([1.0, np.nan, 2.0])),
        dict(x=np.array([1.0, -np.inf, 2.0, 3.0]), block=2),
        dict(x=array(2, 3), block=0),
        dict(x=array(2, 3), block=-64),
        dict(x=array(2, 3), block=2.0),
        dict(x=array(2, 3), block=True),
        dict(x=None),
    ],
)
def quantize_fp4(draw):
    x, options = draw_weights(draw, levels(), 64)
    return dict(x=x) | options


def _in_parts(side, codes, absmax, shape, block=64):
    """Whole blocks, and dtypes, of what is dequantized at once."""
    dequantize = side.get("quantize.dequantize_fp4")
    whole = dequantize(codes, absmax=absmax, shape=shape, block=block).reshape(-1)
    yield "dtype", dequantize(codes, absmax=absmax, shape=shape, block=block, dtype=side.dtype).reshape(-1), whole
    count = math.prod(shape)
    for first in (2, 4):
        start = min(first * block, count // 2 * 2)
        if start == first * block:
            rest = dequantize(codes[start // 2:], absmax=absmax[first:], shape=(count - start,), block=block)
            yield f"from block {first}", rest, whole[start:]


@case(
    "quantize.dequantize_fp4",
    gradient=False,
    also=[_in_parts],
    refuses=[
        dict(codes=codes((3,)), absmax=array(1), shape=(2, 4)),
        dict(codes=codes((2, 2)), absmax=array(1), shape=(2, 4)),
        dict(codes=codes((4,)), absmax=array(2), shape=(2, 4)),
        dict(codes=codes((4,)), absmax=array(1), shape=(2, 4), block=4),
        dict(codes=codes((4,)), absmax=ids(1, below=3), shape=(2, 4)),
        dict(codes=ids(4, below=256), absmax=array(1), shape=(2, 4)),
        dict(codes=codes((4,)), absmax=array(1), shape=8),
        dict(codes=codes((4,)), absmax=array(1), shape=(-2, -4)),
        dict(codes=codes((4,)), absmax=array(1), shape=(2, 4), block=0),
        dict(codes=None, absmax=array(1), shape=(2, 4)),
        dict(codes=codes((4,)), absmax=None, shape=(2, 4)),
    ],
)
def dequantize_fp4(draw):
    shape, options, blocks = draw_blocks(draw, 64)
    return dict(codes=codes((-(-math.prod(shape) // 2),)), absmax=array(blocks), shape=shape) | options
