"""What capacities are fed: factors on and off whole numbers, minima, no token; every drop order, ties of weights, padding, a full house."""

import numpy as np

from parity.cases import array, case, dims, ids, integer, left_out, mask, maybe, one_of


@case(
    "moe.capacity",
    gradient=False,
    refuses=[
        dict(tokens=-1, experts=2),
        dict(tokens=2.0, experts=2),
        dict(tokens=4, experts=0),
        dict(tokens=4, experts=2, k=0),
        dict(tokens=4, experts=2, minimum=0),
        dict(tokens=4, experts=2, factor=0.0),
        dict(tokens=4, experts=2, factor=-1.0),
        dict(tokens=4, experts=2, factor=float("inf")),
        dict(tokens=4, experts=2, factor=float("nan")),
    ],
)
def capacity(draw):
    return dict(
        tokens=draw(one_of(0, 1, 7, 10, 64, 100)),
        experts=draw(one_of(1, 2, 3, 8, 10)),
        k=draw(left_out(one_of(1, 2, 3))),
        factor=draw(left_out(one_of(1.0, 1.1, 1.25, 0.5, 2, 0.01))),
        minimum=draw(left_out(one_of(1, 4))),
    )


@case(
    "moe.within_capacity",
    gradient=False,
    bench=dict(ids=ids(4096, 2, below=8), experts=8, limit=1280),
    refuses=[
        dict(ids=ids(3, 2, below=4), experts=4, limit=0),
        dict(ids=ids(3, 2, below=4), experts=4, limit=1.5),
        dict(ids=ids(3, 2, below=4), experts=0, limit=1),
        dict(ids=np.array([[0, 4]]), experts=4, limit=1),
        dict(ids=np.array([[0, -1]]), experts=4, limit=1),
        dict(ids=np.array(1), experts=4, limit=1),
        dict(ids=array(3, 2), experts=4, limit=1),
        dict(ids=ids(3, 2, below=4), experts=4, limit=1, order="first"),
        dict(ids=ids(3, 2, below=4), experts=4, limit=1, order="weight"),
        dict(ids=ids(3, 2, below=4), experts=4, limit=1, order="weight", weights=array(3)),
        dict(ids=ids(3, 2, below=4), experts=4, limit=1, weights=ids(3, 2, below=4)),
        dict(ids=ids(1, 2, below=4), experts=4, limit=1, order="weight", weights=np.array([[0.5, np.nan]])),
        dict(ids=ids(3, 2, below=4), experts=4, limit=1, mask=mask(3, 2)),
        dict(ids=ids(3, 2, below=4), experts=4, limit=1, mask=array(3)),
    ],
)
def within_capacity(draw):
    *lead, _ = draw(dims(1, 3))
    many = () if draw.edges else draw(one_of((), (9,)))
    shape, experts = (*lead, *many, draw(integer(1, 3))), draw(integer(1, 4))
    order = draw(one_of("choice", "token", "weight", "weight"))
    weights = array(*shape, low=0.0, high=1.0) if draw.ordinary else np.round(3 * _some(shape)) / 3
    return dict(
        ids=ids(*shape, below=experts),
        experts=experts,
        limit=draw(one_of(1, 2, 3, 5)),
        order=draw(left_out("choice")) if order == "choice" else order,
        weights=weights if order == "weight" else draw(one_of(left_out(None), weights)),
        mask=draw(left_out(maybe(mask(*shape[:-1])))) if len(shape) > 1 else draw(left_out(None)),
    )


def _some(shape):
    return np.modf(np.arange(1, 1 + int(np.prod(shape))) * 0.6180339887)[0].reshape(shape)
