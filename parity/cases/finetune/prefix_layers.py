"""What attention layers with a prefix are fed: all that the layers themselves are, prefixes of no entry to three, learned through an MLP or
not."""

import numpy as np

from parity.cases import array, case, flag, integer, left_out, mask, maybe, one_of, size
from parity.cases.decode import _splits
from parity.cases.finetune._models import GPT2, LLAMA, adapted, made, trainable
from parity.cases.layers.grouped_query_attention import grouped_query_attention
from parity.cases.layers.multi_head_attention import keeps_the_context, multi_head_attention


def layer(name, base_name):
    """How a layer around one of another class is built."""
    def build(side, *, n, hidden=None, attention=True, **init):
        base = side.get(f"layers.{base_name}" if attention else "layers.Linear")(**init, dtype=side.dtype)
        return side.get(f"finetune.{name}")(base, n, hidden=hidden)
    return build


def no_entries(side, module, x, **call):
    """With a prefix of no entries the layer is its base: bit for bit, but where the base computes a window in another way."""
    fresh = type(module)(module.base, 0)
    yield "trained", all(name.startswith("prefix.") for name in trainable(module)), True
    yield "no entries", fresh(x, **call), module.base(x, **call)
    if getattr(module.base, "window", None) is None:
        yield "bits", np.array_equal(side.numpy(fresh(x, **call)), side.numpy(module.base(x, **call)), equal_nan=True), True


def real_tokens(side, module, x, causal=False, **call):
    """A prefix of the keys and values of tokens is these tokens in front of the text: the base reads them all."""
    base = module.base
    plain = all(getattr(base, name, None) is None for name in ("q_norm", "window")) and not call
    if not plain or base.k_proj.weight.shape[1] != x.shape[-1] or module.prefix.rows is None:
        return
    n, rows = 2, side.array(np.cos(np.arange(2.0 * x.shape[-1])).reshape(2, -1))
    fresh = type(module)(base, n)
    k, v = (side.numpy(proj(rows)) for proj in (base.k_proj, base.v_proj))
    state = {name: side.numpy(value) for name, value in fresh.state_dict().items()}
    side.load(fresh, state | {"prefix.rows": np.concatenate([k, v], -1)})
    first = np.broadcast_to(side.numpy(rows), (*x.shape[:-2], *rows.shape))
    whole = side.array(np.concatenate([first, side.numpy(x)], -2))
    seen = np.ones((n + x.shape[-2],) * 2, bool)
    if causal:
        seen = np.tril(seen)
    yield "tokens in front", fresh(x, causal=causal), base(whole, mask=side.array(seen))[..., n:, :]


def goes_on(side, module, x, bias=None, rotary=None, mask=None, **options):
    """Beside a cache it is what it is of the whole text; the prefix is no part of what is kept."""
    window = None if module.base.window is None else module.base.window[0]
    yield from _splits.layer(
        side, module, x, window=None if window is None else window + 1, half=None if rotary is None else rotary[0].shape[-1],
        heads=None if bias is None else module.base.n_heads, masked=mask is not None,
    )


def cached(side, module, x, context=None, bias=None, mask=None, **options):
    """The same of multi-head attention."""
    if module.base.k_proj.weight.shape[1] == x.shape[-1]:
        yield from _splits.layer(side, module, x, heads=None if bias is None else module.base.n_heads, masked=mask is not None)


def with_prefix(drawn, draw):
    drawn["init"] |= dict(n=draw(integer(0, 3)), hidden=draw(left_out(maybe(size()))))
    return drawn


_GOOD = dict(d_model=4, n_heads=2, n=2)


