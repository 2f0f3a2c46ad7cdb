"""What reduce_on_plateau is fed: histories that fall, stand still, rise and tie, in both modes; and what it refuses."""

from parity.cases import case, integer, left_out, one_of


@case("optim.reduce_on_plateau", gradient=False, refuses=[dict(losses=[1.0, 2.0], lr=0.1) | bad
                                                          for bad in (dict(losses=["1"]), dict(lr=0.0), dict(factor=1.0), dict(factor=-0.1),
                                                                      dict(factor=1.1), dict(patience=-1), dict(cooldown=-1),
                                                                      dict(patience=1.5), dict(threshold=-1e-4), dict(threshold_mode="rle"),
                                                                      dict(mode="mni"), dict(min_lr=0.2), dict(min_lr=-0.1))])
def reduce_on_plateau(draw):
    levels = one_of(1.0, 0.9, 1.1, 0.5, 2.0, -1.0, 0.0, float("nan"))
    options = dict(
        factor=one_of(0.5, 0.9),
        patience=integer(0, 2),
        threshold=one_of(0.0, 0.1, 0.5),
        threshold_mode=one_of("rel", "abs"),
        mode=one_of("min", "max"),
        cooldown=integer(0, 2),
        min_lr=one_of(0.0, 0.01),
    )
    losses = [draw(levels) for _ in range(draw(one_of(0, 15, integer(1, 25))))]
    return dict(losses=losses, lr=draw(one_of(1.0, 0.05)), **{name: draw(left_out(spec)) for name, spec in options.items()})
