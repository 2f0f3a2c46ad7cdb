"""What a prefix is: any number of entries and heads, learned as they are or through an MLP."""

from parity.cases import array, case, integer, left_out, maybe, size


def materialized(side, module):
    """The rows in place of the MLP hold the same entries, bit for bit."""
    if module.rows is not None:
        try:
            module.materialize()
        except ValueError:
            return
        yield "refused", False, True
    before = module()
    module.materialize()
    for name, value in module()._asdict().items():
        yield name, (side.numpy(value) == side.numpy(before._asdict()[name])).all(), True
    yield "all that is left", list(module.state_dict()) == ["rows"], True
    if side.name == "numpy":
        yield "trained", list(module.parameters()) == ["rows"], True


def starts_small(side, module):
    """The rows start with a deviation of 0.02, on a prefix large enough to tell."""
    rows = side.numpy(side.get("finetune.Prefix")(20, 4, 5, dtype=side.dtype).rows)
    yield "deviation", abs(rows.std() / 0.02 - 1) < 0.15, True


@case(
    "finetune.Prefix",
    also=[materialized, starts_small],
    bench=dict(init=dict(n=16, n_heads=8, head_width=64, hidden=512), call=dict()),
    fill={"embedding": array()},
    refuses=[
        dict(init=dict(n=-1, n_heads=2, head_width=3)), dict(init=dict(n=1, n_heads=0, head_width=3)),
        dict(init=dict(n=1, n_heads=2, head_width=0)), dict(init=dict(n=1, n_heads=2, head_width=3, hidden=0)),
        dict(init=dict(n=1.0, n_heads=2, head_width=3)),
    ],
    equivalent={
        "0.02 * rng.standard_normal((n, 2 * width)) -> 0.02002 * rng.standard_normal((n, 2 * width))":
            "no sample shows so small a change of the deviation",
        "0.02 * rng.standard_normal((n, 2 * width)) -> 0.02000002 * rng.standard_normal((n, 2 * width))":
            "no sample shows so small a change of the deviation",
    },
)
def prefix(draw):
    return dict(
        init=dict(n=draw(integer(0, 4)), n_heads=draw(integer(1, 3)), head_width=draw(size()), hidden=draw(left_out(maybe(size())))),
        call=dict(),
    )
