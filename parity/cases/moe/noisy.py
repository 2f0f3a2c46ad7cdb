"""What the router's noise is fed: any shape, with a stream and without one; amounts up to all, and none."""

from byhand.noise import Noise
from parity.cases import array, case, dims, ids, left_out, noise, one_of


@case(
    "moe.noisy_logits",
    bench=dict(logits=array(4096, 64), spread=array(4096, 64), noise=noise()),
    refuses=[
        dict(logits=array(2, 3), spread=array(3)),
        dict(logits=array(2, 3), spread=array(2, 1), noise=noise()),
        dict(logits=ids(2, 3, below=3), spread=array(2, 3)),
        dict(logits=array(2, 3), spread=ids(2, 3, below=3)),
    ],
)
def noisy_logits(draw):
    shape = draw(dims(0, 4))
    nearly_nothing = Noise(seed=0, step=530795178)       # its first word is 9 of 2³², far out in the tail of the normal
    return dict(logits=array(*shape), spread=array(*shape), noise=draw(one_of(noise(), noise(), nearly_nothing, left_out(None))))


@case(
    "moe.jitter",
    bench=dict(x=array(4096, 768), eps=0.01, noise=noise()),
    refuses=[
        dict(x=ids(2, 3, below=3), eps=0.1),
        dict(x=array(2, 3), eps=-0.1),
        dict(x=array(2, 3), eps=1.1, noise=noise()),
        dict(x=array(2, 3), eps=float("nan")),
    ],
)
def jitter(draw):
    return dict(x=array(*draw(dims(0, 4))), eps=draw(one_of(0.01, 0.1, 1.0, 0.0)), noise=draw(one_of(noise(), noise(), left_out(None))))
