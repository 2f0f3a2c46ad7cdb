"""What SiLU, Mish and softplus are fed: any shape, and for softplus any positive β."""

from parity.cases import array, case, dims, left_out, number, one_of


@case("ops.silu", refuses=[dict(x=3.0)], equivalent={
    "by_blocks(_silu, x, outputs=2, scratch=1) -> by_blocks(_silu, x, outputs=2, scratch=2)":
        "how many rows there are to work in is a matter of speed",
})
def silu(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)), scale=draw(one_of(1.0, 4.0)))))


@case("ops.mish", refuses=[dict(x=3.0)], equivalent={
    "np.minimum(x, 20, out=e) -> np.minimum(x, 21, out=e)": "from 20 on the gate is 1 in float64, and up to 44 nothing overflows",
})
def mish(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)), scale=draw(one_of(1.0, 4.0)))))


@case("ops.softplus", refuses=[dict(x=3.0), dict(x=array(2), beta=0.0), dict(x=array(2), beta=-1.0), dict(x=array(2), beta=float("inf"))])
def softplus(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)), scale=draw(one_of(1.0, 8.0)))), beta=draw(left_out(number(0.2, 5.0))))
