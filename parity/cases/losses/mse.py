"""What mse is fed: two arrays of any one shape, rank 0 included, and each reduction."""

from parity.cases import array, case, dims, left_out, one_of


@case(
    "losses.mse",
    refuses=[dict(prediction=array(2, 3), target=array(3)), dict(prediction=array(2), target=array(2), reduction="average")],
)
def mse(draw):
    shape = draw(dims(min_rank=0, max_rank=4))
    return dict(prediction=array(*shape), target=array(*shape), reduction=draw(left_out(one_of("none", "sum", "mean"))))
