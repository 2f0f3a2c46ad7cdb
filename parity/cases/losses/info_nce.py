"""What info_nce is fed: rows of any number and width (width 0 too), both directions, several temperatures."""

from parity.cases import array, case, flag, left_out, number, size


@case(
    "losses.info_nce",
    bench=dict(query=array(1024, 512), key=array(1024, 512)),
    refuses=[
        dict(query=array(3), key=array(3)),
        dict(query=array(2, 2, 3), key=array(2, 2, 3)),
        dict(query=array(2, 3), key=array(3, 3)),
        dict(query=array(0, 3), key=array(0, 3)),
        dict(query=array(2, 3), key=array(2, 3), temperature=0.0),
    ],
)
def info_nce(draw):
    rows = array(draw(size(1, 6)), draw(size(0, 6)), scale=0.3)
    return dict(query=rows, key=rows, temperature=draw(left_out(number(0.05, 2.0))), symmetric=draw(left_out(flag())))
