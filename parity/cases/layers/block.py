"""What a block is fed: both norms, both orders, gated and ungated, every dropout, causal and masked."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size


@case(
    "layers.Block",
    refuses=[
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, norm="batch")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, order="both")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, activation="swigul")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, dropout=2.0)),
        dict(init=dict(d_model=4, n_heads=3, d_hidden=8)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=0)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8), call=dict(x=array(3, 5))),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8), call=dict(x=array(4))),
    ],
)
def block(draw):
    *lead, t = draw(dims(1, 2))
    heads = draw(integer(1, 3))
    width = heads * draw(size(1, 3))
    return dict(
        init=dict(
            d_model=width, n_heads=heads, d_hidden=draw(size()), norm=draw(left_out(one_of("layer", "rms"))),
            order=draw(left_out(one_of("pre", "post"))), activation=draw(left_out(one_of("gelu_tanh", "relu", "swiglu", "geglu"))),
            bias=draw(left_out(flag())), eps=draw(left_out(one_of(1e-5, 1e-2))), dropout=draw(left_out(number(0, 1))),
            attention_dropout=draw(left_out(number(0, 1))), hidden_dropout=draw(left_out(number(0, 1))),
        ),
        call=dict(
            x=array(*lead, t, width), mask=draw(left_out(maybe(mask(t, t)))), causal=draw(left_out(flag())),
            noise=draw(one_of(left_out(None), noise())),
        ),
    )
