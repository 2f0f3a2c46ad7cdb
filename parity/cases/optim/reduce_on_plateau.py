"""What reduce_on_plateau is fed: histories that fall, stand still, rise and tie, in both modes; and what it refuses."""

from parity.cases import case, integer, one_of


@case("optim.reduce_on_plateau", gradient=False, refuses=[dict(losses=[1.0, 2.0], lr=0.1) | bad
                                                          for bad in (dict(losses=["1"]), dict(lr=0.0), dict(factor=1.0), dict(factor=-0.1),
                                                                      dict(factor=1.1), dict(patience=-1), dict(cooldown=-1),
                                                                      dict(patience=1.5), dict(threshold=-1e-4), dict(threshold_mode="rle"),
                                                                      dict(mode="mni"), dict(min_lr=0.2), dict(min_lr=-0.1))])
def reduce_on_plateau(draw):
    return dict(lr=draw(one_of(1.0, 0.05))) | draw(one_of(_defaults, _defaults, _any_losses, _any_losses, _edge, _edge))(draw)


def _options(draw):
    return dict(
        factor=draw(one_of(0.5, 0.9)),
        patience=draw(one_of(0, 0, 1, 2)),
        threshold=draw(one_of(0.0, 0.1, 0.5, 0.5)),
        threshold_mode=draw(one_of("rel", "abs")),
        mode=draw(one_of("min", "max")),
        cooldown=draw(one_of(0, 1, 2)),
        min_lr=draw(one_of(0.0, 0.01)),
    )


def _any_losses(draw):
    levels = one_of(1.0, 0.95, 1.2, 0.6, 2.0, -1.0, -1.3, float("nan"))
    return dict(losses=[draw(levels) for _ in range(draw(one_of(0, 5, 8, integer(1, 25))))]) | _options(draw)


def _edge(draw):
    """One loss that is better by a hair, or not better by a tie or by far, and then as many bad ones as are borne after a better one."""
    options = _options(draw)
    change = -options["threshold"] if options["mode"] == "min" else options["threshold"]
    worse = 2.0 if options["mode"] == "min" else 0.0
    second = 1.0 + change * draw(one_of(0.5, 1.0, 1 + 5e-7))
    return dict(losses=[*draw(one_of([], [float("nan")])), 1.0, second] + [worse] * options["patience"]) | options


def _defaults(draw):
    """The same with every option left out; and long enough for a second reduction."""
    return dict(losses=[1.0, 1.0 - 1e-4 * draw(one_of(1.0, 1 + 5e-7))] + [2.0] * draw(one_of(10, 21, 22)))
