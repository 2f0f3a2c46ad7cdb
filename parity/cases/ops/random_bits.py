"""What random_bits is fed: every rank, size 0, counts that are no multiple of four, more than one block of counters; exact bits."""

from parity.cases import case, dims, noise, one_of


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
    ],
    equivalent={"_BLOCKS = 16384 -> _BLOCKS = 16385": "the bits do not depend on how many counters are worked on together"},
    bench=dict(noise=noise(), shape=(4096, 768)),
)
def random_bits(draw):
    shape = draw(dims(min_rank=0, max_rank=4))
    return dict(noise=draw(noise()), shape=draw(one_of(shape, shape, shape, (2, 32771))))
