"""What random_bits is fed: every rank, size 0, counts that are no multiple of four, several blocks of counters, parts; exact bits."""

from parity.cases import case, dims, integer, left_out, noise, one_of


@case(
    "ops.random_bits",
    gradient=False,
    refuses=[
        dict(noise=None, shape=(2, 3)),
        dict(noise=noise(), shape=6),
        dict(noise=noise(), shape=(2, -1)),
        dict(noise=noise(), shape=(2.0,)),
        dict(noise=noise(), shape=((1 << 34) + 1,)),
        dict(noise=noise(), shape=(1 << 20, 1 << 20)),
        dict(noise=noise(), shape=(2, 3), part=((0, 1),)),
        dict(noise=noise(), shape=(2, 3), part=((0, 1), (1, 4))),
        dict(noise=noise(), shape=(2, 3), part=((2, 1), (0, 3))),
        dict(noise=noise(), shape=(2, 3), part=((0, 1), (-1, 3))),
        dict(noise=noise(), shape=(3,), part=(2,)),
    ],
    equivalent={
        "length + 6 -> length + 7": "one counter more is encrypted than needed",
        "_BLOCKS = 16384 -> _BLOCKS = 16385": "the bits do not depend on how many counters are worked on together",
    },
    bench=dict(noise=noise(), shape=(4096, 768)),
)
def random_bits(draw):
    shape = draw(dims(min_rank=0, max_rank=4))
    shape = draw(one_of(shape, shape, (5, 7), (2, 32771)))
    part = tuple((draw(integer(0, n // 2)), draw(integer((n + 1) // 2, n))) for n in shape)
    return dict(noise=draw(noise()), shape=shape, part=draw(one_of(left_out(None), part, part)))
