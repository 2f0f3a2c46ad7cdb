"""What straight-through functions are fed: scales below and far below the numbers, every axis, codes of 2 to 16 bits, ties."""

import dataclasses

import numpy as np

from parity.cases import array, case, dims, flag, left_out, maybe, one_of
from parity.cases.quantize.int8 import codes
from parity.values import Filled

_ROUNDS = {"witness": "the output is constant between jumps; the gradient is the straight-through estimator's"}

_EQUIVALENT = {
    f"x.shape[:-1] -> x.shape[{other}]": "with one scale for everything it does not matter where the rows end" for other in (":1", ":0")
}


class halves(Filled):
    """Multiples of one eighth: with a scale of 1/4 every second one lies between two codes, some on the last."""

    def make(self, rng, hostility):
        return np.asarray(rng.integers(-24, 25, self.shape) / 8)


class quarters(Filled):
    """Scales of 1/4."""

    def make(self, rng, hostility):
        return np.full(self.shape, 0.25)


@dataclasses.dataclass(frozen=True)
class zero_points(Filled):
    """Any codes from low to high."""

    low: int = 0
    high: int = 1

    def make(self, rng, hostility):
        return np.asarray(rng.integers(self.low, self.high + 1, self.shape))


def _draw(draw):
    """(x, scale, the options)."""
    axis = draw(one_of(None, "first", "last", "any"))
    shape = draw(dims(min_rank=0 if axis is None else 1))
    if not draw.ordinary and not draw.edges and draw(flag()):   # where a sum over jumps may be ill-conditioned
        shape = draw(one_of((5, 7001), (7001, 5), (2, 3, 5601)))
    if axis is not None:
        axis = {"first": 0, "last": -1, "any": draw(one_of(*range(-len(shape), len(shape))))}[axis]
    of_scales = () if axis is None else (shape[axis],)
    x, scale = array(*shape, scale=draw(one_of(1.0, 1.0, 20.0))), array(*of_scales, low=0.02, high=0.6)
    bits = left_out(one_of(2, 3, 4, 8, 16))
    if not draw.ordinary and draw(flag()):
        x, scale, bits = halves(shape), quarters(of_scales), one_of(2, 3, 4)
    options = dict(bits=draw(bits), signed=draw(left_out(flag())))
    return x, scale, options | dict(axis=draw(left_out(None)) if axis is None else axis)


_REFUSES: list[dict] = [
    dict(x=codes((2, 3)), scale=array(low=0.1, high=0.2)),
    dict(x=array(2, 3), scale=np.array(1)),
    dict(x=array(2, 3), scale=np.array(0.0)),
    dict(x=array(2, 3), scale=np.array(-1.0)),
    dict(x=array(2, 3), scale=np.array(np.nan)),
    dict(x=array(2, 3), scale=np.array(np.inf)),
    dict(x=array(2, 3), scale=np.array(-0.0)),
    dict(x=array(2, 3), scale=array(2, low=0.1, high=0.2)),
    dict(x=array(2, 3), scale=array(3, low=0.1, high=0.2), axis=0),
    dict(x=array(2, 3), scale=array(3, low=0.1, high=0.2), axis=2),
    dict(x=array(2, 3), scale=array(3, low=0.1, high=0.2), axis="rows"),
    dict(x=array(2, 3), scale=array(low=0.1, high=0.2), bits=1),
    dict(x=array(2, 3), scale=array(low=0.1, high=0.2), bits=17),
    dict(x=array(2, 3), scale=array(low=0.1, high=0.2), bits=4.0),
    dict(x=array(2, 3), scale=array(low=0.1, high=0.2), signed="no"),
]


def _a_scale_needs_a_reciprocal(name):
    """Subnormal scales may do, and may not."""

    def law(side, x, scale, **options):
        for exponent, fits in ((1, True), (-1, False)):
            edge = 1 / np.finfo(side.precision).max
            step = side.array(np.array(edge * 1.5**exponent))
            try:
                side.get(name)(side.array(np.ones(2)), scale=step)
                taken = True
            except ValueError:
                taken = False
            yield f"a scale of {step} is taken", taken, fits

    return law


@case(
    "quantize.fake_quantize",
    also=[_a_scale_needs_a_reciprocal("quantize.fake_quantize")],
    skip=_ROUNDS,
    equivalent=_EQUIVALENT,
    fixed={"scale": "given; learned_step_quantize trains it"},
    bench=dict(x=array(4096, 768), scale=array(4096, low=0.02, high=0.6), axis=0),
    refuses=[
        *_REFUSES,
        dict(x=array(2, 3), scale=array(low=0.1, high=0.2), zero_point=array()),
        dict(x=array(2, 3), scale=array(low=0.1, high=0.2), zero_point=3),
        dict(x=array(2, 3), scale=array(low=0.1, high=0.2), zero_point=np.array([1, 2])),
        dict(x=array(2, 3), scale=array(low=0.1, high=0.2), zero_point=np.array(128)),
        dict(x=array(2, 3), scale=array(low=0.1, high=0.2), zero_point=np.array(-1), signed=False),
        dict(x=array(2, 3), scale=array(2, low=0.1, high=0.2), zero_point=np.array(1), axis=0),
    ],
)
def fake_quantize(draw):
    x, scale, options = _draw(draw)
    bits = options["bits"] if isinstance(options["bits"], int) else 8
    low, high = (0, 2**bits - 1) if options["signed"] is False else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return dict(x=x, scale=scale, zero_point=draw(left_out(maybe(zero_points(scale.shape, low, high)))), **options)


def _at_the_ends_of_the_range_nothing_passes(side, x, scale, bits=8, signed=True, axis=None, scaled_gradient=True):
    """The paper's inequalities are strict; a gate that allows for a perturbed input cannot tell."""
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1]) / 4
    x, step, ones = side.array(ends), side.array(np.array(0.25)), side.array(np.ones(2))
    quantize = side.get("quantize.learned_step_quantize")
    if side.name == "numpy":
        dx, _ = quantize(x, step, bits=bits, signed=signed)[1](ones)
    else:
        quantize(x.requires_grad_(), step, bits=bits, signed=signed).backward(ones)
        dx = x.grad
    yield "dx", dx, np.zeros(2)


@case(
    "quantize.learned_step_quantize",
    also=[_at_the_ends_of_the_range_nothing_passes, _a_scale_needs_a_reciprocal("quantize.learned_step_quantize")],
    skip=_ROUNDS,
    equivalent=_EQUIVALENT,
    bench=dict(x=array(4096, 768), scale=array(4096, low=0.02, high=0.6), axis=0),
    refuses=[*_REFUSES, dict(x=array(2, 3), scale=array(low=0.1, high=0.2), scaled_gradient="no")],
)
def learned_step_quantize(draw):
    x, scale, options = _draw(draw)
    return dict(x=x, scale=scale, scaled_gradient=draw(left_out(flag())), **options)


@case(
    "quantize.learned_step_start",
    gradient=False,
    equivalent=_EQUIVALENT,
    bench=dict(x=array(4096, 768), axis=0),
    refuses=[
        dict(x=codes((2, 3))),
        dict(x=array(2, 3), axis=2),
        dict(x=array(2, 3), bits=1),
        dict(x=np.array([1.0, np.inf])),
        dict(x=np.array([1e308, 1e308])),
        dict(x=np.array([[1.0, np.nan]]), axis=0),
    ],
)
def learned_step_start(draw):
    x, _, options = _draw(draw)
    return dict(x=x, **options)
