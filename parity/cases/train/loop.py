"""What fit is fed: up to four updates of a small GPT with dropout, with and without schedule, clipping and validation."""

from parity.cases import case, integer, left_out, maybe, noise, number, one_of
from parity.cases.train.accumulate import SCALES, WEIGHTS, micro_batches, model, pairs
from parity.cases.train.step import optimizer, weights_of


def play_fit(side, *, weights, dropout, kind, batches, more=0, lrs=None, validation=None, **options):
    made = model(side, weights, dropout)
    if lrs is not None:
        options["schedule"] = lambda step: lrs[step]
    if validation is not None:
        options["validation"] = pairs(side, validation)

    def drawn(step):
        return pairs(side, batches[step % len(batches)])

    shown, one = {}, optimizer(side, made, kind)

    def run(**more):
        progress = None
        for progress in side.get("train.fit")(made, one, drawn, **options, **more):
            metrics = progress.metrics._asdict()
            del metrics["seconds"]
            taken = {} if progress.validation is None else {"validation": progress.validation}
            shown[f"step {progress.step}"] = metrics | taken | dict(best=progress.best, lowest=progress.lowest, forwards=progress.forwards)
        return progress

    last = run()
    options["steps"] += more
    run(after=last._replace(metrics=None, validation=None, best=False))
    return shown | {"weights": weights_of(side, made)}


_BAD = dict(weights=WEIGHTS, dropout=0.0, kind="sgd", batches=[[]])


@case("train.fit", play=play_fit, refuses=[_BAD | dict(steps=0), _BAD | dict(steps=2, validate_every=0), _BAD | dict(steps=1)])
def fit(draw):
    steps, still = draw(integer(2, 4)), [0.0] * 6        # weights that stay where they are have equal validation losses
    moving = [draw(number(0.0, 0.2)) for _ in range(6)]
    return dict(
        weights=draw(WEIGHTS), dropout=draw(one_of(0.0, 0.3)), kind=draw(one_of("sgd", "adamw")), steps=steps,
        batches=[micro_batches(draw, 2) for _ in range(draw(integer(1, 3)))], lrs=draw(one_of(None, still, moving)),
        validation=draw(one_of(micro_batches(draw, 2), micro_batches(draw, 2), None)), validate_every=draw(left_out(integer(1, 3))),
        max_norm=draw(left_out(maybe(one_of(0.1, 100.0)))), noise=draw(left_out(maybe(noise()))),
        run=draw(left_out(one_of("keep", "recompute"))), loss_scale=draw(left_out(SCALES)), more=draw(integer(0, 2)),
    )
