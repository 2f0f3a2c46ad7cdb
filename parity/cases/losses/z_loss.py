"""What z_loss is fed: any (..., V), with a mask or none; nothing that counts, too."""

from parity.cases import array, case, dims, ids, left_out, mask, maybe


@case(
    "losses.z_loss",
    refuses=[
        dict(logits=array()),
        dict(logits=array(2, 0)),
        dict(logits=array(2, 3), mask=mask(3)),
        dict(logits=array(2, 3), mask=mask(2, 3)),
        dict(logits=array(2, 3), mask=ids(2, below=2)),
    ],
)
def z_loss(draw):
    *leading, v = draw(dims(min_rank=1, max_rank=4, min_last=1))
    return dict(logits=array(*leading, v), mask=draw(left_out(maybe(mask(*leading)))) if leading else None)
