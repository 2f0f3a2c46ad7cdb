"""What a Llama's block is fed: every sharing of heads, rotary, norms of queries and keys, biases, windows, both dropouts."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, one_of, size
from parity.cases.decode import _splits
from parity.cases.layers._told import plain, with_experts


def plain_block(side, module, x, rotary=None, mask=None, causal=False, noise=None):
    """With a key head for every query head and nothing of its own, it is the block with RMS norms and a gated mlp."""
    attn, mlp = module.attn, module.mlp
    plain = rotary is None and attn.window is None and attn.q_norm is None and attn.n_heads == attn.n_kv_heads
    biased = {layer.bias is not None for layer in (attn.q_proj, attn.o_proj, mlp.up_proj)}
    if not plain or len(biased) > 1 or attn.n_heads * attn.head_width != x.shape[-1]:
        return
    other = side.get("layers.Block")(
        x.shape[-1], attn.n_heads, mlp.up_proj.weight.shape[0], norm="rms", activation=mlp.activation, bias=biased.pop(),
        eps=module.norm1.eps, dropout=module.dropout, attention_dropout=attn.dropout, dtype=side.dtype,
    )
    side.load(other, {name: side.numpy(value) for name, value in module.state_dict().items()})
    yield "the block", module(x, mask=mask, causal=causal, noise=noise), other(x, mask=mask, causal=causal, noise=noise)


def sees_all(side, module, x, rotary=None, mask=None, **options):
    """By default a query sees what comes after it as well."""
    yield "not causal", module(x, rotary=rotary, mask=mask), module(x, rotary=rotary, mask=mask, causal=False)


def goes_on(side, module, x, rotary=None, mask=None, **options):
    """Beside a cache it is what it is of the whole text, with angles and a mask where the example has them."""
    window = module.attn.window
    yield from _splits.layer(
        side, module, x, window=None if window is None else window[0] + 1, half=None if rotary is None else rotary[0].shape[-1],
        masked=mask is not None,
    )


@case(
    "layers.LlamaBlock",
    bench=dict(init=dict(d_model=256, n_heads=8, d_hidden=768, n_kv_heads=2), call=dict(x=array(8, 128, 256), causal=True)),
    # well-conditioned: branches smaller than the skip, norms near 1
    fill={"proj.weight": array(scale=0.3), "_proj": array(scale=0.3, hostile=False), "router.weight": array(scale=0.3, hostile=False),
          "norm1.weight": array(low=0.5, high=1.5), "norm2.weight": array(low=0.5, high=1.5),
          "norm.weight": array(low=0.5, high=1.5)},
    build=with_experts("layers.LlamaBlock"),
    also=[plain(plain_block), plain(sees_all), goes_on],
    refuses=[
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, dropout=2.0)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, attention_dropout=2.0)),
        dict(init=dict(d_model=4, n_heads=3, d_hidden=8)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, n_kv_heads=3)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=0)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, activation="gelu")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, attention_bias="o")),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8, window=3)),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8), call=dict(x=array(3, 5))),
        dict(init=dict(d_model=4, n_heads=2, d_hidden=8), call=dict(x=array(4))),
    ],
)
def llama_block(draw):
    *lead, t = draw(dims(1, 2))
    kv_heads = draw(integer(1, 2))
    heads = kv_heads * draw(integer(1, 2))
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    head_width = draw(integer(4, 6)) if draw.ordinary else 1 if draw.edges else draw(integer(3, 4))
    own_width = draw(flag())
    width = draw(integer(4, 8)) if own_width else heads * head_width
    half = draw(integer(0, head_width // 2))
    table = (array(t, half, low=-1.0, high=1.0), array(t, half, low=-1.0, high=1.0))
    share = one_of(0.1, 0.3, 0.5)
    return dict(
        init=dict(
            experts=draw(one_of(None, None, 2)),
            d_model=width, n_heads=heads, d_hidden=draw(size()), n_kv_heads=kv_heads if kv_heads != heads else draw(left_out(maybe(heads))),
            head_width=head_width if own_width else draw(left_out(maybe(head_width))),
            attention_bias=draw(left_out(one_of(False, True, "qkv"))), mlp_bias=draw(left_out(flag())), qk_norm=draw(left_out(flag())),
            window=draw(left_out(maybe((draw(integer(0, 2)), 0)))), activation=draw(left_out(one_of("swiglu", "geglu", "reglu"))),
            eps=draw(left_out(one_of(1e-5, 1e-2))), dropout=draw(left_out(share)), attention_dropout=draw(left_out(share)),
        ),
        call=dict(
            x=array(*lead, t, width, scale=1.0 if draw.ordinary else draw(one_of(1.0, 1e-2))), rotary=draw(left_out(maybe(table))),
            mask=draw(left_out(maybe(mask(t, t)))), causal=draw(left_out(flag())), noise=draw(one_of(left_out(None), noise())),
        ),
    )
