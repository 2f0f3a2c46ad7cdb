"""What evaluate is fed: batches of different sizes in which some targets do not count, and a model with dropout that it must not use."""

from parity.cases import case
from parity.cases.train.accumulate import WEIGHTS, micro_batches, model, pairs


def play_evaluate(side, *, weights, batches):
    return dict(loss=side.get("train.evaluate")(model(side, weights, 0.3), pairs(side, batches)))


@case("train.evaluate", play=play_evaluate, refuses=[dict(weights=WEIGHTS, batches=[])])
def evaluate(draw):
    return dict(weights=draw(WEIGHTS), batches=micro_batches(draw))
