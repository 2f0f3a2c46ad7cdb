"""What top_k is fed: one expert and many, k up to all of them, ties everywhere, −∞ in part of the row and in all of it."""

import dataclasses

import numpy as np

from parity.cases import array, case, dims, ids, integer, one_of
from parity.values import Filled


@dataclasses.dataclass(frozen=True)
class crowded(Filled):
    """Few values, many times each: halves of both signs, both zeros, −∞; where there are to be `scores`, the last entry is finite."""

    scores: bool = False

    def make(self, rng, hostility):
        values = rng.choice([-np.inf, -0.5, -0.0, 0.0, 0.5], self.shape)
        if self.scores:
            values[..., -1] = np.maximum(values[..., -1], -1)
        return values


@case(
    "moe.top_k",
    gradient=False,
    bench=dict(scores=array(4096, 64), k=8),
    refuses=[
        dict(scores=array(), k=1),
        dict(scores=array(2, 3), k=0),
        dict(scores=array(2, 3), k=4),
        dict(scores=array(2, 0), k=1),
        dict(scores=array(2, 3), k=2.0),
        dict(scores=array(2, 3), k=True),
        dict(scores=np.array([[0.0, np.nan]]), k=1),
        dict(scores=ids(2, 3, below=3), k=1),
    ],
)
def top_k(draw):
    shape = draw(dims(min_last=1))
    return dict(scores=draw(one_of(array(*shape), crowded(shape))), k=draw(integer(1, shape[-1])))
