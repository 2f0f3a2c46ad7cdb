"""What convolutions are fed: every option as one number and axis by axis, groups up to depthwise, kernels as large as the padded input."""

from parity.cases import array, case, integer, left_out, maybe, one_of, size


def drawn(draw, axes):
    """A convolution over `axes` axes, whose input is just large enough for its kernel or somewhat larger."""
    kernel = [draw(integer(1, 3)) for _ in range(axes)]
    stride, dilation, padding = ([draw(integer(low, high)) for _ in range(axes)] for low, high in ((1, 3), (1, 2), (0, 2)))
    given = {}
    for name, values, default in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        form = draw(one_of("each axis", "one for all", "default"))
        if form != "each axis":
            values[:] = [values[0] if form == "one for all" else default] * axes
        given |= {"each axis": {name: tuple(values)}, "one for all": {name: values[0]}, "default": {}}[form]
    groups = draw(integer(1, 3))
    c, o = draw(size(1, 3)), draw(size(1, 3))
    least = [max(d * (k - 1) + 1 - 2 * p, 1) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    shape = [n + draw(one_of(0, 1, 2, 5)) for n in least]
    return dict(
        x=draw(array(draw(size(0, 3)), groups * c, *shape)), weight=draw(array(groups * o, c, *kernel)),
        bias=draw(left_out(maybe(array(groups * o)))), **given, groups=groups if groups > 1 else draw(left_out(1)),
    )


def refused(*kernel):
    """Bad input that both convolutions refuse, around a kernel of this shape and an x of length 5 along every axis."""
    length = [5] * len(kernel)
    x, weight = array(2, 4, *length), array(6, 4, *kernel)
    return [
        dict(x=array(4, *length), weight=weight),
        dict(x=x, weight=array(6, 4)),
        dict(x=array(2, 3, *length), weight=weight),
        dict(x=x, weight=weight, groups=2),
        dict(x=x, weight=array(5, 2, *kernel), groups=2),
        dict(x=x, weight=weight, groups=0),
        dict(x=x, weight=weight, bias=array(4)),
        dict(x=x, weight=weight, stride=0),
        dict(x=x, weight=weight, stride=(1, 1, 1)),
        dict(x=x, weight=weight, padding=-1),
        dict(x=x, weight=weight, padding="same"),
        dict(x=x, weight=weight, dilation=0),
        dict(x=x, weight=weight, dilation=1.5),
        dict(x=x, weight=weight, dilation=3),
        dict(x=array(2, 0, *length), weight=array(6, 0, *kernel)),
        dict(x=x, weight=array(0, 4, *kernel)),
        dict(x=array(2, 4, *length[1:], 0), weight=weight, padding=2),
    ]


@case("ops.conv1d", refuses=refused(3), bench=dict(x=array(8, 64, 1024), weight=array(64, 64, 3), padding=1))
def conv1d(draw):
    return drawn(draw, 1)


@case("ops.conv2d", refuses=refused(3, 3), bench=dict(x=array(8, 64, 32, 32), weight=array(64, 64, 3, 3), padding=1))
def conv2d(draw):
    return drawn(draw, 2)
