"""What a router layer is fed: every way to choose, padding, too little room, jitter and noise. Its logits are plain normals: rounding turns
no choice of theirs."""

import numpy as np

from byhand.noise import Noise, at
from parity.cases import array, case, flag, integer, left_out, mask, maybe, noise, one_of, size


def options(draw, e, k):
    """Keyword options of a Router of e experts."""
    choice = draw(one_of("token", "token", "sinkhorn", "expert"))
    found = dict(
        choice=draw(left_out("token")) if choice == "token" else choice, score=draw(left_out(one_of("softmax", "sigmoid"))),
        jitter=draw(left_out(one_of(0.0, 0.3))), noisy=draw(left_out(flag())),
    )
    if choice == "expert":
        return found
    groups = draw(one_of(*(g for g in (1, 2, 3) if e % g == 0)))
    least = -(-k // (e // groups))                                               # so many groups hold k experts
    return found | dict(
        before=draw(left_out(flag())), renormalise=draw(left_out(flag())), scale=draw(left_out(one_of(1.0, 2.5))),
        groups=draw(left_out(1)) if groups == 1 else groups, top_groups=draw(left_out(maybe(integer(least, groups)))),
        group_score=draw(left_out(one_of("max", "top2"))), correction=draw(left_out(flag())),
        capacity_factor=draw(one_of(None, 0.25, 0.5, 1.0, 1.25)), min_capacity=draw(left_out(one_of(1, 2))),
        drop_order=draw(left_out(one_of("choice", "token", "weight"))),
    )


def steps(side, module, x, real=None, noise=None):
    """The layer is its parts in a row: jitter, two products, noise; then what chooses."""
    z = _value(side, side.get("moe.jitter")(x, eps=module.jitter, noise=at(noise, "jitter")))
    linear = side.get("ops.linear")
    logits = _value(side, linear(z, module.weight))
    if module.spread is not None:
        logits = _value(side, side.get("moe.noisy_logits")(logits, _value(side, linear(z, module.spread)), noise=at(noise, "noisy")))
    sent = _value(side, module.forward(x, real=real, noise=noise))
    yield "logits", sent.logits, logits
    here = np.ones(len(x), bool) if real is None else side.numpy(real)
    tokens, counts, kept = (side.numpy(array) for array in (sent.tokens, sent.counts, sent.kept))
    yield "padding that is computed", int((~here[tokens]).sum()), 0
    yield "experts wanted for padding", int(side.numpy(sent.chosen)[~here].sum()), 0
    yield "rows of each expert", kept.sum(0), counts
    yield "computed and not wanted", int((kept & ~side.numpy(sent.chosen)).sum()), 0
    wanted, limit = int(here.sum()), None
    if module.choice == "expert":
        limit = -(-wanted * module.k // module.n_experts)
        yield "tokens of every expert", counts, np.full(module.n_experts, min(limit, wanted))
    elif module.capacity_factor is not None and wanted:
        limit = side.get("moe.capacity")(tokens=wanted, experts=module.n_experts, k=module.k, factor=module.capacity_factor,
                                         minimum=module.min_capacity)
        full = side.numpy(sent.chosen)[here].sum(0)
        yield "rows with little room", counts, np.minimum(full, limit)
    else:
        yield "rows of every real token", kept.sum(-1), np.where(here, module.k, 0)


def evens(side, module, x, **options):
    """In training tokens choose by Sinkhorn's scores; one token alone, and every token in inference, by the logits."""
    layer = side.get("layers.Router")(3, 3, 1, choice="sinkhorn", dtype=side.dtype)
    side.load(layer, {"weight": np.array([[0.7, 0.1, 0.4], [0.9, -0.5, 0.2], [1.0, 0.3, -0.2]])})
    rows = side.array(np.array([[1.0, 0.1, 0.2], [1.2, 0.5, -0.3], [0.8, 0.2, 0.6], [1.5, -0.2, 0.4]]))
    for n in (1, 2, 4):
        for stream in (None, Noise(1)):
            sent = _value(side, layer.forward(rows[:n], noise=stream))
            by = sent.logits if stream is None or n == 1 else _value(side, side.get("moe.sinkhorn")(sent.logits))
            yield f"choice of {n} tokens", side.numpy(sent.chosen).argmax(-1), side.numpy(by).argmax(-1)


def _value(side, result):
    return result[0] if side.name == "numpy" else result


_SMALL = dict(d_model=2, n_experts=4, k=2)


@case(
    "layers.Router",
    also=[steps, evens],
    fill={"weight": array(hostile=False), "spread": array(scale=0.3, hostile=False),
          "correction": array(low=-0.5, high=0.5, hostile=False)},
    bench=dict(init=dict(d_model=512, n_experts=64, k=8), call=dict(x=array(4096, 512))),
    refuses=[
        dict(init=dict(d_model=0, n_experts=4, k=2)),
        dict(init=dict(d_model=2, n_experts=0, k=1)),
        dict(init=dict(d_model=2, n_experts=4, k=5)),
        dict(init=dict(d_model=2, n_experts=4, k=0)),
        dict(init=_SMALL | dict(choice="tokens")),
        dict(init=_SMALL | dict(score="softplus")),
        dict(init=_SMALL | dict(scale=0.0)),
        dict(init=_SMALL | dict(groups=3)),
        dict(init=_SMALL | dict(groups=2, top_groups=3)),
        dict(init=dict(d_model=2, n_experts=4, k=3, groups=2, top_groups=1)),
        dict(init=_SMALL | dict(group_score="sum")),
        dict(init=_SMALL | dict(capacity_factor=0.0)),
        dict(init=_SMALL | dict(min_capacity=0)),
        dict(init=_SMALL | dict(drop_order="random")),
        dict(init=_SMALL | dict(jitter=2.0)),
        dict(init=_SMALL | dict(noisy=1)),
        dict(init=_SMALL | dict(choice="expert", renormalise=True)),
        dict(init=_SMALL | dict(choice="expert", correction=True)),
        dict(init=_SMALL | dict(choice="expert", capacity_factor=1.0)),
        dict(init=_SMALL, call=dict(x=array(2))),
        dict(init=_SMALL, call=dict(x=array(2, 3))),
        dict(init=_SMALL, call=dict(x=np.ones((3, 2), np.int64))),
        dict(init=_SMALL, call=dict(x=np.ones((3, 2), np.float32), real=[True, False, True])),
        dict(init=_SMALL, call=dict(x=np.array([[0.0, np.nan]]))),
        dict(init=_SMALL, call=dict(x=array(3, 2), real=mask(2))),
        dict(init=_SMALL, call=dict(x=array(3, 2), real=array(3))),
    ],
)
def router(draw):
    n, e = draw(size(0, 7)), draw(one_of(1, 2, 3, 4, 6))
    k = draw(integer(1, e))
    width = draw(integer(1, 6))
    return dict(
        init=dict(d_model=width, n_experts=e, k=k, **options(draw, e, k)),
        call=dict(x=array(n, width, hostile=False), real=draw(left_out(maybe(mask(n)))), noise=draw(left_out(maybe(noise())))),
    )


