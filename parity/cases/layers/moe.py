"""What a mixture of experts is fed: every way to route, shared experts, lost tokens, padding; it equals the dense computation."""

import numpy as np

from byhand.noise import at
from parity.cases import array, case, flag, integer, left_out, maybe, noise, one_of
from parity.cases.layers.router import options
from parity.values import key_rng


def dense(side, module, x, noise=None):
    """Every expert on every token, masked and weighed; what had no place, as `dropped` says; and the shared expert."""
    rows = x.reshape(-1, x.shape[-1]) if x.shape[-1] else x.reshape(int(np.prod(x.shape[:-1])), 0)
    sent = _value(side, module.router.forward(rows, noise=at(noise, "router")))
    e = module.experts
    want = _value(side, side.get("moe.dense_experts")(
        rows, sent.weights, e.gate_proj, e.up_proj, e.down_proj, plan=(sent.tokens, sent.slots, sent.counts), activation=e.activation
    ))
    if module.dropped == "residual" and module.router.choice != "expert":
        lost = np.ones(int(np.prod(tuple(sent.weights.shape))), bool)
        lost[side.numpy(sent.slots)] = False
        want = want + (sent.weights * side.array(lost.reshape(tuple(sent.weights.shape)))).sum(-1)[:, None] * rows
    if module.shared is not None:
        want = want + _always(side, module, rows, noise)
    yield "y", _value(side, module.forward(x, noise=noise)), want.reshape(x.shape)


def tells(side, module, x, noise=None):
    """`routed` gives the same y, and what was chosen; padding goes to no expert; cotangents of logits reach x and the router alone."""
    lead = tuple(x.shape[:-1])
    real = key_rng("real", lead).random(lead) < 0.6
    if side.name == "torch":
        y, (routing,) = module.routed(x, noise=noise)
        yield "y", y, module(x, noise=noise)
        yield "chosen", tuple(routing.chosen.shape), (*lead, module.router.n_experts)
        y, (padded,) = module.routed(x, real=side.array(real), noise=noise)
        yield "padding computed", int(side.numpy(padded.kept)[~real].sum()), 0
        yield "padding", y[side.array(~real)], _always(side, module, x, noise)[side.array(~real)]
        return
    y, (routing,), backward = module.routed(x, noise=noise)
    yield "y", y, module(x, noise=noise)
    rng = key_rng("dlogits", routing.logits.shape)
    dy, dlogits = rng.standard_normal(y.shape), rng.standard_normal(routing.logits.shape)
    dx, grads = backward(dy, (dlogits,))
    dx_of_y, grads_of_y = backward(dy)
    yield "experts' gradient", grads["experts"]["up_proj"], grads_of_y["experts"]["up_proj"]
    if module.router.jitter == 0 and module.router.spread is None:              # then logits = x · weightᵀ
        rows, flat = x.reshape(-1, x.shape[-1]), dlogits.reshape(-1, dlogits.shape[-1])
        yield "dx by the logits", dx, dx_of_y + dlogits @ module.router.weight
        yield "dweight by the logits", grads["router"]["weight"], grads_of_y["router"]["weight"] + flat.T @ rows
    y, (routing,), _ = module.routed(x, real=real, noise=noise)
    yield "padding computed", int(routing.kept[~real].sum()), 0
    yield "padding", y[~real], _always(side, module, x, noise)[~real]
    if module.router.choice == "token" and module.router.capacity_factor is None:
        yield "what is no padding", y[real], module(x, noise=noise)[real]


def _always(side, module, x, noise):
    """What every token gets, padding too: the shared expert's output, or 0."""
    if module.shared is None:
        return 0 * x
    always = _value(side, module.shared.forward(x, noise=at(noise, "shared")))
    if module.shared_gate is None:
        return always
    return always * _value(side, side.get("ops.sigmoid")(_value(side, module.shared_gate.forward(x))))


def _value(side, result):
    return result[0] if side.name == "numpy" else result


_SMALL = dict(d_model=2, d_hidden=3, n_experts=4, k=2)


@case(
    "layers.MoE",
    also=[dense, tells],
    fill={"router.weight": array(hostile=False), "spread": array(scale=0.3, hostile=False), "proj": array(scale=0.5, hostile=False),
          "proj.weight": array(scale=0.5, hostile=False), "correction": array(low=-0.5, high=0.5, hostile=False),
          "shared_gate.weight": array(hostile=False)},
    bench=dict(init=dict(d_model=256, d_hidden=512, n_experts=8, k=2), call=dict(x=array(4, 512, 256))),
    refuses=[
        dict(init=_SMALL | dict(dropped="none")),
        dict(init=_SMALL | dict(shared_gate=True)),
        dict(init=_SMALL | dict(d_shared=0)),
        dict(init=_SMALL | dict(k=5)),
        dict(init=_SMALL | dict(activation="swish")),
        dict(init=_SMALL | dict(groups=3)),
        dict(init=_SMALL, call=dict(x=array())),
        dict(init=_SMALL, call=dict(x=array(2, 3))),
        dict(init=_SMALL, call=dict(x=np.ones((3, 2), np.int64))),
        dict(init=_SMALL, call=dict(x=np.array([[np.nan, 0.0]]))),
    ],
)
def moe(draw):
    lead = [draw(integer(0, 3)) for _ in range(draw(integer(0, 2)))]
    e = draw(one_of(1, 2, 3, 4, 6))
    k, width = draw(integer(1, e)), draw(integer(1, 5))
    shared, routing = draw(left_out(maybe(integer(1, 4)))), options(draw, e, k)
    return dict(
        init=dict(
            d_model=width, d_hidden=draw(integer(1, 5)), n_experts=e, k=k,
            activation=draw(left_out(one_of("swiglu", "geglu", "gelu", "relu_squared"))), d_shared=shared,
            shared_gate=draw(flag()) if isinstance(shared, int) else draw(left_out(False)),
            dropped=draw(one_of("zero", "residual", "residual")),
            **routing,
        ),
        call=dict(x=array(*lead, width, hostile=False), noise=noise() if routing["noisy"] is True else draw(left_out(maybe(noise())))),
    )


