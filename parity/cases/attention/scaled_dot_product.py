"""What attention is fed: equal and unequal lengths, biases and masks of every broadcast, rows that see nothing, several strips of queries."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size


def broadcast(draw, *shape):
    """A shape that broadcasts to `shape`: leading axes left out, others of size 1."""
    kept = shape[draw(integer(0, len(shape) - 1)):]
    return [draw(one_of(n, 1)) for n in kept]


@case(
    "attention.scaled_dot_product",
    refuses=[
        dict(query=array(3), key=array(2, 4), value=array(2, 4)),
        dict(query=array(2, 3, 4), key=array(3, 4), value=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 5), value=array(3, 5)),
        dict(query=array(3, 4), key=array(3, 4), value=array(2, 4)),
        dict(query=array(2, 3, 4), key=array(2, 3, 4), value=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), bias=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), mask=mask(2, 3, 3)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), mask=array(3, 3)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), scale=float("nan")),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), soft_cap=0.0),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), dropout=1.5),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), dropout=-0.1),
    ],
)
def scaled_dot_product(draw):
    lead, e, w = draw(dims(0, 2)), draw(size(0, 5)), draw(size(0, 5))
    t, s = draw(size(0, 6)), draw(size(0, 6))
    if not draw.ordinary and not draw.edges and draw(integer(0, 4)) == 0:
        lead, t, s = (), *draw(one_of((130, 130), (70, 200), (140, 66)))
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        bias=draw(left_out(maybe(array(*broadcast(draw, *lead, t, s))))),
        mask=draw(left_out(maybe(mask(*broadcast(draw, *lead, t, s))))),
        causal=draw(left_out(flag())),
        scale=draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(left_out(maybe(number(0.5, 20)))),
        dropout=draw(left_out(one_of(0.0, 0.3, 0.5, 1.0))),
        noise=draw(left_out(maybe(noise()))),
    )
