"""What the cyclic schedules are fed: steps at and around every restart and every change of phase; and what they refuse."""

from parity.cases import case, integer, left_out, number, one_of

_LR = one_of(1.0, 3e-4, number(0.01, 2.0))


@case("optim.cosine_restarts", gradient=False, refuses=[dict(step=3, lr=0.1, T_0=2) | bad
                                                        for bad in (dict(step=-1), dict(lr=0.0), dict(T_0=0), dict(T_0=1.5), dict(T_mult=0),
                                                                    dict(T_mult=1.5), dict(min_lr=0.2), dict(min_lr=-0.1))])
def cosine_restarts(draw):
    cycles = dict(T_0=draw(integer(1, 5)), T_mult=draw(left_out(one_of(1, 2, 3))))
    return dict(step=draw(integer(0, 20)), lr=draw(_LR), **cycles, min_lr=draw(left_out(one_of(0.0, 1e-4))))


@case("optim.one_cycle", gradient=False, refuses=[dict(step=3, lr=0.1, total_steps=9) | bad
                                                  for bad in (dict(step=-1), dict(step=9), dict(lr=0.0), dict(total_steps=0, step=0),
                                                              dict(total_steps=3, step=0), dict(pct_start=0.0), dict(pct_start=1.1),
                                                              dict(pct_start=0.6, three_phase=True),
                                                              dict(pct_start=1, total_steps=1, step=0),
                                                              dict(anneal_strategy="cosine"), dict(div_factor=0.0),
                                                              dict(final_div_factor=-1.0), dict(three_phase="yes"))])
def one_cycle(draw):
    total = draw(integer(8, 14))
    three = draw(one_of(True, True, False, left_out(False)))
    share = draw(left_out(one_of(0.25, 0.4, 0.5) if three is True else one_of(0.25, 0.5, 0.8, 1.0)))
    return dict(
        step=draw(one_of(0, total - 1, integer(0, total - 1), integer(total // 4, total // 2), integer(total // 2, total - 1))),
        lr=draw(_LR),
        total_steps=total,
        pct_start=share,
        anneal_strategy=draw(left_out(one_of("cos", "linear"))),
        div_factor=draw(left_out(10.0)),
        final_div_factor=draw(left_out(50.0)),
        three_phase=three,
    )
