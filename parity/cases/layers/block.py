"""What a block is fed: both norms, both orders, gated and ungated, every dropout, causal and masked."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, one_of, size


@case(
    "layers.Block",
    bench=dict(init=dict(d_model=256, n_heads=4, d_hidden=1024), call=dict(x=array(8, 128, 256), causal=True)),
    # well-conditioned: branches smaller than the skip, norms near 1
    fill={"proj.weight": array(scale=0.3), "norm1.weight": array(low=0.5, high=1.5), "norm2.weight": array(low=0.5, high=1.5)},
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
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    width = heads * (draw(integer(4, 6)) if draw.ordinary else 1 if draw.edges else draw(integer(3, 4)))
    share = one_of(0.1, 0.3, 0.5)
    return dict(
        init=dict(
            d_model=width, n_heads=heads, d_hidden=draw(size()), norm=draw(left_out(one_of("layer", "rms"))),
            order=draw(left_out(one_of("pre", "post"))), activation=draw(left_out(one_of("gelu_tanh", "relu", "swiglu", "geglu"))),
            bias=draw(left_out(flag())), eps=draw(left_out(one_of(1e-5, 1e-2))), dropout=draw(left_out(share)),
            attention_dropout=draw(left_out(share)), hidden_dropout=draw(left_out(share)),
        ),
        call=dict(
            x=array(*lead, t, width, scale=draw(one_of(1.0, 1e-2))), mask=draw(left_out(maybe(mask(t, t)))), causal=draw(left_out(flag())),
            noise=draw(one_of(left_out(None), noise())),
        ),
    )
