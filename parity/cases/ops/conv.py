"""What convolutions are fed: every option as one number and axis by axis, groups up to depthwise, kernels as large as the padded input."""

import math

from parity.cases import array, case, integer, left_out, maybe, one_of, size


def drawn(draw, axes):
    """A convolution over `axes` axes, whose input is just large enough for its kernel or somewhat larger."""
    kernel = [draw(integer(1, 3)) for _ in range(axes)]
    stride, dilation, padding = ([draw(integer(low, high)) for _ in range(axes)] for low, high in ((1, 3), (1, 2), (0, 2)))
    given: dict = {}
    for name, values, default in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        form = draw(one_of("each axis", "one for all", "default"))
        if form != "each axis":
            values[:] = [values[0] if form == "one for all" else default] * axes
        given |= {"each axis": {name: tuple(values)}, "one for all": {name: values[0]}, "default": {}}[form]
    groups = draw(integer(1, 3))
    c, o = draw(size(1, 3)), draw(size(1, 3))
    least = [max(d * (k - 1) + 1 - 2 * p, 1) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    shape = [n + draw(one_of(0, 1, 2, 5)) for n in least]
    n = draw(size(0, 3))
    if not draw.ordinary and not draw.edges and draw(integer(0, 3)) == 0:  # so long that three samples make more than one block
        n, shape[-1] = 3, shape[-1] + 40000 * stride[-1] // (groups * c * math.prod(kernel))
    return dict(
        x=draw(array(n, groups * c, *shape)), weight=draw(array(groups * o, c, *kernel)),
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
        dict(x=x, weight=weight, dilation=(1, 3)[-len(kernel):]),
        dict(x=array(2, 4, *(n - 1 for n in length)), weight=weight, dilation=3, padding=1),
        dict(x=array(2, 0, *length), weight=array(6, 0, *kernel)),
        dict(x=x, weight=array(0, 4, *kernel)),
        dict(x=array(2, 4, *length[1:], 0), weight=weight, padding=2),
    ]


_WHY = "how many samples are worked on together is a matter of memory and speed"
_WAYS = "it leaves dx to the way that serves every stride, which is slower"
EQUIVALENT = {"p <= r -> p < r": _WAYS, "k - 1 -> -1 #2": _WAYS} | dict.fromkeys(
    [
        "_ENTRIES = 65536 -> _ENTRIES = 65537",
        "max(_ENTRIES // math.prod(windows.shape[1:]), 1) -> max(_ENTRIES // math.prod(windows.shape[1:]), 2)",
        "_ENTRIES // math.prod(windows.shape[1:]) -> _ENTRIES % math.prod(windows.shape[1:])",
        "windows.shape[1:] -> windows.shape[2:]",
    ],
    _WHY,
)


def equals_trained(side, x, weight, bias=None, **options):
    """A frozen weight changes nothing but that it has no gradient."""
    name = f"conv{x.ndim - 2}d"
    got, want = side.get(f"ops.frozen_{name}")(x, bias, weight=weight, **options), side.get(f"ops.{name}")(x, weight, bias, **options)
    if side.name == "torch":
        yield "y", got, want
        return
    (y, backward), (wanted, trained_backward) = got, want
    yield "y", y, wanted
    (dx, dbias), (dx_wanted, _, dbias_wanted) = backward(y), trained_backward(y)
    yield "dx", dx, dx_wanted
    if bias is not None:
        yield "dbias", dbias, dbias_wanted


FROZEN = dict(equivalent=EQUIVALENT, fixed={"weight": "it is not trained"}, also=[equals_trained])


@case(
    "ops.conv1d",
    refuses=refused(3),
    equivalent=EQUIVALENT,
    bench=dict(x=array(4, 80, 1500), weight=array(384, 80, 3), bias=array(384), padding=1),
)
def conv1d(draw):
    return drawn(draw, 1)


@case(
    "ops.conv2d",
    refuses=refused(3, 3),
    equivalent=EQUIVALENT,
    bench=dict(x=array(8, 3, 224, 224), weight=array(768, 3, 16, 16), bias=array(768), stride=16),
)
def conv2d(draw):
    return drawn(draw, 2)


@case("ops.frozen_conv1d", refuses=refused(3), **FROZEN, bench=dict(x=array(4, 80, 1500), weight=array(384, 80, 3), padding=1))
def frozen_conv1d(draw):
    return drawn(draw, 1)


@case("ops.frozen_conv2d", refuses=refused(3, 3), **FROZEN, bench=dict(x=array(8, 64, 28, 28), weight=array(64, 64, 3, 3), padding=1))
def frozen_conv2d(draw):
    return drawn(draw, 2)
