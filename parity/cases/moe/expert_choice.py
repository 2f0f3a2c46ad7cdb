"""What expert_choice is fed: fewer tokens than places and more, equal tokens, padding, −∞; and that all experts are equally busy."""

import dataclasses

import numpy as np

from parity.cases import array, case, flag, left_out, mask, maybe, one_of, size
from parity.cases.moe.top_k import crowded
from parity.values import Filled


@dataclasses.dataclass(frozen=True)
class apart(Filled):
    """Logits (N, E) whose softmax in each column differs by more than rounding, or not at all: some `tied` tokens are the same."""

    tied: bool = False

    def make(self, rng, hostility):
        n, e = self.shape
        for _ in range(100):
            x = rng.standard_normal((n, e)).astype(np.float32).astype(np.float64)
            p = np.sort(np.exp(x) / np.exp(x).sum(-1, keepdims=True), 0)
            if np.diff(p, axis=0).min(initial=np.inf) > 1e-5:
                break
        return x[rng.integers(0, max(n // 2, 1), n)] if n and self.tied else x


def every_expert_takes_as_many(side, logits, *, limit, mask=None, **options):
    """C distinct tokens each; no padding while a real token is left."""
    chosen = side.get("moe.expert_choice")(logits, limit=limit, mask=mask, **options)
    chosen = chosen[0] if side.name == "numpy" else chosen
    ids, (n, e) = side.numpy(chosen.ids), logits.shape
    c = min(limit, n)
    yield "tokens of each expert", np.array([len(set(row)) for row in ids.tolist()]), np.full(e, c)
    real = np.ones(n, bool) if mask is None else side.numpy(mask)
    yield "real tokens of each expert", real[ids].sum(1), np.full(e, min(c, real.sum()))


@case(
    "moe.expert_choice",
    bench=dict(logits=array(4096, 64), limit=512),
    also=[every_expert_takes_as_many],
    refuses=[
        dict(logits=array(3), limit=1),
        dict(logits=array(2, 3, 4), limit=1),
        dict(logits=array(3, 0), limit=1),
        dict(logits=np.array([[1, 2]]), limit=1),
        dict(logits=array(3, 2), limit=0),
        dict(logits=array(3, 2), limit=1.0),
        dict(logits=array(3, 2), limit=1, score="softplus"),
        dict(logits=array(3, 2), limit=1, mask=mask(3, 2)),
        dict(logits=array(3, 2), limit=1, mask=array(3)),
        dict(logits=np.array([[0.0, np.nan]]), limit=1),
    ],
)
def expert_choice(draw):
    n, e = draw(one_of(size(0, 6), 9, 12)) if not draw.edges else draw(one_of(0, 1)), draw(size(1, 5))
    score = draw(one_of("softmax", "sigmoid"))
    logits: Filled = apart((n, e), tied=not draw.ordinary and draw(flag()))
    if score == "sigmoid":      # chosen by the logits themselves
        logits = array(n, e) if draw.ordinary else draw(one_of(array(n, e), crowded((n, e), scores=True)))
    return dict(
        logits=logits,
        limit=draw(one_of(1, 2, 4, 7)),
        score=draw(left_out("softmax")) if score == "softmax" else score,
        mask=draw(left_out(maybe(mask(n, p=draw(one_of(0.3, 0.8)))))),
    )
