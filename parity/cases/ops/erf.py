"""What erf is fed: any shape."""

from parity.cases import array, case, dims, one_of


@case("ops.erf", refuses=[dict(x=3.0)])
def erf(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)), scale=draw(one_of(1.0, 3.0)))))
