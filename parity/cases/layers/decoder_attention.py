"""What the decoder's attention is fed: every choice of keys with every kind of position that goes with it."""

from parity.cases import array, case, dims, flag, integer, left_out, maybe, noise, number, one_of, size
from parity.cases.decode import _splits
from parity.sides import Side


def is_attention_as_it_was_on_common_ground(side: Side, module, x, noise=None):
    """Without positions and with all keys in reach it is MultiHeadAttention, outputs and gradients, whichever keys it may choose from."""
    plain = side.get("layers.MultiHeadAttention")
    state = module.state_dict()
    width, bias = state["q_proj.weight"].shape[0], "q_proj.bias" in state
    reach = max(x.shape[-2], 1)
    for sizes in (dict(), dict(attention="window", window=reach), dict(attention="strided", stride=reach, local=reach),
                  dict(attention="strided", stride=1, local=1), dict(positions="relative")):
        own = side.get("layers.DecoderAttention")(width, module.n_heads, bias=bias, dtype=side.dtype, **sizes)
        whole = plain(width, module.n_heads, bias=bias, dtype=side.dtype)
        state = {name: value for name, value in module.state_dict().items() if name != "relative"}
        whole.load_state_dict(state)
        own.load_state_dict({name: state.get(name, own.state_dict()[name]) for name in own.state_dict()})  # an empty table adds nothing
        if side.name == "numpy":
            y, backward = own.forward(x)
            want, want_backward = whole.forward(x, causal=True)
            (dx, grads), (want_dx, *_, want_grads) = backward(2 * x), want_backward(2 * x)
            yield f"y, {sizes}", y, want
            yield f"dx, {sizes}", dx, want_dx
            yield f"dq_proj.weight, {sizes}", grads["q_proj"]["weight"], want_grads["q_proj"]["weight"]
        else:
            yield f"y, {sizes}", own(x), whole(x, causal=True)
    yield "T5's buckets", tuple(own.relative.shape), (32, module.n_heads)


def goes_on(side, module, x, **options):
    """Beside a cache it is what it is of the whole text."""
    yield from _splits.layer(side, module, x, window=module.window, says_causal=False)


_INIT = dict(d_model=4, n_heads=2)


@case(
    "layers.DecoderAttention",
    bench=dict(init=dict(d_model=256, n_heads=4, positions="rotary"), call=dict(x=array(8, 128, 256))),
    also=[is_attention_as_it_was_on_common_ground, goes_on],
    refuses=[
        dict(init=dict(d_model=0, n_heads=1)),
        dict(init=dict(d_model=4, n_heads=0)),
        dict(init=dict(d_model=4, n_heads=3)),
        dict(init=_INIT | dict(buckets=0)),
        dict(init=_INIT | dict(attention="ful")),
        dict(init=_INIT | dict(positions="alibis")),
        dict(init=_INIT | dict(dropout=1.5)),
        dict(init=_INIT | dict(attention="window")),
        dict(init=_INIT | dict(attention="window", window=0)),
        dict(init=_INIT | dict(window=3)),
        dict(init=_INIT | dict(attention="strided")),
        dict(init=_INIT | dict(attention="strided", stride=0)),
        dict(init=_INIT | dict(attention="strided", stride=2, local=0)),
        dict(init=_INIT | dict(attention="window", window=2, stride=2)),
        dict(init=_INIT | dict(local=2)),
        dict(init=_INIT | dict(attention="linear", dropout=0.1)),
        dict(init=_INIT | dict(attention="strided", stride=2, dropout=0.1)),
        dict(init=_INIT | dict(attention="linear", positions="alibi")),
        dict(init=_INIT | dict(attention="window", window=2, positions="relative")),
        dict(init=dict(d_model=6, n_heads=2, positions="rotary")),
        dict(init=_INIT | dict(positions="relative", buckets=1), call=dict(x=array(3, 4))),
        dict(init=_INIT | dict(positions="relative", buckets=8, max_distance=4), call=dict(x=array(3, 4))),
        dict(init=_INIT | dict(positions="relative", buckets=256), call=dict(x=array(3, 4))),  # of which 128 would be exact
        dict(init=_INIT | dict(positions="rotary", rope_base=-1.0), call=dict(x=array(3, 4))),
        dict(init=_INIT, call=dict(x=array(4))),
        dict(init=_INIT, call=dict(x=array(3, 5))),
    ],
)
def decoder_attention(draw):
    *lead, t = draw(dims(1, 3))
    heads = draw(integer(1, 3))
    options = attention_options(draw)
    width = heads * (2 * draw(size(1, 2)) if options.get("positions") == "rotary" else draw(size(1, 3)))
    if options.get("attention", "full") in ("full", "window"):
        options |= draw(one_of(dict(), dict(dropout=draw(number(0, 1)))))
    return dict(
        init=dict(d_model=width, n_heads=heads, bias=draw(left_out(flag())), **options),
        # As query, key and value at once an entry of 1000 enters cubed, and rounding drowns what is left in float64 too.
        call=dict(x=array(*lead, t, width, hostile=False), noise=draw(left_out(maybe(noise())))),
    )


def attention_options(draw):
    """A choice of keys and the positions that go with it, each with its sizes."""
    rotary = dict(positions="rotary", rope_base=draw(left_out(one_of(10.0, 500.0))))
    relative = dict(positions="relative", buckets=draw(left_out(integer(2, 6))), max_distance=draw(left_out(integer(17, 20))))
    return draw(one_of(
        dict(positions=draw(left_out(one_of("none", "learned", "sinusoidal")))), rotary, dict(positions="alibi"), relative,
        dict(attention="full"), dict(attention="window", window=draw(integer(1, 4))), dict(attention="linear"),
        dict(attention="strided", stride=draw(integer(1, 4)), local=draw(left_out(maybe(integer(1, 3))))),
        rotary | dict(attention="window", window=draw(integer(1, 4))),
    ))
