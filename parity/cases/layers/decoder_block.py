"""What the decoder's block is fed: norms before, after and nowhere, both kinds, gated and ungated, every choice of attention."""

from parity.cases import array, case, dims, flag, integer, left_out, maybe, noise, one_of
from parity.cases.decode import _splits
from parity.cases.layers._told import with_experts
from parity.cases.layers.decoder_attention import attention_options


def goes_on(side, module, x, **options):
    """Beside a cache it is what it is of the whole text."""
    yield from _splits.layer(side, module, x, window=module.attn.window, says_causal=False)


_INIT = dict(d_model=4, n_heads=2, d_hidden=8)


@case(
    "layers.DecoderBlock",
    bench=dict(init=dict(d_model=256, n_heads=4, d_hidden=1024), call=dict(x=array(8, 128, 256))),
    # well-conditioned: branches smaller than the skip, norms near 1
    fill={"proj.weight": array(scale=0.3), "_proj": array(scale=0.3, hostile=False), "router.weight": array(scale=0.3, hostile=False),
          "norm1.weight": array(low=0.5, high=1.5), "norm2.weight": array(low=0.5, high=1.5)},
    build=with_experts("layers.DecoderBlock"),
    also=[goes_on],
    refuses=[
        dict(init=_INIT | dict(norm="before")),
        dict(init=_INIT | dict(norm_type="batch")),
        dict(init=_INIT | dict(activation="swigul")),
        dict(init=_INIT | dict(dropout=2.0)),
        dict(init=_INIT | dict(n_heads=3)),
        dict(init=_INIT | dict(d_hidden=0)),
        dict(init=_INIT | dict(attention="window")),
        dict(init=_INIT, call=dict(x=array(3, 5))),
        dict(init=_INIT, call=dict(x=array(4))),
    ],
)
def decoder_block(draw):
    *lead, t = draw(dims(1, 2))
    heads, options = draw(integer(1, 3)), attention_options(draw)
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    width = heads * (2 * draw(integer(2, 3)) if draw.ordinary else 2 if draw.edges else 4)
    return dict(
        init=dict(
            experts=draw(one_of(None, None, 2)),
            d_model=width, n_heads=heads, d_hidden=draw(integer(1, 6)), norm=draw(left_out(one_of("pre", "post", "none"))),
            norm_type=draw(left_out(one_of("layer", "rms"))), bias=draw(left_out(flag())), eps=draw(left_out(one_of(1e-5, 1e-2))),
            activation=draw(left_out(one_of("gelu", "relu", "mish", "swiglu", "geglu"))), dropout=draw(left_out(one_of(0.1, 0.5))),
            **options,
        ),
        call=dict(x=array(*lead, t, width, scale=draw(one_of(1.0, 1e-2)), hostile=False), noise=draw(left_out(maybe(noise())))),
    )
