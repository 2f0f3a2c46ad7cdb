"""What Transformer-XL's attention is fed: distances back only and both ways, position parts of every broadcast, remembered keys."""

from parity.cases import array, case, dims, flag, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.attention._plain import last_queries
from parity.cases.attention.scaled_dot_product import broadcast


def without_position_parts_it_is_plain_attention(
    side, query, key, value, position_key, content_bias, position_bias, **options
):
    """With r = 0 and u = 0 it is scaled_dot_product, and so are its gradients."""
    ours, plain = side.get("attention.transformer_xl_attention"), side.get("attention.scaled_dot_product")
    got = ours(query, key, value, 0 * position_key, 0 * content_bias, position_bias, **options)
    want = plain(query, key, value, **options)
    if side.name == "numpy":
        (got, backward), (want, plain_backward) = got, want
        dy = got - 0.5
        yield from zip(("dquery", "dkey", "dvalue"), backward(dy)[:3], plain_backward(dy)[:3], strict=True)
    yield "y", got, want


def distances_alone_are_a_bias(side, query, key, value, position_key, content_bias, position_bias, **options):
    """With keys of 0 it is scaled_dot_product with zero keys and a bias: for every key, the query's product with r of its distance."""
    ours, plain = side.get("attention.transformer_xl_attention"), side.get("attention.scaled_dot_product")
    got = ours(query, 0 * key, value, position_key, content_bias, position_bias, **options)
    t, s = query.shape[-2], key.shape[-2]
    scale = options.get("scale")
    scale = 1 / max(query.shape[-1], 1) ** 0.5 if scale is None else scale
    products = scale * (query + position_bias[..., None, :]) @ position_key.swapaxes(-1, -2)
    bias = 0 * (query @ key.swapaxes(-1, -2))
    for i in range(t):
        for j in range(min(s, products.shape[-1] - (t - 1 - i))):
            bias[..., i, j] = products[..., i, j + t - 1 - i]
    want = plain(query, 0 * key, value, bias, **options)
    yield "y", *((got[0], want[0]) if side.name == "numpy" else (got, want))


_GOOD = dict(query=array(2, 3, 4), key=array(2, 5, 4), value=array(2, 5, 6), position_key=array(7, 4), content_bias=array(2, 4),
             position_bias=array(4))


@case(
    "attention.transformer_xl_attention",
    bench=dict(query=array(4, 8, 256, 64), key=array(4, 8, 256, 64), value=array(4, 8, 256, 64), position_key=array(8, 256, 64),
               content_bias=array(8, 64), position_bias=array(8, 64), causal=True),
    refuses=[_GOOD | bad for bad in (
        dict(query=array(4)),
        dict(key=array(5)),
        dict(value=array(6)),
        dict(position_key=array(4)),
        dict(key=array(5, 4)),
        dict(key=array(2, 5, 3)),
        dict(value=array(2, 4, 6)),
        dict(position_key=array(5, 4)),
        dict(position_key=array(8, 4)),
        dict(position_key=array(6, 4), causal=True),
        dict(query=array(2, 0, 4), position_key=array(4, 4)),
        dict(position_key=array(7, 3)),
        dict(position_key=array(7, 1)),
        dict(position_key=array(3, 7, 4)),
        dict(content_bias=array()),
        dict(position_bias=array()),
        dict(content_bias=array(3, 4)),
        dict(position_bias=array(5)),
        dict(mask=mask(2, 3, 4)),
        dict(mask=array(2, 3, 5)),
        dict(scale=float("nan")),
        dict(scale=2e30),
        dict(dropout=1.5),
        dict(dropout=-0.1),
    )],
    also=[without_position_parts_it_is_plain_attention, distances_alone_are_a_bias, last_queries("attention.transformer_xl_attention")],
)
def transformer_xl_attention(draw):
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(size(0, 5), 1))
    t, s = draw(size(0, 6)), draw(size(0, 6))
    causal = draw(flag())
    distances = s if causal and draw(flag()) else s + max(t, 1) - 1
    drops = draw(one_of("a share", "a share", "no share", "no share", "no noise"))
    return dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        position_key=draw(array(*broadcast(draw, *lead, 1)[:-1], distances, e)),
        content_bias=draw(array(*broadcast(draw, *lead, e))), position_bias=draw(array(*broadcast(draw, *lead, e))),
        mask=draw(one_of(left_out(None), mask(*lead, t, s), mask(*broadcast(draw, *lead, t, s), p=0.9))),
        causal=True if causal else draw(left_out(False)),
        scale=draw(left_out(maybe(number(-1, 2)))),
        dropout=draw(left_out(0.0)) if drops == "no share" else draw(one_of(0.3, 0.6, 1.0)),
        noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
    )
