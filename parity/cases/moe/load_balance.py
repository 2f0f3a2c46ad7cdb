"""What the balance losses are fed: scores of any size and shape, choices that all, some or no tokens make, padding, nothing at all."""

import numpy as np

from parity.cases import array, case, dims, flag, ids, left_out, mask, maybe, one_of


def padding_could_as_well_be_absent(side, scores, *, mask=None, per_sequence=False, chosen, renormalise=False):
    """Rows behind the mask change nothing, whatever they hold; nor does a sequence of nothing else."""
    if scores.ndim < 2:
        return
    real = np.ones(tuple(scores.shape[:-1]), bool) if mask is None else side.numpy(mask)

    def padded(values, fill, axis):
        values = side.numpy(values)
        widths = [(0, 2 * (i == axis)) for i in range(values.ndim)]
        return side.array(np.pad(values, widths, constant_values=fill))

    options = dict(per_sequence=per_sequence, renormalise=renormalise)
    want = _of(side, scores, chosen=chosen, mask=side.array(real), **options)
    for axis in {0, scores.ndim - 2}:
        longer = dict(chosen=padded(chosen, True, axis), mask=padded(real, False, axis))
        yield f"with padding along axis {axis}", _of(side, padded(scores, np.nan, axis), **longer, **options), want


def sequences_are_averaged(side, scores, *, chosen, mask=None, per_sequence=False, renormalise=False):
    """The loss per sequence is the mean of what the sequences would have alone, over those with a token that counts."""
    if not per_sequence:
        return
    t, e = scores.shape[-2:]
    s = int(np.prod(scores.shape[:-2]))
    real = np.ones((s, t), bool) if mask is None else side.numpy(mask).reshape(s, t)
    scores, chosen = scores.reshape(s, t, e), chosen.reshape(s, t, e)
    alone = [_of(side, scores[i], chosen=chosen[i], mask=side.array(real[i]), renormalise=renormalise) for i in np.flatnonzero(real.any(1))]
    whole = _of(side, scores, chosen=chosen, mask=side.array(real), per_sequence=True, renormalise=renormalise)
    yield "loss", whole, np.mean([side.numpy(loss) for loss in alone] or [0.0])


def vanishing_scores_share_less_than_everything(side, scores, **options):
    """Three sigmoids of 1e-20 are a quarter each, not a third: so much is added to what divides them."""
    scores, chosen = (side.array(np.full((2, 3), value)) for value in (1e-20, True))
    yield "loss", _of(side, scores, chosen=chosen, renormalise=True), np.array(9 / 4)


def _of(side, scores, **options):
    loss = side.get("moe.load_balance")(scores, **options)
    return loss[0] if side.name == "numpy" else loss


_REFUSES: list[dict] = [
    dict(scores=array()),
    dict(scores=ids(2, 3, below=3)),
    dict(scores=array(2, 3), mask=mask(2, 3)),
    dict(scores=array(2, 3), mask=mask(3)),
    dict(scores=array(2, 3), mask=array(2)),
]


@case(
    "moe.load_balance",
    bench=dict(scores=array(4096, 64), chosen=mask(4096, 64, p=0.1)),
    also=[padding_could_as_well_be_absent, sequences_are_averaged, vanishing_scores_share_less_than_everything],
    refuses=[
        *(bad | dict(chosen=mask(*bad["scores"].shape)) for bad in _REFUSES),
        dict(scores=array(2, 3), chosen=mask(2)),
        dict(scores=array(2, 3), chosen=mask(2, 4)),
        dict(scores=array(2, 3), chosen=ids(2, 3, below=2)),
        dict(scores=array(2, 3), chosen=None),
        dict(scores=array(3), chosen=mask(3), per_sequence=True),
    ],
)
def load_balance(draw):
    per_sequence, renormalise = draw(left_out(flag())), draw(left_out(flag()))
    *lead, e = draw(dims(2 if per_sequence is True else 1, 4, min_last=1))
    scores = array(*lead, e)
    if renormalise is True:     # sigmoids are positive; sums near 0 divide badly
        scores = array(*lead, e, low=0.01, high=1.0)
    return dict(
        scores=scores,
        chosen=mask(*lead, e, p=draw(one_of(0.2, 0.5))),
        mask=draw(left_out(maybe(mask(*lead)))) if lead else draw(left_out(None)),
        per_sequence=per_sequence,
        renormalise=renormalise,
    )


@case("moe.importance", bench=dict(scores=array(4096, 64, low=0.0, high=1.0)), refuses=_REFUSES)
def importance(draw):
    *lead, e = draw(dims(1, 4))
    e = e if draw.ordinary or draw.edges else draw(one_of(e, e, 1))
    nothing = np.zeros((*lead, e))
    scores = array(*lead, e, low=0.0, high=1.0)
    return dict(
        scores=scores if draw.ordinary else draw(one_of(scores, scores, nothing)),
        mask=draw(left_out(maybe(mask(*lead)))) if lead else draw(left_out(None)),
    )
