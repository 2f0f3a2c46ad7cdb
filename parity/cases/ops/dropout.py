"""What dropout and stochastic depth are fed: nothing, a share and everything dropped, with noise and without."""

from parity.cases import array, case, dims, left_out, noise, one_of

_SHARES = one_of(0.1, 0.3, 0.75, 0.0, 1.0)


@case("ops.dropout", refuses=[dict(x=array(2, 3), p=-0.1), dict(x=array(2, 3), p=1.5, noise=noise()), dict(x=array(2, 3), p=float("nan"))])
def dropout(draw):
    stream = one_of(noise(), noise(), noise(), left_out(None))
    return dict(x=draw(array(*draw(dims(min_rank=0, max_rank=4)))), p=draw(left_out(_SHARES)), noise=draw(stream))


@case("ops.drop_path", refuses=[dict(x=array(), p=0.5), dict(x=array(2, 3), p=-0.1), dict(x=array(2, 3), p=1.5, noise=noise())])
def drop_path(draw):
    stream = one_of(noise(), noise(), noise(), left_out(None))
    return dict(x=draw(array(*draw(dims(min_rank=1, max_rank=4)))), p=draw(_SHARES), noise=draw(stream))
