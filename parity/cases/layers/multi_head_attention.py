"""What multi-head attention is fed: the sequence itself or a context of its own length and width, head widths, biases, masks, dropout."""

from parity.cases import array, case, dims, flag, integer, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.decode import _splits


def goes_on(side, module, x, context=None, bias=None, mask=None, **options):
    """Beside a cache it is what it is of the whole text, with a bias and a mask where the example has them."""
    if module.k_proj.weight.shape[1] == x.shape[-1]:
        yield from _splits.layer(side, module, x, heads=None if bias is None else module.n_heads, masked=mask is not None)


def keeps_the_context(side, module, x, context=None, bias=None, mask=None, **options):
    """The context's keys and values are made in the first call: no later one reads the context."""
    context = x if context is None else context
    if getattr(module, "base", module).k_proj.weight.shape[1] != context.shape[-1]:
        return
    held = _splits.part(side, "context").ContextStore()
    with _splits.quiet(side):
        want = side.numpy(module(x, context, bias, mask=mask))
        for start, stop, given in ((0, x.shape[-2], context), (0, 1, None), (1, x.shape[-2], None)):
            own = [array if array is None or array.shape[-2] == 1 else array[..., start:stop, :] for array in (bias, mask)]
            y = module.forward(x[..., start:stop, :], given, own[0], mask=own[1], cache=held)
            if side.name == "numpy":
                yield "backward beside a cache", y[1] is None, True
                y = y[0]
            yield f"queries {start} to {stop}", y, want[..., start:stop, :]


@case(
    "layers.MultiHeadAttention",
    bench=dict(init=dict(d_model=256, n_heads=4), call=dict(x=array(8, 128, 256), causal=True)),
    also=[goes_on, keeps_the_context],
    refuses=[
        dict(init=dict(d_model=0, n_heads=1)),
        dict(init=dict(d_model=4, n_heads=0)),
        dict(init=dict(d_model=4, n_heads=3)),
        dict(init=dict(d_model=4, n_heads=2, head_width=0)),
        dict(init=dict(d_model=4, n_heads=2, dropout=1.5)),
        dict(init=dict(d_model=4, n_heads=2, scale=float("inf")), call=dict(x=array(3, 4))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 4), bias=array(3, 3, 3))),
        dict(init=dict(d_model=4, n_heads=2, d_context=0)),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(4))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 5))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 4), context=array(4))),
        dict(init=dict(d_model=4, n_heads=2, d_context=3), call=dict(x=array(3, 4))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(3, 4), mask=mask(4, 3))),
        dict(init=dict(d_model=4, n_heads=2), call=dict(x=array(2, 3, 4), context=array(3, 3, 4))),
    ],
)
def multi_head_attention(draw):
    *lead, t = draw(dims(1, 3))
    heads = draw(integer(1, 3))
    head_width = draw(left_out(maybe(size(1, 3))))
    width = draw(size()) if isinstance(head_width, int) else heads * draw(size(1, 3))
    crosses = draw(flag())
    s = draw(size(0, 5)) if crosses else t
    d_context = draw(size()) if crosses else width
    shape = draw(one_of((t, s), (1, s), (heads, t, s), (heads, 1, s)))
    return dict(
        init=dict(
            d_model=width, n_heads=heads, bias=draw(left_out(flag())), dropout=draw(left_out(number(0, 1))),
            d_context=d_context if d_context != width else draw(left_out(maybe(width))),
            head_width=head_width, scale=draw(left_out(maybe(number(-1, 2)))),
        ),
        call=dict(
            # Where x is query, key and value at once, an entry of 1000 enters cubed, and rounding drowns what is left in float64 too.
            x=array(*lead, t, width, hostile=crosses), context=array(*lead, s, d_context) if crosses else draw(left_out(None)),
            bias=draw(left_out(maybe(array(*draw(one_of(shape, (t, s))))))), mask=draw(left_out(maybe(mask(*shape)))),
            causal=draw(left_out(flag())), noise=draw(left_out(maybe(noise()))),
        ),
    )
