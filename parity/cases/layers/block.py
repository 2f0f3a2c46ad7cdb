"""What a block is fed: both norms, every order, gated and ungated, every dropout, biased, causal and masked."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.decode import _splits
from parity.cases.layers._told import plain, with_experts


def starts(side, module, x, **options):
    """With a β the weights start with Xavier's deviation, times β but for queries and keys; on a block large enough to tell."""
    width, hidden, beta = 60, 180, 0.4
    block = side.get("layers.Block")(width, 2, hidden, beta=beta, dtype=side.dtype)
    for name, value in block.state_dict().items():
        if name.endswith("proj.weight"):
            want = (1.0 if name in ("attn.q_proj.weight", "attn.k_proj.weight") else beta) * (2 / sum(value.shape)) ** 0.5
            yield f"deviation of {name}", abs(float(side.numpy(value).std()) / want - 1) < 0.1, True


def goes_on(side, module, x, bias=None, mask=None, **options):
    """Beside a cache it is what it is of the whole text, with a bias and a mask where the example has them."""
    yield from _splits.layer(side, module, x, heads=None if bias is None else module.attn.n_heads, masked=mask is not None)


@case(
    "layers.Block",
    bench=dict(init=dict(d_model=256, n_heads=4, d_hidden=1024), call=dict(x=array(8, 128, 256), causal=True)),
    # well-conditioned: branches smaller than the skip, norms near 1
    fill={"proj.weight": array(scale=0.3), "_proj": array(scale=0.3, hostile=False), "router.weight": array(scale=0.3, hostile=False),
          "norm1.weight": array(low=0.5, high=1.5), "norm2.weight": array(low=0.5, high=1.5),
          "after.weight": array(low=0.5, high=1.5)},
    build=with_experts("layers.Block"),
    also=[plain(starts), goes_on],
    refuses=[
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, norm="batch")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, order="both")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, activation="swigul")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, dropout=2.0)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, order="post", alpha=0.0)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, alpha=2.0)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, beta=-1.0)),
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
    order = draw(left_out(one_of("pre", "post", "sandwich", "parallel", "none")))
    share = one_of(0.1, 0.3, 0.5)
    return dict(
        init=dict(
            experts=draw(one_of(None, None, 2)),
            d_model=width, n_heads=heads, d_hidden=draw(size()), norm=draw(left_out(one_of("layer", "rms"))),
            order=order, activation=draw(left_out(one_of("gelu_tanh", "relu", "swiglu", "geglu"))),
            bias=draw(left_out(flag())), eps=draw(left_out(one_of(1e-5, 1e-2))), dropout=draw(left_out(share)),
            attention_dropout=draw(left_out(share)), hidden_dropout=draw(left_out(share)), head_width=draw(left_out(maybe(size(1, 4)))),
            scale=draw(left_out(maybe(number(-1, 1) if draw.ordinary else number(-1, 2)))),
            alpha=draw(left_out(number(0.5, 3))) if order == "post" else draw(left_out(1.0)),
            beta=draw(left_out(maybe(number(0, 1)))),
        ),
        call=dict(
            x=array(*lead, t, width, scale=1.0 if draw.ordinary else draw(one_of(1.0, 1e-2))),
            bias=draw(left_out(maybe(array(*draw(one_of((t, t), (heads, 1, t))))))),
            mask=draw(left_out(maybe(mask(t, t)))), causal=draw(left_out(flag())),
            noise=draw(one_of(left_out(None), noise())),
        ),
    )
