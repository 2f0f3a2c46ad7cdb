"""What the gated feed-forward layer is fed: every gate, with and without biases and dropout."""

from parity.cases import array, case, dims, flag, left_out, maybe, noise, number, one_of, size


@case(
    "layers.GatedFeedForward",
    bench=dict(init=dict(d_model=256, d_hidden=1024), call=dict(x=array(8, 128, 256))),
    refuses=[
        dict(init=dict(d_model=0, d_hidden=2)),
        dict(init=dict(d_model=2, d_hidden=0)),
        dict(init=dict(d_model=2, d_hidden=2, activation="swiglue")),
        dict(init=dict(d_model=2, d_hidden=2, activation="gelu")),
        dict(init=dict(d_model=2, d_hidden=2, dropout=1.5)),
        dict(init=dict(d_model=2, d_hidden=2), call=dict(x=array(2, 3))),
    ],
)
def gated_feed_forward(draw):
    *lead, d = draw(dims(min_last=1))
    return dict(
        init=dict(
            d_model=d, d_hidden=draw(size()),
            activation=draw(left_out(one_of("swiglu", "geglu", "geglu_tanh", "reglu", "glu", "bilinear"))),
            bias=draw(left_out(flag())), dropout=draw(left_out(number(0, 1))),
        ),
        call=dict(x=array(*lead, d), noise=draw(left_out(maybe(noise())))),
    )
