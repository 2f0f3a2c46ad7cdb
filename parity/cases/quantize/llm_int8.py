"""What LLM.int8() is fed: no, some and only outliers, thresholds on either side of everything, several strips of columns."""

import math
import types

import numpy as np

from parity.cases import array, case, dims, flag, left_out, maybe, one_of, size
from parity.cases.quantize.int8 import codes
from parity.values import Filled

_ROUNDS = {"witness": "rounding to codes makes the output constant between jumps; the gradient is the straight-through estimator's"}


class at_the_threshold(Filled):
    """Normals, and the thresholds themselves: what is not below is an outlier."""

    def make(self, rng, hostility):
        x = rng.choice([6.0, -6.0, 2.0, -0.5], self.shape)
        return np.where(rng.random(self.shape) < 0.2, x, rng.standard_normal(self.shape).astype(np.float32).astype(np.float64))


def _x(draw, shape):
    """Activations with entries on both sides of the thresholds; on the very threshold where a choice may hang on the last bit."""
    hard = [] if draw.ordinary else [at_the_threshold(shape)] * 2
    return draw(one_of(*(array(*shape, scale=scale) for scale in (1.0, 3.0, 10.0)), *hard))


_threshold = left_out(one_of(6.0, 2.0, 0.5, 1e-6, math.inf))


@case(
    "quantize.quantize_int8_outliers",
    gradient=False,
    bench=dict(x=array(4096, 4096)),
    refuses=[
        dict(x=array()),
        dict(x=codes((2, 3))),
        dict(x=array(2, 3), threshold=0.0),
        dict(x=array(2, 3), threshold=-1.0),
        dict(x=array(2, 3), threshold=math.nan),
        dict(x=array(2, 3), threshold="6"),
        dict(x=array(2, 3), threshold=True),
        dict(x=array(2, 3), threshold=None),
        dict(x=None),
    ],
)
def quantize_int8_outliers(draw):
    shape = draw(dims())
    if not draw.edges and draw(one_of(False, False, True)):
        shape = draw(one_of((5, 7001), (7001, 5), (2, 3, 5601)))
    return dict(x=_x(draw, shape), threshold=draw(_threshold))


@case(
    "quantize.llm_int8_linear",
    skip=_ROUNDS,
    equivalent={"_COLUMNS = 256 -> _COLUMNS = 257": "how many columns are floats at a time changes nothing"},
    fixed={"absmax": "the weight is frozen"},
    bench=dict(x=array(512, 4096), codes=codes((4096, 4096)), absmax=array(4096, low=0.5, high=2.0)),
    refuses=[
        dict(x=array(), codes=codes((2, 3)), absmax=array(2)),
        dict(x=codes((4, 3)), codes=codes((2, 3)), absmax=array(2)),
        dict(x=array(4, 3), codes=codes((2, 3), "uint8"), absmax=array(2)),
        dict(x=array(4, 3), codes=array(2, 3), absmax=array(2)),
        dict(x=array(4, 3), codes=codes((3,)), absmax=array(2)),
        dict(x=array(4, 3), codes=codes((2, 4)), absmax=array(2)),
        dict(x=array(4, 3), codes=codes((2, 3)), absmax=array(3)),
        dict(x=array(4, 3), codes=codes((2, 3)), absmax=codes((2,))),
        dict(x=array(4, 3), codes=codes((2, 3)), absmax=array(2), bias=array(3)),
        dict(x=array(4, 3), codes=codes((2, 3)), absmax=array(2), threshold=0.0),
        dict(x=array(4, 3), codes=codes((2, 3)), absmax=array(2), threshold=math.nan),
        dict(x=array(4, 3), codes=None, absmax=array(2)),
        dict(x=array(4, 3), codes=codes((2, 3)), absmax=None),
        dict(x=array(1, 131072), codes=codes((1, 131072)), absmax=array(1)),
    ],
)
def llm_int8_linear(draw):
    *lead, width = draw(dims())
    if not draw.edges and draw(one_of(False, False, True)):
        lead, width = [2, 2], draw(one_of(300, 1100))
    outputs = draw(size(0, 6))
    if not draw.ordinary and draw(flag()):
        return dict(x=at_the_threshold((*lead, width)), codes=codes((outputs, width)), absmax=array(outputs, low=0.5, high=2.0))
    return dict(x=_x(draw, (*lead, width)), bias=draw(left_out(maybe(array(outputs)))), codes=codes((outputs, width)),
                absmax=array(outputs, low=0.5, high=2.0), threshold=draw(_threshold))


def _is_the_linear_layer_of_its_weight(side, module, x, noise=None):
    """With everything an outlier nothing of x is rounded."""
    linear = side.get("ops.linear")
    module.threshold = 1e-300 if side.precision == "float64" else 1e-40
    y = module(x)
    want = linear(x, module.weight, module.bias)
    yield "y", y, want[0] if side.name == "numpy" else want


def _replaces_a_linear_layer(side, module, x, noise=None):
    made = type(module).from_linear(types.SimpleNamespace(weight=module.weight, bias=module.bias))
    yield "threshold", np.array(made.threshold), np.array(6.0)
    yield "codes", made.codes, side.get("quantize.quantize_int8_absmax")(module.weight).codes
    yield "weight", made.weight, side.get("quantize.dequantize_int8_absmax")(made.codes, absmax=made.absmax, dtype=side.dtype)
    if side.name == "numpy":
        linear = side.get("layers.Linear")(4, 3)
        trained = [list(type(module).from_linear(linear).parameters()), list(type(module).from_linear(linear.freeze()).parameters())]
        yield "what is trained, and what of a frozen layer", trained == [["bias"], []], True
    made.threshold = module.threshold
    yield "y", made(x), type(module).from_linear(made, threshold=module.threshold)(x)


@case(
    "quantize.Linear8bit",
    skip=_ROUNDS,
    fill={"codes": codes(()), "absmax": array(low=0.5, high=2.0)},
    also=[_is_the_linear_layer_of_its_weight, _replaces_a_linear_layer],
    bench=dict(init=dict(in_features=4096, out_features=4096), call=dict(x=array(512, 4096))),
    refuses=[
        dict(init=dict(in_features=0, out_features=2)),
        dict(init=dict(in_features=2, out_features=0)),
        dict(init=dict(in_features=2, out_features=2, threshold=0.0)),
        dict(init=dict(in_features=3, out_features=2), call=dict(x=array(4, 2))),
        dict(init=dict(in_features=3, out_features=2), call=dict(x=array())),
        dict(init=dict(in_features=3, out_features=2), call=dict(x=codes((4, 3)))),
    ],
)
def linear_8bit(draw):
    *lead, width = draw(dims(min_last=1))
    outputs = draw(size(8, 12) if draw.ordinary else size())
    init = dict(in_features=width, out_features=outputs, bias=draw(left_out(flag())), threshold=draw(_threshold))
    return dict(init=init, call=dict(x=_x(draw, (*lead, width))))


