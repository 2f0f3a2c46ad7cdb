"""What the normalising layers are fed: any leading axes; BatchNorm in training and out of it."""

from parity.cases import array, case, dims, flag, left_out, number, one_of


@case("layers.LayerNorm", refuses=[dict(init=dict(width=0)), dict(init=dict(width=3), call=dict(x=array(3, 2)))])
def layer_norm(draw):
    *lead, width = draw(dims(min_last=1))
    return dict(
        init=dict(width=width, eps=draw(left_out(one_of(1e-5, 1e-3))), bias=draw(left_out(flag()))),
        call=dict(x=array(*lead, width, scale=draw(one_of(1.0, 1e-2)))),
    )


@case("layers.RMSNorm", refuses=[dict(init=dict(width=0)), dict(init=dict(width=3), call=dict(x=array(3, 2)))])
def rms_norm(draw):
    *lead, width = draw(dims(min_last=1))
    return dict(
        init=dict(width=width, eps=draw(left_out(one_of(1e-5, 1e-3))), unit_offset=draw(left_out(flag()))),
        call=dict(x=array(*lead, width, scale=draw(one_of(1.0, 1e-2)))),
    )


def keeps(side, module, x, training=False):
    """`keep` puts the new running statistics in place; the forward alone leaves them."""
    out = module.forward(x, training=True)
    out = out[0] if side.name == "numpy" else out
    yield "untouched", module.running_mean * 1, module.state_dict()["running_mean"] * 1
    module.keep(out)
    yield "running_mean", module.state_dict()["running_mean"], out.running_mean
    yield "running_var", module.state_dict()["running_var"], out.running_var


@case(
    "layers.BatchNorm",
    detached=("running_mean", "running_var"),
    fill={"running_var": array(low=0.5, high=2.0)},
    refuses=[
        dict(init=dict(width=0)),
        dict(init=dict(width=3), call=dict(x=array(3, 2))),
        dict(init=dict(width=2), call=dict(x=array(1, 2), training=True)),
    ],
    also=[keeps],
)
def batch_norm(draw):
    training = draw(left_out(flag()))
    rows, width, *positions = (max(n, 1) for n in draw(dims(2, 4)))
    rows = max(rows, 2)
    return dict(
        init=dict(width=width, eps=draw(left_out(one_of(1e-5, 1e-3))), momentum=draw(left_out(number(0, 1)))),
        call=dict(x=array(rows, width, *positions), training=training),
    )
