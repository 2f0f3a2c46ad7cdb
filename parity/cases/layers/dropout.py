"""What the dropout layers are fed: shares from nothing to everything, with noise and without."""

from parity.cases import array, case, dims, left_out, noise, one_of

_STREAM = one_of(noise(), noise(), left_out(None))


@case("layers.Dropout", refuses=[dict(init=dict(p=1.1)), dict(init=dict(p=-0.1)), dict(init=dict(p="half"))])
def dropout(draw):
    x = draw(array(*draw(dims(min_rank=1, max_rank=4))))
    return dict(init=draw(one_of(dict(), dict(p=0.2), dict(p=1.0), dict(p=0))), call=dict(x=x, noise=draw(_STREAM)))


@case("layers.DropPath", refuses=[dict(init=dict(p=1.1)), dict(init=dict(p=-0.1)), dict(init=dict(p=0.5), call=dict(x=array()))])
def drop_path(draw):
    x = draw(array(*draw(dims(min_rank=1, max_rank=4))))
    return dict(init=dict(p=draw(one_of(0.5, 0.2, 1.0, 0))), call=dict(x=x, noise=draw(_STREAM)))
