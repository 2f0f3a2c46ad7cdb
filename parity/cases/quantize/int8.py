"""What 8-bit quantization is fed: every way to share a scale, every rank, constant and zero rows, more numbers than one piece holds."""

import dataclasses

import numpy as np

from parity.cases import array, case, dims, flag, left_out, one_of
from parity.values import Filled, Large


@dataclasses.dataclass(frozen=True)
class codes(Filled):
    """Any codes of 8 bits."""

    dtype: str = "int8"

    def make(self, rng, hostility):
        limits = np.iinfo(self.dtype)
        return np.asarray(rng.integers(limits.min, limits.max, self.shape, dtype=self.dtype, endpoint=True))


class symmetric(Filled):
    """Floats whose last axis ends with m and −m: half a step beyond the codes on either side, where rounding decides."""

    def make(self, rng, hostility):
        x = rng.uniform(-1, 1, self.shape)
        largest = rng.uniform(1, 4, (*self.shape[:-1], 1))
        return np.concatenate([x, largest, -largest], -1).astype(np.float32).astype(np.float64)


_LARGE = ((5, 7001), (7001, 5), (2, 3, 5601))   # more than the 2¹⁵ numbers of a piece, which ends within a row or between two


def _draw(draw, default):
    """(shape, per): per is left out where it is the default."""
    per = draw(one_of("tensor", "channel", "token"))
    shape = draw(dims(min_rank=0 if per == "tensor" else 1))
    if not isinstance(draw, Large) and not draw.edges and draw(one_of(*[False] * 5, True)):
        shape = draw(one_of(*_LARGE))
    return shape, per, {} if per == default and draw(flag()) else dict(per=per)


def _of_scales(shape, per):
    return {"tensor": (), "channel": shape[:1], "token": shape[:-1]}[per]


_EQUIVALENT = {"np.where(np.isfinite(steps), steps, 0) -> np.where(np.isfinite(steps), steps, 1)":
               "the numbers are below 4e-37 there: 0 or 1 code a unit, they round to 0"}

_REFUSES_X: list[dict] = [
    dict(x=array()),
    dict(x=None),
    dict(x=array(), per="channel"),
    dict(x=array(2, 3), per="row"),
    dict(x=codes((2, 3)), per="token"),
    dict(x=np.array([[1.0, np.nan]]), per="token"),
    dict(x=np.array([[1.0, 2.0], [-np.inf, 1.0]]), per="channel"),
    dict(x=np.array([np.inf, 1.0]), per="tensor"),
]


@case("quantize.quantize_int8_absmax", gradient=False, bench=dict(x=array(4096, 4096)), refuses=_REFUSES_X, equivalent=_EQUIVALENT)
def quantize_int8_absmax(draw):
    shape, _, per = _draw(draw, "token")
    return dict(x=array(*shape, scale=draw(one_of(1.0, 1e-3, 1e3))), **per)


@case(
    "quantize.dequantize_int8_absmax",
    gradient=False,
    bench=dict(codes=codes((4096, 4096)), absmax=array(4096, low=0.5, high=2.0)),
    refuses=[
        dict(codes=array(2, 3), absmax=array(2)),
        dict(codes=codes((2, 3), "uint8"), absmax=array(2)),
        dict(codes=codes((2, 3)), absmax=codes((2,))),
        dict(codes=codes((2, 3)), absmax=array(3)),
        dict(codes=codes((2, 3)), absmax=array(2, 1)),
        dict(codes=codes((2, 3)), absmax=array(2), per="tensor"),
        dict(codes=codes((2, 3, 4)), absmax=array(2, 3), per="channel"),
        dict(codes=codes((2, 3)), absmax=array(2), per="row"),
        dict(codes=codes(()), absmax=array()),
        dict(codes=None, absmax=array(2)),
        dict(codes=codes((2, 3)), absmax=None),
    ],
)
def dequantize_int8_absmax(draw):
    shape, way, per = _draw(draw, "token")
    return dict(codes=codes(shape), absmax=array(*_of_scales(shape, way)), **per)


@case("quantize.quantize_int8_zero_point", gradient=False, bench=dict(x=array(4096, 4096)),
      refuses=[*_REFUSES_X[1:], dict(x=array(2), signed="no")], equivalent=_EQUIVALENT)
def quantize_int8_zero_point(draw):
    shape, _, per = _draw(draw, "tensor")
    one_sided = draw(one_of({}, dict(low=0.5, high=2.0), dict(low=-1.0, high=-0.25)))
    x = draw(one_of(array(*shape, **one_sided), symmetric(shape) if shape else array()))
    return dict(x=x, **per, signed=draw(left_out(flag())))


@case(
    "quantize.dequantize_int8_zero_point",
    gradient=False,
    bench=dict(codes=codes((4096, 4096), "uint8"), scale=array(), zero_point=np.array(117)),
    refuses=[
        dict(codes=array(2, 3), scale=array(), zero_point=np.array(3)),
        dict(codes=codes((2, 3)), scale=np.array(3), zero_point=np.array(3)),
        dict(codes=codes((2, 3)), scale=array(), zero_point=array()),
        dict(codes=codes((2, 3)), scale=array(2), zero_point=np.array(3)),
        dict(codes=codes((2, 3)), scale=array(), zero_point=np.array([3, 4])),
        dict(codes=codes((2, 3)), scale=array(2), zero_point=np.array(3), per="token"),
        dict(codes=codes((2, 3)), scale=array(2), zero_point=np.array([3, 4]), per="row"),
        dict(codes=codes((2, 3)), scale=array(), zero_point=None),
    ],
)
def dequantize_int8_zero_point(draw):
    shape, way, per = _draw(draw, "tensor")
    dtype = draw(one_of("int8", "uint8"))
    scales = _of_scales(shape, way)
    return dict(codes=codes(shape, dtype), scale=array(*scales), zero_point=codes(scales, dtype), **per)
