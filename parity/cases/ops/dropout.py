"""What dropout and stochastic depth are fed: nothing, a share and everything dropped, with noise and without, a word on the threshold."""

from byhand.noise import Noise
from parity.cases import array, case, dims, left_out, noise, one_of

_EQUIVALENT = {
    "0.0 if p == 1 else 1 / (1 - p) -> 1.0 if p == 1 else 1 / (1 - p)": "where everything is dropped, nothing is left to grow",
}


def drawn(draw, default):
    """p and a stream. On the threshold, round(p · 2³²) is the stream's first word, whose entry is therefore kept."""
    return draw(one_of(
        dict(default, noise=draw(noise())),
        dict(p=draw(one_of(0.1, 0.3, 0.75)), noise=draw(noise())),
        dict(p=1.0, noise=draw(noise())),
        dict(p=0.0, noise=draw(noise())),
        dict(p=0x6627E8D5 / 2**32, noise=Noise(seed=0)),
        dict(p=0.3, noise=draw(left_out(None))),
    ))


@case(
    "ops.dropout",
    refuses=[dict(x=array(2, 3), p=-0.1), dict(x=array(2, 3), p=1.5, noise=noise()), dict(x=array(2, 3), p=float("nan"))],
    equivalent=_EQUIVALENT,
)
def dropout(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0, max_rank=4)))), **drawn(draw, dict()))


@case(
    "ops.drop_path",
    refuses=[dict(x=array(), p=0.5), dict(x=array(2, 3), p=-0.1), dict(x=array(2, 3), p=1.5, noise=noise())],
    equivalent=_EQUIVALENT,
)
def drop_path(draw):
    return dict(x=draw(array(*draw(dims(min_rank=1, max_rank=4)))), **drawn(draw, dict(p=0.5)))
