"""What linear_attention is fed: equal and unequal lengths, several chunks; it equals its own quadratic form, written with a mask."""

import numpy as np

from parity.cases import array, case, dims, flag, left_out, one_of, size
from parity.cases.attention._plain import both, last_queries, results
from parity.values import key_rng


def equals_the_quadratic_form(side, query, key, value, causal=False, eps=1e-6):
    """y = A V / (Σ A + ε) with the whole table A = φ(Q) φ(K)ᵀ · mask, and so are the gradients."""
    result = side.get("attention.linear_attention")(query, key, value, causal=causal, eps=eps)
    q, k, v = (side.numpy(x) for x in (query, key, value))
    t, s = q.shape[-2], k.shape[-2]
    seen = np.tri(t, s, s - t) if causal else np.ones((t, s))
    phi_q, phi_k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    table = phi_q @ phi_k.swapaxes(-1, -2) * seen
    total = table.sum(-1, keepdims=True) + eps
    y = table @ v / total
    yield "y", result[0] if side.name == "numpy" else result, y
    if side.name == "numpy":
        dy = key_rng("dy", y.shape).standard_normal(y.shape)
        dtable = seen * (dy @ v.swapaxes(-1, -2) - (dy * y).sum(-1, keepdims=True)) / total
        dquery, dkey, dvalue = result[1](dy)
        yield "dquery", dquery, dtable @ phi_k * np.where(q > 0, 1, phi_q)
        yield "dkey", dkey, dtable.swapaxes(-1, -2) @ phi_q * np.where(k > 0, 1, phi_k)
        yield "dvalue", dvalue, table.swapaxes(-1, -2) @ (dy / total)


def its_weights_are_a_softmax(side, query, key, value, causal=False, eps=None):
    """The common ground with plain attention: softmax(log a) = a / Σ a, so log φ(q) · φ(k) as a bias, in place of scores, is the same."""
    q, k = (side.numpy(x).astype(np.float64) for x in (query, key))
    phi_q, phi_k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (q, k))
    with np.errstate(divide="ignore"):
        bias = side.array(np.log(phi_q @ phi_k.swapaxes(-1, -2)))
    linear, plain = side.get("attention.linear_attention"), side.get("attention.scaled_dot_product")
    yield from both(
        results(side, lambda value: _alone(linear(query, key, value, causal=causal, eps=1e-300), -1), value=value),
        results(side, lambda value: _alone(plain(query, key, value, bias, causal=causal, scale=0.0), 2), value=value),
    )


def _alone(result, place):
    """(y, backward) with the gradient at one place only; on the torch side, y as it is."""
    return (result[0], lambda dy: (result[1](dy)[place],)) if isinstance(result, tuple) else result


@case(
    "attention.linear_attention",
    bench=dict(query=array(4, 8, 1024, 64), key=array(4, 8, 1024, 64), value=array(4, 8, 1024, 64), causal=True),
    refuses=[
        dict(query=array(3), key=array(2, 4), value=array(2, 4)),
        dict(query=array(3, 4), key=array(4), value=array(2, 4)),
        dict(query=array(3, 4), key=array(2, 4), value=array(4)),
        dict(query=array(2, 3, 4), key=array(3, 4), value=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 5), value=array(3, 5)),
        dict(query=array(3, 4), key=array(3, 4), value=array(2, 4)),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), eps=0.0),
        dict(query=array(3, 4), key=array(3, 4), value=array(3, 4), eps=float("inf")),
    ],
    also=[equals_the_quadratic_form, its_weights_are_a_softmax, last_queries("attention.linear_attention")],
    equivalent={
        "_CHUNK = 64 -> _CHUNK = 65": "how many queries are taken together is a matter of speed",
        "i + s -> i": "where a chunk of keys starts is then counted from the end, and is the same key",
    },
)
def linear_attention(draw):
    lead, e, w = draw(dims(0, 2)), draw(size(0, 5)), draw(size(0, 5))
    t, s = draw(size(0, 6)), draw(size(0, 6))
    causal = draw(left_out(flag()))
    if not draw.edges and draw(flag()):  # several chunks
        lead, causal = draw(one_of((), (2,), (1, 2))), True
        t, s = draw(one_of((130, 130), (70, 200), (140, 66), (128, 128)))
    faint = not draw.ordinary and draw(flag())  # weights as small as ε
    return dict(
        query=draw(array(*lead, t, e)), key=array(*lead, s, e, low=-18, high=-12) if faint else array(*lead, s, e),
        value=draw(array(*lead, s, w)), causal=causal, eps=draw(left_out(left_out(1e-6) if faint else one_of(1e-6, 1e-3, 0.5))),
    )
