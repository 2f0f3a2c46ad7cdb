"""What the position layers are fed: sequences that start at 0 or later, up to the end of the table."""

import numpy as np

from parity.cases import array, case, dims, ids, integer, left_out, maybe, one_of, size


def anywhere(side, module, x, offset=0, positions=None):
    """Positions one after the other are an offset."""
    if positions is None:
        *lead, t, _ = x.shape
        told = side.array(np.broadcast_to(np.arange(offset, offset + t), (*lead, t)).copy())
        yield "positions", module(x, positions=told), module(x, offset=offset)


_DRAWN = "(rng or np.random.default_rng()).standard_normal((max_length, d_model))"


@case(
    "layers.LearnedPositions",
    bench=dict(init=dict(max_length=1024, d_model=768), call=dict(x=array(4, 1024, 768))),
    refuses=[
        dict(init=dict(max_length=0, d_model=2)),
        dict(init=dict(max_length=2, d_model=0)),
        dict(init=dict(max_length=3, d_model=2), call=dict(x=array(2))),
        dict(init=dict(max_length=3, d_model=2), call=dict(x=array(3, 3))),
        dict(init=dict(max_length=3, d_model=2), call=dict(x=array(4, 2))),
        dict(init=dict(max_length=3, d_model=2), call=dict(x=array(2, 2), offset=2)),
        dict(init=dict(max_length=3, d_model=2), call=dict(x=array(2, 2), offset=-1)),
        dict(init=dict(max_length=3, d_model=2), call=dict(x=array(2, 2), positions=ids(3, below=3))),
        dict(init=dict(max_length=3, d_model=2), call=dict(x=array(2, 2), positions=ids(2, below=5, at_least=3))),
    ],
    also=[anywhere],
    equivalent={f"0.02 * {_DRAWN} -> {d} * {_DRAWN}": "no sample shows so small a change of the deviation" for d in (0.02002, 0.02000002)},
)
def learned_positions(draw):
    *lead, t, d = draw(dims(2, 4, min_last=1))
    offset = draw(one_of(0, integer(1, 3)))
    return dict(
        init=dict(max_length=max(t + offset, 1) + draw(integer(0, 2)), d_model=d),
        call=dict(x=array(*lead, t, d), offset=offset if offset else draw(left_out(0)),
                  positions=draw(left_out(maybe(ids(*lead, t, below=max(t, 1)))))),
    )


@case(
    "layers.SinusoidalPositions",
    bench=dict(init=dict(d_model=768), call=dict(x=array(4, 1024, 768))),
    refuses=[
        dict(init=dict(d_model=0)),
        dict(init=dict(d_model=2), call=dict(x=array(2))),
        dict(init=dict(d_model=2), call=dict(x=array(3, 3))),
        dict(init=dict(d_model=2), call=dict(x=array(3, 2), offset=-1)),
        dict(init=dict(d_model=2), call=dict(x=array(3, 2), positions=array(3))),
        dict(init=dict(d_model=2), call=dict(x=array(3, 2), positions=ids(2, below=5))),
        dict(init=dict(d_model=2), call=dict(x=array(3, 2), positions=ids(3, below=0, at_least=-2))),
    ],
    also=[anywhere],
    equivalent={
        "positions.max(initial=0) -> positions.max(initial=1)": "a table that is longer than it need be",
        "int(positions.max(initial=0)) + 1 -> int(positions.max(initial=0)) + 2": "a table that is longer than it need be",
    },
)
def sinusoidal_positions(draw):
    *lead, t = draw(dims(1, 3))
    d = draw(size())
    return dict(
        init=dict(d_model=d),
        call=dict(x=array(*lead, t, d), offset=draw(left_out(one_of(0, 1, 1000))), positions=draw(left_out(maybe(ids(*lead, t, below=9))))),
    )