@case(
    "finetune.PrefixGroupedQueryAttention",
    build=layer("PrefixGroupedQueryAttention", "GroupedQueryAttention"),
    bench=dict(init=dict(d_model=256, n_heads=8, n_kv_heads=2, n=16), call=dict(x=array(8, 128, 256), causal=True)),
    fill={"norm.weight": array(low=0.5, high=1.5), "prefix.rows": array(hostile=False), "prefix.embedding": array(hostile=False)},
    also=[no_entries, real_tokens, goes_on],
    refuses=[
        dict(init=dict(in_features=2, out_features=3, n=2, attention=False)), dict(init=_GOOD | dict(n=-1)),
        dict(init=_GOOD | dict(hidden=0)), dict(init=_GOOD, call=dict(x=array(4))), dict(init=_GOOD, call=dict(x=array(3, 5))),
        dict(init=_GOOD, call=dict(x=array(3, 4), mask=mask(3, 5))), dict(init=_GOOD, call=dict(x=array(3, 4), mask=array(3, 3))),
        dict(init=_GOOD, call=dict(x=array(3, 4), bias=array(3, 5))),
        dict(init=_GOOD | dict(window=(1, 0)), call=dict(x=array(3, 4), mask=mask(2, 3))),
        dict(init=_GOOD, call=dict(x=array(3, 4), rotary=(array(1), array(1)))),
    ],
)
def grouped(draw):
    return with_prefix(grouped_query_attention(draw), draw)


@case(
    "finetune.PrefixMultiHeadAttention",
    build=layer("PrefixMultiHeadAttention", "MultiHeadAttention"),
    bench=dict(init=dict(d_model=256, n_heads=4, n=16), call=dict(x=array(8, 128, 256), causal=True)),
    fill={"prefix.rows": array(hostile=False), "prefix.embedding": array(hostile=False)},
    also=[no_entries, real_tokens, cached, keeps_the_context],
    refuses=[
        dict(init=dict(in_features=2, out_features=3, n=2, attention=False)), dict(init=_GOOD | dict(n=-1)),
        dict(init=_GOOD, call=dict(x=array(4))), dict(init=_GOOD, call=dict(x=array(3, 4), context=array(4))),
        dict(init=_GOOD, call=dict(x=array(3, 4), mask=mask(3, 5))), dict(init=_GOOD, call=dict(x=array(3, 4), bias=array(3, 5))),
        dict(init=_GOOD, call=dict(x=array(2, 3, 4), context=array(3, 3, 4))),
    ],
)
def multi_head(draw):
    return with_prefix(multi_head_attention(draw), draw)


def apply(side, *, config, **options):
    return adapted(side, config, "finetune.apply_prefix", **options)


@case(
    "finetune.apply_prefix",
    play=apply,
    refuses=[
        dict(config=GPT2, n=2, targets=("atn",)), dict(config=GPT2, n=2, targets=()), dict(config=GPT2, n=2, targets=("mlp",)),
        dict(config=GPT2, n=-1), dict(config=GPT2, n=2, hidden=0), dict(config=GPT2, n=2, targets="attn"),
    ],
)
def apply_prefix(draw):
    return dict(config=draw(one_of(GPT2, LLAMA)), quantized=draw(left_out(flag())), n=draw(integer(0, 3)),
                hidden=draw(left_out(maybe(integer(1, 3)))), targets=draw(left_out(one_of(("attn",), ("blocks.1.attn",)))))


def materialize(side, *, config, n, hidden):
    """The model reads the same prefixes, and trains their rows."""
    model = made(side, config)
    side.get("finetune.apply_prefix")(model, n=n, hidden=hidden)
    before = side.numpy(model(side.array(np.array([[1, 4, 2]]))))
    names = side.get("finetune.materialize_prefix")(model)
    after = side.numpy(model(side.array(np.array([[1, 4, 2]]))))
    shown = {f"materialized {i}: {name}": np.ones(()) for i, name in enumerate(names)}
    shown |= {f"trains {name}": np.ones(()) for name in trainable(model)}
    return shown | {"the same": np.array_equal(before, after)}


@case("finetune.materialize_prefix", play=materialize, refuses=[dict(config=GPT2, n=2, hidden=None)])
def materialize_prefix(draw):
    return dict(config=draw(one_of(GPT2, LLAMA)), n=draw(integer(0, 3)), hidden=draw(integer(1, 3)))
