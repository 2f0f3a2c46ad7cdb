"""What bradley_terry is fed: pairs of any one shape, rank 0 and no pairs at all included, margins and smoothing."""

from parity.cases import array, case, dims, left_out, number


@case(
    "losses.bradley_terry",
    refuses=[
        dict(chosen=array(2, 3), rejected=array(3)),
        dict(chosen=array(2), rejected=array(2), margin=-1.0),
        dict(chosen=array(2), rejected=array(2), label_smoothing=1.5),
        dict(chosen=array(2), rejected=array(2), label_smoothing=-0.5),
    ],
)
def bradley_terry(draw):
    shape = draw(dims(min_rank=0, max_rank=4))
    return dict(chosen=array(*shape), rejected=array(*shape), margin=draw(left_out(number(0.0, 3.0))),
                label_smoothing=draw(left_out(number(0.0, 1.0))))
