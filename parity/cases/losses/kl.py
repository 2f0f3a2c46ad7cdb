"""What the Kullback–Leibler divergences are fed: two times any (..., V), with a mask or none; nothing that counts, too."""

from parity.cases import array, case, dims, ids, left_out, mask, maybe

REFUSES = [
    dict(logits=array(), target_logits=array()),
    dict(logits=array(2, 0), target_logits=array(2, 0)),
    dict(logits=array(2, 3), target_logits=array(3)),
    dict(logits=array(2, 3), target_logits=array(2, 4)),
    dict(logits=array(2, 3), target_logits=array(2, 3), mask=mask(3)),
    dict(logits=array(2, 3), target_logits=array(2, 3), mask=mask(2, 1)),
    dict(logits=array(2, 3), target_logits=array(2, 3), mask=ids(2, below=2)),
]


def two_distributions(draw):
    """Logits of a model and of a target."""
    *leading, v = draw(dims(min_rank=1, max_rank=4, min_last=1))
    counted = draw(left_out(maybe(mask(*leading)))) if leading else None
    return dict(logits=array(*leading, v), target_logits=array(*leading, v), mask=counted)


@case("losses.kl_forward", refuses=REFUSES)
def kl_forward(draw):
    return two_distributions(draw)


@case("losses.kl_reverse", refuses=REFUSES)
def kl_reverse(draw):
    return two_distributions(draw)


@case("losses.kl_symmetric", refuses=REFUSES)
def kl_symmetric(draw):
    return two_distributions(draw)
