"""What balance_bias is fed: counts above, below and at their mean, which may lie between integers."""

from parity.cases import array, case, ids, integer, number, one_of, size


@case(
    "moe.balance_bias",
    gradient=False,
    bench=dict(bias=array(256), counts=ids(256, below=1000), rate=0.001),
    refuses=[
        dict(bias=array(2, 3), counts=ids(2, 3, below=5), rate=0.1),
        dict(bias=ids(3, below=5), counts=ids(3, below=5), rate=0.1),
        dict(bias=array(3), counts=ids(2, below=5), rate=0.1),
        dict(bias=array(3), counts=array(3), rate=0.1),
        dict(bias=array(3), counts=None, rate=0.1),
        dict(bias=array(3), counts=ids(3, below=5), rate=-0.1),
        dict(bias=array(3), counts=ids(3, below=5), rate=float("nan")),
    ],
)
def balance_bias(draw):
    e = draw(size(0, 8))
    return dict(bias=array(e), counts=ids(e, below=draw(integer(2, 9))), rate=draw(one_of(0.0, 0.001, number(0, 1))))
