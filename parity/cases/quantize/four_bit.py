"""What the formats by name are fed: what NF4 and FP4 are, and both names."""

import math

import numpy as np

from numpy_impl.quantize.fp4 import fp4_table
from numpy_impl.quantize.nf4 import nf4_table
from parity.cases import array, case, ids, left_out, one_of
from parity.cases.quantize._weights import codes, draw_blocks, draw_weights


def _floats(side, array):
    return np.asarray(side.numpy(array), dtype=np.float64)


def _by_name(side, x, kind="nf4", **options):
    """The format's own function, and what comes back lies within half a gap of what was there."""
    quantized = side.get("quantize.quantize_4bit")(x, kind=kind, **options)
    own = side.get(f"quantize.quantize_{kind}")(x, **options)
    yield "codes", _floats(side, quantized.codes), _floats(side, own.codes)
    yield "absmax", _floats(side, quantized.absmax), _floats(side, own.absmax)
    back = side.get("quantize.dequantize_4bit")(quantized.codes, absmax=quantized.absmax, shape=tuple(x.shape), kind=kind, **options)
    gap = dict(nf4=0.3039, fp4=1 / 3)[kind]                     # the largest between two levels
    block = options.get("block", 64)
    largest = _floats(side, quantized.absmax).repeat(min(block, max(math.prod(x.shape), 1)))[:math.prod(x.shape)]
    excess = np.abs(_floats(side, back).reshape(-1) - _floats(side, x).reshape(-1)) - largest * gap / 2 * (1 + 1e-6) - 1e-38
    yield "beyond half a gap", np.maximum(excess.max(initial=0.0), 0.0), np.float64(0.0)


@case(
    "quantize.quantize_4bit",
    gradient=False,
    also=[_by_name],
    refuses=[
        dict(x=array(2, 3), kind="nf5"),
        dict(x=array(2, 3), kind=4),
        dict(x=array(2, 3), kind="fp4", block=0),
        dict(x=np.array([1.0, np.inf])),
    ],
)
def quantize_4bit(draw):
    kind = draw(one_of("nf4", "fp4"))
    x, options = draw_weights(draw, (nf4_table if kind == "nf4" else fp4_table)(), 64)
    return dict(x=x, kind=draw(left_out("nf4")) if kind == "nf4" else kind) | options


def _rows(side, codes, absmax, shape, kind="nf4", block=64):
    """The format's own function; rows that are whole blocks, by themselves."""
    dequantize, options = side.get("quantize.dequantize_4bit"), dict(kind=kind, block=block)
    whole = dequantize(codes, absmax=absmax, shape=shape, **options)
    yield "by name", whole, side.get(f"quantize.dequantize_{kind}")(codes, absmax=absmax, shape=shape, block=block)
    yield "dtype", dequantize(codes, absmax=absmax, shape=shape, **options, dtype=side.dtype), whole
    width = math.prod(shape[1:])
    if len(shape) > 1 and shape[0] > 3 and width and width % 2 == 0 and width % block == 0:
        mine, scales = codes[width // 2:3 * width // 2], absmax[width // block:3 * width // block]
        yield "rows 1 and 2", dequantize(mine, absmax=scales, shape=(2, *shape[1:]), **options), whole[1:3]


@case(
    "quantize.dequantize_4bit",
    gradient=False,
    also=[_rows],
    refuses=[
        dict(codes=codes((4,)), absmax=array(1), shape=(2, 4), kind="int4"),
        dict(codes=codes((3,)), absmax=array(1), shape=(2, 4)),
        dict(codes=codes((4,)), absmax=array(2), shape=(2, 4), kind="fp4"),
        dict(codes=ids(4, below=256), absmax=array(1), shape=(2, 4)),
    ],
)
def dequantize_4bit(draw):
    shape, options, blocks = draw_blocks(draw, 64)
    kind = draw(one_of(dict(), dict(kind="nf4"), dict(kind="fp4")))
    return dict(codes=codes((-(-math.prod(shape) // 2),)), absmax=array(blocks), shape=shape) | options | kind
