"""What the falling schedules are fed: steps before, at and after every edge; and what they refuse."""

from parity.cases import case, integer, left_out, number, one_of

_LR = one_of(1.0, 3e-4, number(0.01, 2.0))
_BAD = [dict(step=-1, lr=0.1), dict(step=1.5, lr=0.1), dict(step=True, lr=0.1), dict(step=3, lr=0.0), dict(step=3, lr=float("nan"))]


def _with(**options):
    return [bad | options for bad in _BAD]


@case("optim.constant", gradient=False, refuses=_BAD)
def constant(draw):
    return dict(step=draw(integer(0, 9)), lr=draw(_LR))


@case("optim.step_decay", gradient=False, refuses=[*_with(every=2), dict(step=3, lr=0.1, every=0),
                                                   dict(step=3, lr=0.1, every=2, factor=1.1),
                                                   dict(step=3, lr=0.1, every=2, factor=-0.1)])
def step_decay(draw):
    return dict(step=draw(integer(0, 12)), lr=draw(_LR), every=draw(integer(1, 4)), factor=draw(left_out(one_of(0.5, 0.9, 1.0, 0.0))))


@case("optim.multi_step", gradient=False, refuses=[*_with(milestones=[2]), dict(step=3, lr=0.1, milestones=[4, 2]),
                                                   dict(step=3, lr=0.1, milestones=[2, 2]), dict(step=3, lr=0.1, milestones=[-1, 2]),
                                                   dict(step=3, lr=0.1, milestones=[0.5]),
                                                   dict(step=3, lr=0.1, milestones=[2], factor=2.0)])
def multi_step(draw):
    milestones = draw(one_of([], [0], [3], [2, 5], [1, 2, 7]))
    return dict(step=draw(integer(0, 9)), lr=draw(_LR), milestones=milestones, factor=draw(left_out(one_of(0.5, 0.9))))


@case("optim.exponential", gradient=False, refuses=[*_with(factor=0.5), dict(step=3, lr=0.1, factor=1.5),
                                                    dict(step=3, lr=0.1, factor=-0.5)])
def exponential(draw):
    return dict(step=draw(integer(0, 12)), lr=draw(_LR), factor=draw(one_of(0.5, 0.9, 1.0)))


@case("optim.linear", gradient=False, refuses=[*_with(total_steps=4), dict(step=3, lr=0.1, total_steps=0),
                                               dict(step=3, lr=0.1, total_steps=4, start_factor=0.0),
                                               dict(step=3, lr=0.1, total_steps=4, start_factor=1.1),
                                               dict(step=3, lr=0.1, total_steps=4, end_factor=-0.1),
                                               dict(step=3, lr=0.1, total_steps=4, end_factor=1.1)])
def linear(draw):
    factors = dict(start_factor=draw(left_out(one_of(0.1, 0.5, 1.0))), end_factor=draw(left_out(one_of(0.0, 0.25, 1.0))))
    return dict(step=draw(integer(0, 9)), lr=draw(_LR), total_steps=draw(integer(1, 6)), **factors)


@case("optim.polynomial", gradient=False, refuses=[*_with(total_steps=4), dict(step=3, lr=0.1, total_steps=0),
                                                   dict(step=3, lr=0.1, total_steps=4, power=0.0),
                                                   dict(step=3, lr=0.1, total_steps=4, min_lr=0.2),
                                                   dict(step=3, lr=0.1, total_steps=4, min_lr=-0.1)])
def polynomial(draw):
    options = dict(power=draw(left_out(one_of(0.5, 1, 2.0, 3.5))), min_lr=draw(left_out(one_of(0.0, 1e-4))))
    return dict(step=draw(integer(0, 9)), lr=draw(_LR), total_steps=draw(integer(1, 6)), **options)


@case("optim.cosine", gradient=False, refuses=[*_with(total_steps=4), dict(step=3, lr=0.1, total_steps=0),
                                               dict(step=3, lr=0.1, total_steps=4, min_lr=0.2),
                                               dict(step=3, lr=0.1, total_steps=4, min_lr=-0.1)])
def cosine(draw):
    return dict(step=draw(integer(0, 15)), lr=draw(_LR), total_steps=draw(integer(1, 8)), min_lr=draw(left_out(one_of(0.0, 1e-4))))
