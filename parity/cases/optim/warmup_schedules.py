"""What the schedules with a warm-up are fed: steps before, at and after every edge, phases without length; and what they refuse."""

from parity.cases import case, integer, left_out, number, one_of

_LR = one_of(1.0, 3e-4, number(0.01, 2.0))


def _step(draw, warmup, total):
    return draw(one_of(integer(0, warmup), integer(warmup, total), integer(0, 2 * total)))


def _bad(**options):
    wrong = [dict(step=-1), dict(step=1.5), dict(lr=0.0), dict(lr=float("inf")), dict(warmup_steps=-1), dict(warmup_steps=0.5)]
    return [dict(step=3, lr=0.1, warmup_steps=2) | options | one for one in wrong]


def _bad_total():
    wrong = [dict(total_steps=0, warmup_steps=0), dict(total_steps=1), dict(min_lr=0.2), dict(min_lr=-0.1)]
    return [dict(step=3, lr=0.1, warmup_steps=2, total_steps=4) | one for one in wrong]


@case("optim.warmup_constant", gradient=False, refuses=_bad())
def warmup_constant(draw):
    return dict(step=draw(integer(0, 6)), lr=draw(_LR), warmup_steps=draw(integer(0, 5)))


@case("optim.warmup_linear", gradient=False, refuses=[*_bad(total_steps=4), *_bad_total()])
def warmup_linear(draw):
    warmup = draw(integer(0, 4))
    total = max(warmup + draw(integer(0, 5)), 1)
    lr = draw(_LR)
    min_lr = draw(left_out(one_of(0.0, 0.1 * lr)))
    return dict(step=_step(draw, warmup, total), lr=lr, warmup_steps=warmup, total_steps=total, min_lr=min_lr)


@case("optim.warmup_cosine", gradient=False, refuses=[*_bad(total_steps=4), *_bad_total()])
def warmup_cosine(draw):
    warmup = draw(integer(0, 4))
    total = max(warmup + draw(integer(0, 7)), 1)
    min_lr = draw(left_out(one_of(0.0, 1e-4)))
    return dict(step=_step(draw, warmup, total), lr=draw(_LR), warmup_steps=warmup, total_steps=total, min_lr=min_lr)


@case("optim.inverse_sqrt", gradient=False, refuses=[*_bad(), dict(step=3, lr=0.1, warmup_steps=2, timescale=0),
                                                     dict(step=3, lr=0.1, warmup_steps=2, timescale=1.5)])
def inverse_sqrt(draw):
    return dict(step=draw(integer(0, 20)), lr=draw(_LR), warmup_steps=draw(integer(0, 5)), timescale=draw(left_out(one_of(None, 1, 7))))


@case("optim.warmup_stable_decay", gradient=False, refuses=[*_bad(stable_steps=1, decay_steps=2),
                                                            *(dict(step=3, lr=0.1, warmup_steps=2, stable_steps=1, decay_steps=2) | bad
                                                              for bad in (dict(stable_steps=-1), dict(decay_steps=-1), dict(min_lr=0.2),
                                                                          dict(min_lr=-0.1), dict(warmup_type="Linear"),
                                                                          dict(decay_type="sqrt")))])
def warmup_stable_decay(draw):
    lengths = warmup, stable, decay = [draw(one_of(0, 3, integer(1, 5))) for _ in range(3)]
    step = draw(one_of(integer(0, warmup), warmup + stable, integer(warmup + stable, sum(lengths)), integer(0, sum(lengths) + 2)))
    shapes = {end: draw(one_of(left_out("linear"), "cosine", "1-sqrt")) for end in ("warmup_type", "decay_type")}
    phases = dict(warmup_steps=warmup, stable_steps=stable, decay_steps=decay)
    return dict(step=step, lr=draw(_LR), **phases, **shapes, min_lr=draw(left_out(one_of(0.0, 1e-4))))
