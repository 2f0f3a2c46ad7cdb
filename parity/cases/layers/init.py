"""What initialisers are fed: every shape from a matrix to a kernel, every gain; draws are also held to their formulas, seed by seed."""

import math

import numpy as np

from parity.cases import case, dims, integer, left_out, number, one_of


def _fan(shape, mode):
    """By the definition: the entries that one output is summed from, or that one input goes to."""
    return int(np.prod(np.delete(shape, 0 if mode == "fan_in" else 1)))


def _kaiming_std(shape, a=0.0, mode="fan_in", nonlinearity="leaky_relu"):
    square = {"linear": 1, "sigmoid": 1, "tanh": 25 / 9, "relu": 2, "leaky_relu": 2 / (1 + a**2), "selu": 9 / 16}[nonlinearity]
    return (square / _fan(shape, mode)) ** 0.5


def _xavier_std(shape, gain=1.0):
    return gain * (2 / (_fan(shape, "fan_in") + _fan(shape, "fan_out"))) ** 0.5


def scaled_draws(component, std, draws):
    """The NumPy side's values are those of its generator, scaled: exact, where a comparison of distributions is not."""

    def same_draws(side, shape, **options):
        if side.name == "numpy" and 0 not in shape:
            w = side.get(component)(shape, **options, dtype=side.dtype, rng=np.random.default_rng(5))
            yield "w", w, std(shape, **options) * draws(np.random.default_rng(5), shape)
            yield "dtype", side.get(component)(shape, **options).dtype == np.float32, True

    return [same_draws]


def _unit_uniform(rng, shape):
    return math.sqrt(12) * (rng.random(shape) - 0.5)


def _unit_normal(rng, shape):
    return rng.standard_normal(shape)


def _kaiming(draw):
    shape = draw(dims(min_rank=2, max_rank=4))
    return dict(shape=shape, a=draw(left_out(number(-1, 1))), mode=draw(left_out(one_of("fan_in", "fan_out"))),
                nonlinearity=draw(left_out(one_of("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"))))


def _scaled(draw):
    return dict(shape=draw(dims(min_rank=2, max_rank=4)), gain=draw(left_out(number(0.1, 3))))


KAIMING_REFUSES: list[dict] = [
    dict(shape=(3,)),
    dict(shape=12),
    dict(shape=(3, -1)),
    dict(shape=(3, 2.0)),
    dict(shape=(3, 2), a=math.nan),
    dict(shape=(3, 2), mode="fan_inn"),
    dict(shape=(3, 2), nonlinearity="gelu"),
]
SCALED_REFUSES: list[dict] = [dict(shape=(3,)), dict(shape=12), dict(shape=(3, -1)), dict(shape=(3, 2.0)), dict(shape=(3, 2), gain=-1.0)]


@case("layers.kaiming_uniform", kind="initialiser", refuses=KAIMING_REFUSES,
      also=scaled_draws("layers.kaiming_uniform", _kaiming_std, _unit_uniform))
def kaiming_uniform(draw):
    return _kaiming(draw)


@case("layers.kaiming_normal", kind="initialiser", refuses=KAIMING_REFUSES,
      also=scaled_draws("layers.kaiming_normal", _kaiming_std, _unit_normal))
def kaiming_normal(draw):
    return _kaiming(draw)


@case("layers.xavier_uniform", kind="initialiser", refuses=SCALED_REFUSES,
      also=scaled_draws("layers.xavier_uniform", _xavier_std, _unit_uniform))
def xavier_uniform(draw):
    return _scaled(draw)


@case("layers.xavier_normal", kind="initialiser", refuses=SCALED_REFUSES,
      also=scaled_draws("layers.xavier_normal", _xavier_std, _unit_normal))
def xavier_normal(draw):
    return _scaled(draw)


def cut_at_the_ends(side, shape, **options):
    """Many draws reach close to both ends and not beyond; where the ends are far away, the NumPy side's draws are scaled normals."""
    many = side.numpy(side.get("layers.truncated_normal")((100_000,), **options, dtype=side.dtype))
    low, high = options.get("low", -2.0), options.get("high", 2.0)
    yield "inside", low <= many.min() and many.max() <= high, True
    yield "close to the ends", max(many.min() - low, high - many.max()) < 0.05, True
    if side.name == "numpy":
        far = options | dict(low=-1e3, high=1e3, dtype=side.dtype, rng=np.random.default_rng(5))
        draws = np.random.default_rng(5).standard_normal(shape)
        yield "w", side.get("layers.truncated_normal")(shape, **far), options.get("mean", 0.0) + options.get("std", 1.0) * draws
        yield "dtype", side.get("layers.truncated_normal")(shape, **options).dtype == np.float32, True


@case(
    "layers.truncated_normal",
    kind="initialiser",
    bench=dict(shape=(4096, 768)),
    also=[cut_at_the_ends],
    equivalent={
        "w[outside] < low -> w[outside] <= low": "the probability of drawing just the end is 0",
        "w[outside] > high -> w[outside] >= high": "the probability of drawing just the end is 0",
    },
    refuses=[
        dict(shape=12),
        dict(shape=(3, -1)),
        dict(shape=(3,), std=0.0),
        dict(shape=(3,), mean=math.inf),
        dict(shape=(3,), low=-math.inf),
        dict(shape=(3,), low=2.0),
        dict(shape=(3,), mean=4.5),
        dict(shape=(3,), mean=-4.5),
    ],
)
def truncated_normal(draw):
    shape = (*draw(dims(min_rank=0, max_rank=3)), draw(integer(20, 40)))
    return dict(shape=shape, mean=draw(left_out(number(-0.5, 0.5))), std=draw(left_out(number(1, 2))),
                low=draw(left_out(number(-2.2, -1))), high=draw(left_out(number(1, 2.2))))


def orthonormal(side, shape, **options):
    """w · wᵀ or wᵀ · w is gain² · 1, and on the NumPy side Qᵀ turns the draws into a triangle with a positive diagonal."""
    if 0 in shape:
        return
    rng = np.random.default_rng(5) if side.name == "numpy" else None
    w = side.numpy(side.get("layers.orthogonal")(shape, **options, dtype=side.dtype, rng=rng)).reshape(shape[0], -1)
    w = w.T if w.shape[0] < w.shape[1] else w
    yield "wᵀ · w", w.T @ w, options.get("gain", 1.0) ** 2 * np.eye(w.shape[1])
    if side.name == "numpy":
        r = w.T @ np.random.default_rng(5).standard_normal(w.shape)
        yield "the triangle", np.tril(r), np.diag(np.abs(np.diag(r)))
        yield "dtype", side.get("layers.orthogonal")(shape).dtype == np.float32, True


@case("layers.orthogonal", kind="initialiser", refuses=SCALED_REFUSES, also=[orthonormal])
def orthogonal(draw):
    return _scaled(draw)
