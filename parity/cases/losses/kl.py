"""What the Kullback–Leibler divergences are fed: two times any (..., V), with a mask or none; nothing that counts, too."""

import numpy as np

from parity.cases import array, case, dims, ids, left_out, mask, maybe, one_of

REFUSES = [
    dict(logits=array(), target_logits=array()),
    dict(logits=array(2, 0), target_logits=array(2, 0)),
    dict(logits=array(2, 3), target_logits=array(3)),
    dict(logits=array(2, 3), target_logits=array(2, 4)),
    dict(logits=array(2, 3), target_logits=array(2, 3), mask=mask(3)),
    dict(logits=array(2, 3), target_logits=array(2, 3), mask=mask(2, 1)),
    dict(logits=array(2, 3), target_logits=array(2, 3), mask=ids(2, below=2)),
]


def follows_dloss(name):
    """Whatever the loss is multiplied by afterwards, its gradients are multiplied by; also by 1, where they are there already."""
    def law(side, logits, target_logits, **options):
        if side.name == "numpy":
            _, backward = side.get(f"losses.{name}")(logits, target_logits, **options)
            once = backward(np.array(1.0))
            for dloss in (2.0, -0.7):
                for label, grad, got in zip(("dlogits", "dtarget_logits"), once, backward(np.array(dloss)), strict=True):
                    yield f"{label} for dloss = {dloss}", got, grad * dloss

    return law


def two_distributions(draw):
    """Logits of a model and of a target."""
    shape = draw(dims(min_rank=1, max_rank=4, min_last=1))
    *leading, v = draw(one_of(shape, shape, shape, (3, 20000)))         # the last: more than a block
    counted = draw(left_out(maybe(mask(*leading)))) if leading else None
    return dict(logits=array(*leading, v), target_logits=array(*leading, v), mask=counted)


@case("losses.kl_forward", refuses=REFUSES, also=[follows_dloss("kl_forward")])
def kl_forward(draw):
    return two_distributions(draw)


@case("losses.kl_reverse", refuses=REFUSES, also=[follows_dloss("kl_reverse")])
def kl_reverse(draw):
    return two_distributions(draw)


@case("losses.kl_symmetric", refuses=REFUSES, also=[follows_dloss("kl_symmetric")])
def kl_symmetric(draw):
    return two_distributions(draw)
