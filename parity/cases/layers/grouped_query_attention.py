"""What grouped-query attention is fed: every sharing of heads, widths of their own, rotary, norms, biases, windows, caps, sinks, masks."""

import copy

import numpy as np

from byhand.noise import Noise
from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.decode import _splits


def tables(draw, lead, t, half):
    """cos and sin of a table: for all sequences, or one for each."""
    shape = draw(one_of((t, half), (*lead, t, half)))
    return (array(*shape, low=-1.0, high=1.0), array(*shape, low=-1.0, high=1.0))


def multi_head(side, module, x, bias=None, rotary=None, mask=None, causal=False, noise=None):
    """With a key head for every query head, and nothing besides, it is multi-head attention: the group's copies of k_proj and v_proj."""
    plain = module.q_norm is None and module.soft_cap is None and module.window is None and module.sinks is None
    h, k, e, d = module.n_heads, module.n_kv_heads, module.head_width, x.shape[-1]
    if not plain or bias is not None or rotary is not None or h * e != d or (module.o_proj.bias is None) != (module.q_proj.bias is None):
        return
    other = side.get("layers.MultiHeadAttention")(d, h, bias=module.o_proj.bias is not None, dropout=module.dropout, dtype=side.dtype)
    state = {name: np.asarray(side.numpy(value)) for name, value in module.state_dict().items()}
    for name in [name for name in state if name.startswith(("k_proj", "v_proj"))]:
        heads = state[name].reshape(k, e, *state[name].shape[1:])
        state[name] = np.repeat(heads, h // k, axis=0).reshape(h * e, *state[name].shape[1:])
    side.load(other, state)
    yield "multi-head attention", module(x, mask=mask, causal=causal, noise=noise), other(x, mask=mask, causal=causal, noise=noise)


def window_is_a_mask(side, module, x, bias=None, rotary=None, mask=None, causal=False, noise=None):
    """A window, alone or beside anything else, is the mask of what lies in it."""
    if module.window is None:
        return
    left, right = module.window
    at = np.arange(x.shape[-2])
    ahead = at - at[:, None]                                   # (T, T): how far ahead of query t key s stands
    band = np.ones(ahead.shape, dtype=bool)
    band &= True if left is None else ahead >= -left
    band &= True if right is None else ahead <= right
    seen = side.array(band)
    other, dropping = copy.copy(module), copy.copy(module)
    other.window, dropping.dropout = None, 0.4
    seen = seen if mask is None else mask & seen
    common = dict(rotary=rotary, causal=causal)
    yield "a mask", module(x, bias, mask=mask, noise=noise, **common), other(x, bias, mask=seen, noise=noise, **common)
    slopes = side.array(0.3 * ahead)
    yield "a mask, and a bias", module(x, slopes, **common), other(x, slopes, mask=side.array(band), **common)
    other.dropout, noise = 0.4, Noise(seed=3)
    yield "a mask, and dropout", dropping(x, noise=noise, **common), other(x, mask=side.array(band), noise=noise, **common)


def goes_on(side, module, x, bias=None, rotary=None, mask=None, **options):
    """Beside a cache it is what it is of the whole text: with angles, a bias and a mask, each where the example has one."""
    left = None if module.window is None else module.window[0]
    yield from _splits.layer(
        side, module, x, window=None if left is None else left + 1, half=None if rotary is None else rotary[0].shape[-1],
        heads=None if bias is None else module.n_heads, masked=mask is not None,
    )


_DENSE = "a window is then a mask, which gives the same more slowly"


@case(
    "layers.GroupedQueryAttention",
    bench=dict(init=dict(d_model=256, n_heads=8, n_kv_heads=2), call=dict(x=array(8, 128, 256), causal=True)),
    fill={"norm.weight": array(low=0.5, high=1.5)},
    also=[multi_head, window_is_a_mask, goes_on],
    equivalent={
        "noise is not None and self.dropout > 0 -> noise is not None or self.dropout > 0": _DENSE,
        "self.dropout > 0 -> self.dropout >= 0": _DENSE,
    },
    refuses=[
        dict(init=dict(d_model=0, n_heads=1)),
        dict(init=dict(d_model=4, n_heads=0)),
        dict(init=dict(d_model=4, n_heads=4, n_kv_heads=0)),
        dict(init=dict(d_model=12, n_heads=4, n_kv_heads=3)),
        dict(init=dict(d_model=4, n_heads=3)),
        dict(init=dict(d_model=4, n_heads=2, head_width=0)),
        dict(init=dict(d_model=4, n_heads=2, bias="all")),
        dict(init=dict(d_model=4, n_heads=2, window=(1, -1))),
        dict(init=dict(d_model=4, n_heads=2, dropout=1.5)),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(4))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 5))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 4), mask=mask(4, 3))),
        dict(init=dict(d_model=4, n_heads=2, window=(1, 0)), call=dict(x=array(3, 4), mask=array(3, 3))),
        dict(init=dict(d_model=4, n_heads=2, window=(1, 0)), call=dict(x=array(3, 4), mask=mask(2, 3))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 4), bias=array(4, 3))),
        dict(init=dict(d_model=4, n_heads=2, soft_cap=0.0)),
        dict(init=dict(d_model=4, n_heads=2, qk_norm=True, eps=-1.0), call=dict(x=array(3, 4))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 4), rotary=(array(3, 2), array(3, 2)))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 4), rotary=(array(1), array(1)))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 4), rotary=(array(2, 1), array(2, 1)))),
    ],
)
def grouped_query_attention(draw):
    *lead, t = draw(dims(1, 3))
    kv_heads = draw(integer(1, 2))
    heads = kv_heads * draw(integer(1, 3))
    # A norm over two entries has a gradient of zero, which is rounding over rounding.
    normed = draw(left_out(flag()))
    width = draw(size(1, 3)) + (2 if normed is True else 0)
    own_width = draw(flag())
    d_model = draw(size()) if own_width else heads * width
    shape = draw(one_of((t, t), (1, t), (heads, t, t), (heads, 1, t)))
    reach = one_of(None, 0, 1, 2)
    # Mask, bias, sinks, dropout: beside any of them, a window is computed in another way.
    joined = draw(one_of((), (), ("mask",), ("bias",), ("dropout",), ("sinks",), ("mask", "bias", "dropout", "sinks")))
    drops = "a share" if "dropout" in joined else draw(one_of("no share", "no noise"))
    return dict(
        init=dict(
            d_model=d_model, n_heads=heads, n_kv_heads=kv_heads if kv_heads != heads else draw(left_out(maybe(heads))),
            head_width=width if own_width else draw(left_out(maybe(width))),
            bias=draw(left_out(one_of(False, True, "qkv"))), qk_norm=normed, eps=draw(left_out(one_of(1e-6, 1e-2))),
            window=draw(one_of(left_out(None), (draw(reach), draw(reach)), (draw(reach), draw(reach)))),
            soft_cap=draw(left_out(maybe(one_of(0.5, 20.0)))), sinks="sinks" in joined or draw(left_out(False)),
            dropout=draw(left_out(0.0)) if drops == "no share" else draw(number(0.1, 1)),
        ),
        call=dict(
            # x is query, key and value at once: an entry of 1000 enters cubed, and rounding drowns what is left in float64 too.
            x=array(*lead, t, d_model, scale=draw(one_of(1.0, 1e-3)), hostile=False),
            bias=array(*shape) if "bias" in joined else draw(left_out(None)),
            rotary=draw(left_out(maybe(tables(draw, lead, t, draw(integer(0, width // 2)))))),
            mask=mask(*shape) if "mask" in joined else draw(left_out(None)),
            causal=draw(left_out(flag())), noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
        ),
    )
