"""What a mixture of experts is fed: any routes, gated and ungated experts, and every activation; it equals the dense computation."""

import numpy as np

from numpy_impl.moe.permute import plan as planned
from parity.cases import array, case, flag, ids, left_out, one_of, size
from parity.cases.moe.permute import routed

_GATED = ("swiglu", "geglu", "geglu_tanh", "reglu", "glu", "bilinear")
_UNGATED = ("gelu", "gelu_tanh", "gelu_sigmoid", "relu", "relu_squared", "silu", "mish")


def drawn(draw):
    """Arguments of either component; the plan is a tuple of its three arrays."""
    n, experts, width, hidden = draw(size(0, 6)), draw(size(1, 5)), draw(size(0, 5)), draw(size(0, 6))
    k = draw(one_of(1, 2, experts))
    chosen = routed(draw, n, experts, k)
    kept = np.random.default_rng(n).random(chosen.shape) < draw(one_of(0.0, 0.6)) if draw(flag()) else None
    gated = draw(flag())
    return dict(
        x=draw(array(n, width)), weights=draw(array(n, k)), gate=draw(array(experts, hidden, width, scale=max(width, 1) ** -0.5)) if gated
        else None, up=draw(array(experts, hidden, width, scale=max(width, 1) ** -0.5)),
        down=draw(array(experts, width, hidden, scale=max(hidden, 1) ** -0.5)), plan=tuple(planned(chosen, experts=experts, kept=kept)),
        activation=draw(left_out(one_of(*_GATED))) if gated else draw(one_of(*_UNGATED)),
    )


def chosen_by_experts(side, x, weights, gate, up, down, plan, activation="swiglu"):
    """Routes that the experts chose: a token has any number of rows, or none, and a weight may weigh two rows."""
    n, experts, rows = len(x), len(up), 3
    if n == 0:
        return
    rng = np.random.default_rng(n)
    tokens = rng.integers(0, n, experts * rows)
    slots = np.arange(experts * rows)
    slots[-1] = 0
    weights = side.array(rng.standard_normal((experts, rows)))
    arrays = [None if a is None else side.array(side.numpy(a)) for a in (x, weights, gate, up, down)]
    options = dict(plan=tuple(map(side.array, (tokens, slots, np.full(experts, rows)))), activation=activation)
    yield from _equal(side, arrays, options)


def equals_dense(side, x, weights, gate, up, down, plan, activation="swiglu"):
    """Every expert on every token, then masked and weighed: the same output and the same gradients."""
    arrays = [None if a is None else side.array(side.numpy(a)) for a in (x, weights, gate, up, down)]
    yield from _equal(side, arrays, dict(plan=plan, activation=activation))


def composed(side, x, weights, gate, up, down, plan, activation="swiglu"):
    """Step by step over all experts at once: permute, grouped linear maps, the activation, un-permute; and back in the opposite order."""
    if side.name == "torch" or gate is None:
        return
    tokens, slots, counts = plan
    grouped, dy = side.get("moe.grouped_linear"), np.random.default_rng(1).standard_normal(x.shape)
    rows, permute_backward = side.get("moe.permute")(x, tokens=tokens)
    opened, gate_backward = grouped(rows, gate, counts=counts)
    raised, up_backward = grouped(rows, up, counts=counts)
    h, gated_backward = side.get(f"ops.{activation}")(opened, raised)
    results, down_backward = grouped(h, down, counts=counts)
    want, unpermute_backward = side.get("moe.unpermute")(results, weights.reshape(-1)[slots], tokens=tokens, n=len(x))
    dresults, dtaken = unpermute_backward(dy)
    dh, ddown, _ = down_backward(dresults)
    dopened, draised = gated_backward(dh)
    (drows, dup, _), (drows_by_gate, dgate, _) = up_backward(draised), gate_backward(dopened)
    y, backward = side.get("moe.experts")(x, weights, gate, up, down, plan=plan, activation=activation)
    dx, dweights, *dexperts = backward(dy)
    yield "y", y, want
    yield "dx", dx, permute_backward(drows + drows_by_gate)
    yield "dweights", dweights.reshape(-1)[slots], dtaken
    yield from zip(("dgate", "dup", "ddown"), dexperts, (dgate, dup, ddown), strict=True)


def _equal(side, arrays, options):
    sparse, dense = side.get("moe.experts"), side.get("moe.dense_experts")
    names: tuple[str, ...] = ("dx", "dweights", "dgate", "dup", "ddown")
    if side.name == "numpy":
        (y, backward), (want, dense_backward) = sparse(*arrays, **options), dense(*arrays, **options)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        got, wanted = backward(dy), dense_backward(dy)
    else:
        import torch

        present = [a.requires_grad_() for a in arrays if a is not None]
        y, want = sparse(*arrays, **options), dense(*arrays, **options)
        dy = side.array(np.random.default_rng(1).standard_normal(tuple(y.shape)))
        got, wanted = (torch.autograd.grad(z, present, dy) for z in (y, want))
        names = tuple(name for name, a in zip(names, arrays, strict=True) if a is not None)
        y, want = y.detach(), want.detach()
    yield "y", y, want
    for name, one, other in zip(names, got, wanted, strict=True):
        if other is not None:
            yield name, one, other


def refused() -> list[dict]:
    """Bad arguments of either."""
    tokens, slots, counts = np.array([0, 2, 1]), np.array([0, 4, 3]), np.array([2, 1])
    good: dict = dict(x=array(3, 2), weights=array(3, 2), gate=array(2, 4, 2), up=array(2, 4, 2), down=array(2, 2, 4),
                      plan=(tokens, slots, counts))
    return [good | changes for changes in (
        dict(x=None),
        dict(up=None),
        dict(x=array(2)),
        dict(x=array(3, 3)),
        dict(x=ids(3, 2, below=2)),
        dict(gate=array(2, 2, 4)),
        dict(up=array(4, 2)),
        dict(up=array(3, 4, 2)),
        dict(down=array(2, 4, 2)),
        dict(activation="gelu"),
        dict(gate=None),
        dict(gate=None, activation="glu"),
        dict(plan=np.array([0, 1])),
        dict(plan=None),
        dict(plan=(tokens, slots)),
        dict(plan=(tokens + 1, slots, counts)),
        dict(plan=(tokens - 1, slots, counts)),
        dict(plan=(tokens, slots + 2, counts)),
        dict(plan=(tokens[None], slots[None], counts)),
        dict(plan=(tokens, slots[:2], counts)),
        dict(plan=(tokens, slots, counts + 1)),
        dict(plan=(tokens, slots, np.array([4, -1]))),
        dict(plan=(tokens, slots, np.array([2, 1, 0]))),
        dict(plan=(tokens, slots, counts[None])),
        dict(plan=(tokens / 2, slots, counts)),
    )]


def bench(tokens=4096):
    """Tokens, each to 2 of 8 experts."""
    rng = np.random.default_rng(0)
    chosen = np.argsort(rng.random((tokens, 8)), axis=1)[:, :2]
    return dict(x=array(tokens, 512), weights=array(tokens, 2), gate=array(8, 1024, 512, scale=0.04), up=array(8, 1024, 512, scale=0.04),
                down=array(8, 512, 1024, scale=0.03), plan=tuple(planned(chosen, experts=8)))


@case("moe.experts", also=[equals_dense, chosen_by_experts, composed], bench=bench(), refuses=refused())
def experts(draw):
    return drawn(draw)
