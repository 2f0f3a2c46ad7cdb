"""What a decoder's block is fed: contexts of their own length and width, every order, every dropout, biased, causal, both masks."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.decode import _splits
from parity.cases.layers._told import with_experts


def goes_on(side, module, x, context, bias=None, mask=None, context_mask=None, **options):
    """Beside a cache it is what it is of the whole text and of the context, which is read once."""
    rng = _splits.rng_of(side, x, context)
    read = dict(context=rng.standard_normal((3, *context.shape[-2:])))
    if context_mask is not None:
        read["context_mask"] = rng.random((3, 1, 1, context.shape[-2])) < 0.7
    yield from _splits.layer(
        side, module, x, heads=None if bias is None else module.attn.n_heads, masked=mask is not None, context=read
    )


@case(
    "layers.CrossBlock",
    bench=dict(
        init=dict(d_model=256, n_heads=4, d_hidden=1024), call=dict(x=array(8, 128, 256), context=array(8, 128, 256), causal=True)
    ),
    # well-conditioned: branches smaller than the skip, norms near 1
    build=with_experts("layers.CrossBlock"),
    also=[goes_on],
    fill={"proj.weight": array(scale=0.3), "_proj": array(scale=0.3, hostile=False), "router.weight": array(scale=0.3, hostile=False), **{
        f"{norm}.weight": array(low=0.5, high=1.5) for norm in ("norm1", "norm2", "norm_cross", "norm1_after", "norm2_after", "cross_after")
    }},
    refuses=[
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, order="parallel")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, norm="batch")),
        dict(init=dict(d_model=4, n_heads=3, d_hidden=8)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, d_context=0)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8), call=dict(x=array(3, 4), context=array(3, 5))),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8), call=dict(x=array(2, 3, 4), context=array(3, 3, 4))),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8), call=dict(x=array(3, 4), context=array(2, 4), context_mask=mask(2, 3))),
    ],
)
def cross_block(draw):
    *lead, t = draw(dims(1, 2))
    s = draw(size(0, 5))
    heads = draw(integer(1, 3))
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    width = heads * (draw(integer(4, 6)) if draw.ordinary else 1 if draw.edges else draw(integer(3, 4)))
    d_context = draw(left_out(maybe(size())))
    order = draw(left_out(one_of("pre", "post", "sandwich", "none")))
    share = one_of(0.1, 0.3, 0.5)
    return dict(
        init=dict(
            experts=draw(one_of(None, None, 2)),
            d_model=width, n_heads=heads, d_hidden=draw(size()), d_context=d_context, norm=draw(left_out(one_of("layer", "rms"))),
            order=order, activation=draw(left_out(one_of("relu", "geglu"))), bias=draw(left_out(flag())),
            eps=draw(left_out(one_of(1e-5, 1e-2))), dropout=draw(left_out(share)), attention_dropout=draw(left_out(share)),
            hidden_dropout=draw(left_out(share)), head_width=draw(left_out(maybe(size(1, 4)))),
            scale=draw(left_out(maybe(number(-1, 1) if draw.ordinary else number(-1, 2)))),
            alpha=draw(left_out(number(0.5, 3))) if order == "post" else draw(left_out(1.0)),
            beta=draw(left_out(maybe(number(0, 1)))),
        ),
        call=dict(
            x=array(*lead, t, width, scale=1.0 if draw.ordinary else draw(one_of(1.0, 1e-2))),
            context=array(*lead, s, d_context if isinstance(d_context, int) else width, hostile=False),
            bias=draw(left_out(maybe(array(*draw(one_of((t, t), (heads, 1, t))))))), mask=draw(left_out(maybe(mask(t, t)))),
            context_mask=draw(left_out(maybe(mask(t, s)))), causal=draw(left_out(flag())), noise=draw(one_of(left_out(None), noise())),
        ),
    )
