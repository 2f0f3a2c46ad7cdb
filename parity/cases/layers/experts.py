"""What stacked experts are fed: gated and ungated ones, any routes; each equals a feed-forward layer of its own."""

import numpy as np

from numpy_impl.moe.permute import plan as planned
from parity.cases import array, case, integer, left_out, one_of, size
from parity.cases.moe.permute import routed


def single_layers(side, module, x, weights, plan):
    """Expert e is a feed-forward layer with slice e of the weights."""
    tokens, slots, counts = (side.numpy(part) for part in plan)
    gated = module.gate_proj is not None
    width, hidden = module.up_proj.shape[2], module.up_proj.shape[1]
    want, start = np.zeros(x.shape), 0
    for e, count in enumerate(counts.tolist()):
        layer = side.get("layers.GatedFeedForward" if gated else "layers.FeedForward")(
            width, hidden, activation=module.activation, bias=False, dtype=side.dtype
        )
        side.load(layer, {f"{name}.weight": side.numpy(value)[e] for name, value in module.state_dict().items()})
        rows = slice(start, start + count)
        y = side.numpy(layer(x[tokens[rows]]))
        for m, row in zip(range(rows.start, rows.stop), y, strict=True):
            want[tokens[m]] += side.numpy(weights).reshape(-1)[slots[m]] * row
        start += count
    yield "y", module(x, weights, plan=plan), side.array(want)


def starts(side, module, x, weights, plan):
    """Every array is uniform within ±1/√(what it is multiplied by), as those of Linear layers are."""
    layer = side.get("layers.Experts")(2, 128, 600, dtype=side.dtype)            # more numbers than are drawn at once
    for name, width in (("gate_proj", 128), ("up_proj", 128), ("down_proj", 600)):
        value = side.numpy(layer.state_dict()[name]) * width**0.5
        yield f"{name} fills its range", 0.98 < np.abs(value).max() <= 1, True
        for part in (value.reshape(-1)[:1000], value.reshape(-1)[-1000:]):
            yield f"deviation of {name}", abs(float(part.std()) * 3**0.5 - 1) < 0.15, True


@case(
    "layers.Experts",
    also=[single_layers, starts],
    fill={"proj": array(scale=0.5)},
    bench=dict(init=dict(n_experts=8, d_model=256, d_hidden=512), call=dict(
        x=array(2048, 256), weights=array(2048, 2),
        plan=tuple(planned(np.random.default_rng(0).random((2048, 8)).argsort(-1)[:, :2], experts=8)))),
    refuses=[
        dict(init=dict(n_experts=0, d_model=2, d_hidden=3)),
        dict(init=dict(n_experts=2, d_model=0, d_hidden=3)),
        dict(init=dict(n_experts=2, d_model=2, d_hidden=1.5)),
        dict(init=dict(n_experts=2, d_model=2, d_hidden=3, activation="swish")),
        dict(init=dict(n_experts=2, d_model=2, d_hidden=3),
             call=dict(x=array(2, 3), weights=array(2, 1), plan=tuple(planned(np.array([[0], [1]]), experts=2)))),
        dict(init=dict(n_experts=2, d_model=2, d_hidden=3),
             call=dict(x=array(2, 2), weights=array(2, 1), plan=tuple(planned(np.array([[0], [1]]), experts=3)))),
    ],
)
def experts(draw):
    n, e, width = draw(size(0, 6)), draw(size(1, 5)), draw(size(1, 6))
    chosen = routed(draw, n, e, draw(one_of(1, 2, e)))
    kept = np.random.default_rng(n).random(chosen.shape) < draw(one_of(0.0, 0.6, 1.0))
    return dict(
        init=dict(n_experts=e, d_model=width, d_hidden=draw(integer(1, 6)),
                  activation=draw(left_out(one_of("swiglu", "geglu", "bilinear", "gelu", "relu_squared")))),
        call=dict(x=array(n, width), weights=array(*chosen.shape), plan=tuple(planned(chosen, experts=e, kept=kept))),
    )
