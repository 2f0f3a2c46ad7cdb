"""What the rules of decoding are fed: rows of logits with ties, excluded tokens and wide spreads; histories with padding."""

import dataclasses

import numpy as np

from parity.cases import array, dims, flag, integer, one_of
from parity.values import Filled, key_rng


@dataclasses.dataclass(frozen=True)
class rows(Filled):
    """Rows, each of a kind of its own: normals, ties (halves), all alike, some excluded, single ones far above or below the rest. None is
    excluded altogether. No sum of their probabilities is a number one would write down, so no rounding decides what stands above it."""

    scale: float = 2.0
    shift: float = 0.0

    def make(self, rng, hostility):
        values = self.scale * rng.standard_normal(self.shape) + self.shift
        for row in values.reshape(-1, self.shape[-1]) if values.size else ():
            kind = rng.integers(6)
            if kind == 1:
                row[:] = np.round(row) / 2
            elif kind == 2:
                row[:] = row[0]
            elif kind == 3:
                row[rng.random(len(row)) < 0.4] = -np.inf
            elif kind == 4:
                row[rng.random(len(row)) < 0.3] += rng.choice([-400.0, 400.0])
            if np.isneginf(row).all():
                row[rng.integers(len(row))] = 0.5
        return values.astype(np.float32).astype(np.float64)


def some_rows(draw, *, min_rank=1, max_rank=3):
    """Rows of any rank, of 1 to 12 or of 40 tokens; and how many tokens there are."""
    *lead, _ = draw(dims(min_rank, max_rank))
    v = draw(one_of(1, 2, 3, 4)) if draw.edges else draw(one_of(1, 2, 3, 5, 8, 12, 12, 40))
    return rows((*lead, v)), v


def bad_rows(**options):
    """Logits that every rule refuses, with these options."""
    nothing = np.array([[0.0, 1.0], [-np.inf, -np.inf]])
    return [
        dict(logits=bad, **options)
        for bad in (np.array([[0.0, np.nan]]), np.array([[0.0, np.inf]]), nothing, np.array([[0, 1]]), array(), array(2, 0))
    ]


def some_history(draw, *, rows_of, below, longest=9):
    """history (N, L) of few different ids, and real (N, L) or None: with it, padding may be an id that the vocabulary does not have."""
    length = draw(integer(0, 2)) if draw.edges else draw(one_of(0, 1, 3, longest, longest))
    rng = key_rng("history", draw(integer(0, 1 << 30)))
    history = rng.integers(0, max(1, min(below, draw(one_of(2, 3, 40)))), (rows_of, length))
    if draw(flag()):
        return history, None
    real = rng.random((rows_of, length)) < rng.choice([0.0, 0.5, 0.8, 1.0], (rows_of, 1))
    return np.where(real, history, rng.choice([-1, 0, 1, below], (rows_of, length))), real


def bad_histories(**options):
    """Logits, histories and masks that do not fit one another, with these options."""
    plain, ids = array(2, 3), np.array([[0, 1], [2, 0]])
    return [
        dict(logits=array(3), history=ids, **options),
        dict(logits=None, history=ids, **options),
        dict(logits=plain, history=None, **options),
        dict(logits=np.array([[0, 1, 2], [0, 1, 2]]), history=ids, **options),
        dict(logits=plain, history=ids[0], **options),
        dict(logits=plain, history=ids[:1], **options),
        dict(logits=plain, history=array(2, 2), **options),
        dict(logits=plain, history=ids.astype(np.int32), **options),
        dict(logits=plain, history=np.array([[0, 1], [3, 0]]), **options),
        dict(logits=plain, history=np.array([[0, 1], [-1, 0]]), **options),
        dict(logits=plain, history=ids, real=ids, **options),
        dict(logits=plain, history=ids, real=np.array([[True], [False]]), **options),
        dict(logits=plain, history=np.array([[0, 1], [3, 0]]), real=np.array([[False, False], [True, False]]), **options),
    ]


def padding_is_not_looked_at(name):
    """An equality for `also`: each row gives what its tokens without the padding give."""

    def without_padding(side, logits, history, real=None, **options):
        rule = side.get(name)
        got = rule(logits, history=history, real=real, **options)
        kept = None if real is None else side.numpy(real)
        for row in range(len(logits)):
            mine = side.numpy(history)[row:row + 1, slice(None) if kept is None else kept[row]]
            yield f"row {row}", got[row:row + 1], rule(logits[row:row + 1], history=side.array(mine), **options)

    return without_padding
