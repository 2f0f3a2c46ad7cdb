"""What latent attention is fed: queries at once and through a latent, every width of its own, both layouts of rotary, masks, dropout."""

import copy

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.decode import _splits


def absorbing_changes_nothing(side, module, x, rotary=None, mask=None, causal=False, noise=None):
    """Attention with the latents themselves is attention with the keys and values that they stand for."""
    other = copy.copy(module)
    other.absorb = not module.absorb
    options = dict(rotary=rotary, mask=mask, causal=causal, noise=noise)
    yield "the other way", module(x, **options), other(x, **options)


def goes_on(side, module, x, rotary=None, mask=None, **options):
    """Beside a cache of latents it is what it is of the whole text."""
    yield from _splits.layer(side, module, x, half=None if rotary is None else rotary[0].shape[-1], masked=mask is not None)


@case(
    "layers.MultiHeadLatentAttention",
    bench=dict(init=dict(d_model=256, n_heads=8, kv_rank=64, head_width=32, rope_width=16, q_rank=96),
               call=dict(x=array(8, 128, 256), causal=True)),
    fill={"norm.weight": array(low=0.5, high=1.5)},
    also=[absorbing_changes_nothing, goes_on],
    refuses=[
        dict(init=dict(d_model=0, n_heads=1, kv_rank=2, head_width=2, rope_width=2)),
        dict(init=dict(d_model=4, n_heads=0, kv_rank=2, head_width=2, rope_width=2)),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=0, head_width=2, rope_width=2)),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=0, rope_width=2)),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2, value_width=0)),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=0)),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=3)),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2, q_rank=0)),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2, dropout=-0.5)),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2, scale=float("nan")), call=dict(x=array(3, 4))),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2, eps=-1.0), call=dict(x=array(3, 4))),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2), call=dict(x=array(4))),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2), call=dict(x=array(3, 5))),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2), call=dict(x=array(3, 4), mask=mask(4, 3))),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2),
             call=dict(x=array(3, 4), rotary=(array(3, 2), array(3, 2)))),
        dict(init=dict(d_model=4, n_heads=1, kv_rank=2, head_width=2, rope_width=2), call=dict(x=array(3, 4), rotary=(array(1), array(1)))),
    ],
)
def multi_head_latent_attention(draw):
    *lead, t = draw(dims(1, 3))
    heads, d_model = draw(integer(1, 3)), draw(size())
    # A norm over two entries has a gradient of zero, which is rounding over rounding.
    rank = integer(3, 5) if draw.ordinary else size(1, 5)
    rope_width = draw(one_of(4, 2, 4))
    turned = draw(one_of((t, rope_width // 2), (*lead, t, rope_width // 2)))
    shape = draw(one_of((t, t), (1, t), (heads, t, t), (heads, 1, t)))
    head_width = draw(integer(1, 3))
    drops = draw(one_of("a share", "no share", "no noise"))
    return dict(
        init=dict(
            d_model=d_model, n_heads=heads, kv_rank=draw(rank), head_width=head_width, rope_width=rope_width,
            value_width=draw(left_out(maybe(integer(1, 3)))), q_rank=draw(left_out(maybe(rank))), bias=draw(left_out(flag())),
            absorb=draw(left_out(flag())), interleaved=draw(left_out(flag())), eps=draw(left_out(one_of(1e-6, 1e-2))),
            scale=draw(left_out(maybe(number(-1, 2)))),
            dropout=draw(left_out(0.0)) if drops == "no share" else draw(number(0.1, 1)),
        ),
        call=dict(
            x=array(*lead, t, d_model, scale=draw(one_of(1.0, 1e-3)), hostile=False),
            rotary=draw(left_out(maybe((array(*turned, low=-1.0, high=1.0), array(*turned, low=-1.0, high=1.0))))),
            mask=draw(left_out(maybe(mask(*shape)))), causal=draw(left_out(flag())),
            noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
        ),
    )
