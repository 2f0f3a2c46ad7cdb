"""What latent_attention is fed: heads, with positions and without, all masks. It is plain attention on what it does not build."""

import functools

import numpy as np

from parity.cases import array, case, dims, flag, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.attention._plain import both, last_queries, results
from parity.cases.attention.scaled_dot_product import broadcast


def is_plain_attention_on_built_keys_and_values(side, query, latent, weight_k, weight_v, query_rope=None, key_rope=None, **options):
    """scaled_dot_product on keys and values built head by head: outputs and gradients."""
    *lead, h, _, _ = query.shape
    s = latent.shape[-2]
    if options.get("scale") is None:
        options["scale"] = 1 / max(query.shape[-1] + (0 if key_rope is None else key_rope.shape[-1]), 1) ** 0.5
    attend = functools.partial(side.get("attention.scaled_dot_product"), **options)

    def built(query, latent, weight_k, weight_v, *rope):
        one = latent[..., None, :, :]                                       # (..., 1, S, R)
        keys, values = one @ weight_k.swapaxes(-1, -2), one @ weight_v.swapaxes(-1, -2)
        query_rope, key_rope = rope if rope else (query[..., :0], latent[..., :0])
        if side.name == "torch":
            import torch

            shared = key_rope[..., None, :, :].expand(*lead, h, s, key_rope.shape[-1])
            return attend(torch.cat((query, query_rope), -1), torch.cat((keys, shared), -1), values)
        shared = np.broadcast_to(key_rope[..., None, :, :], (*lead, h, s, key_rope.shape[-1]))
        y, attend_backward = attend(np.concatenate((query, query_rope), -1), np.concatenate((keys, shared), -1), values)

        def backward(dy):
            dfull, dkey, dvalue, _ = attend_backward(dy)
            e = query.shape[-1]
            dbuilt = dkey[..., :e]
            dlatent = (dbuilt @ weight_k + dvalue @ weight_v).sum(-3)
            batch = tuple(range(len(lead)))
            dweight_k, dweight_v = ((d.swapaxes(-1, -2) @ one).sum(batch) for d in (dbuilt, dvalue))
            return dfull[..., :e], dlatent, dweight_k, dweight_v, dfull[..., e:], dkey[..., e:].sum(-3)

        return y, backward

    arrays = dict(query=query, latent=latent, weight_k=weight_k, weight_v=weight_v)
    if key_rope is not None:
        arrays |= dict(query_rope=query_rope, key_rope=key_rope)
    absorbed = functools.partial(side.get("attention.latent_attention"), **options)
    got, want = results(side, absorbed, **arrays), results(side, built, **arrays)
    yield from both(got, want)


def case_of(t=3, s=3, lead=(), **others):
    """Arrays that fit, two heads of width 4 and a latent of 3, but for `others`."""
    return dict(query=array(*lead, 2, t, 4), latent=array(*lead, s, 3), weight_k=array(2, 4, 3), weight_v=array(2, 5, 3)) | others


@case(
    "attention.latent_attention",
    bench=dict(query=array(2, 8, 256, 64), latent=array(2, 256, 128), weight_k=array(8, 64, 128), weight_v=array(8, 64, 128),
               query_rope=array(2, 8, 256, 32), key_rope=array(2, 256, 32), causal=True),
    refuses=[
        case_of(query=array(3, 4)),
        case_of(latent=array(3)),
        case_of(latent=array(2, 3, 3)),
        case_of(weight_v=array(5, 3)),
        case_of(weight_v=array(3, 5, 3)),
        case_of(weight_v=array(2, 5, 4)),
        case_of(weight_k=array(2, 5, 3)),
        case_of(weight_k=array(1, 4, 3)),
        case_of(weight_k=array(2, 2, 4, 3)),
        case_of(query_rope=array(2, 3, 2)),
        case_of(key_rope=array(3, 2)),
        case_of(query_rope=array(2, 3, 2), key_rope=array(3, 4)),
        case_of(query_rope=array(3, 2), key_rope=array(3, 2)),
        case_of(query_rope=array(2, 3, 2), key_rope=array(2, 3, 2)),
        case_of(query_rope=array(2, 3, 2), key_rope=array(4, 2)),
        case_of(mask=mask(2, 3, 4)),
        case_of(mask=array(3, 3)),
        case_of(scale=float("nan")),
        case_of(scale=2e30),
        case_of(scale=-2e30),
        case_of(soft_cap=0.0),
        case_of(dropout=1.5),
        case_of(dropout=-0.1),
        dict(query=array(0, 3, 4), latent=array(3, 3), weight_k=array(0, 4, 3), weight_v=array(0, 5, 3)),
    ],
    also=[is_plain_attention_on_built_keys_and_values, last_queries("attention.latent_attention")],
)
def latent_attention(draw):
    lead, h = draw(dims(0, 2)), draw(size(1, 3))
    t, s, r, w = draw(size(0, 6)), draw(size(0, 6)), draw(size(0, 5)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    causal, rope = draw(left_out(flag())), {}
    if not draw.ordinary and not draw.edges and draw(flag()):  # several strips
        lead, causal = (), True
        t, s = draw(one_of((130, 130), (70, 200), (140, 66)))
    if draw(one_of(True, True, False)):
        p = draw(size(0, 4))
        rope = dict(query_rope=draw(array(*lead, h, t, p)), key_rope=draw(array(*lead, s, p)))
    drops = draw(one_of("a share", "a share", "no share", "no noise"))
    root = max(r, 1) ** -0.5
    return dict(
        query=draw(array(*lead, h, t, e)), latent=draw(array(*lead, s, r)),
        weight_k=draw(array(h, e, r, scale=root)), weight_v=draw(array(h, w, r, scale=root)),
        mask=draw(one_of(left_out(None), mask(*broadcast(draw, *lead, h, t, s)))),
        causal=causal,
        scale=draw(left_out(None)) if e == 1 else draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(one_of(left_out(None), 0.03, 2.0, 30.0)),
        dropout=draw(left_out(left_out(0.0))) if drops == "no share" else draw(one_of(0.3, 0.6, 1.0)),
        noise=draw(left_out(None)) if drops == "no noise" else draw(noise()),
    ) | rope
