"""What convolution layers are fed: every option as one number and axis by axis, groups up to depthwise, with and without a bias."""

import math

import numpy as np

from parity.cases import array, case, flag, integer, left_out, maybe, noise, one_of, size


def drawn(draw, axes):
    """A layer over `axes` axes, and an input that is just large enough for its kernel or somewhat larger."""
    init: dict = {}
    values: dict[str, list[int]] = {}
    for name, low, high, default in (("kernel_size", 1, 3, None), ("stride", 1, 3, 1), ("padding", 0, 2, 0), ("dilation", 1, 2, 1)):
        each = [draw(integer(low, high)) for _ in range(axes)]
        form = draw(one_of("each axis", "one for all", *([] if default is None else ["default"])))
        values[name] = {"each axis": each, "one for all": [each[0]] * axes, "default": [default] * axes}[form]
        init |= {"each axis": {name: tuple(each)}, "one for all": {name: each[0]}, "default": {}}[form]
    groups = draw(integer(1, 3))
    c, o = draw(size(1, 3)), draw(size(1, 3))
    init |= dict(in_channels=groups * c, out_channels=groups * o, bias=draw(left_out(flag())),
                 groups=groups if groups > 1 else draw(left_out(1)))
    least = [max(d * (k - 1) + 1 - 2 * p, 1) for d, k, p in zip(values["dilation"], values["kernel_size"], values["padding"], strict=True)]
    shape = [n + draw(one_of(0, 1, 2, 5)) for n in least]
    return dict(init=init, call=dict(x=array(draw(size(0, 3)), groups * c, *shape), noise=draw(left_out(maybe(noise())))))


def refused(axes):
    """Bad input of either, around a layer of 4 channels in and 6 out."""
    good, x = dict(in_channels=4, out_channels=6, kernel_size=3), array(2, 4, *(5,) * axes)
    return [
        dict(init=good | dict(in_channels=0)),
        dict(init=good | dict(out_channels=0)),
        dict(init=good | dict(groups=0)),
        dict(init=good | dict(groups=3)),
        dict(init=good | dict(groups=4)),
        dict(init=good | dict(kernel_size=0)),
        dict(init=good | dict(kernel_size=(1, 2, 3))),
        dict(init=good | dict(stride=0)),
        dict(init=good | dict(padding=-1)),
        dict(init=good | dict(padding="same")),
        dict(init=good | dict(dilation=1.5)),
        dict(init=good, call=dict(x=array(2, 3, *(5,) * axes))),
        dict(init=good, call=dict(x=array(4, *(5,) * axes))),
        dict(init=good | dict(dilation=3), call=dict(x=x)),
    ]


def starts_uniform(side, module, x, noise=None):
    """Fresh weights and biases are the generator's draws between −b and b, b = 1/√(numbers that an output sums)."""
    if side.name == "numpy":
        c, o, kernel, groups = 2 * x.shape[1], 3 * x.shape[1], module.weight.shape[2:], x.shape[1]
        fresh = type(module)(c, o, kernel, groups=groups, dtype=side.dtype, rng=np.random.default_rng(5))
        b, rng = 1 / math.sqrt(c // groups * math.prod(kernel)), np.random.default_rng(5)
        yield "weight", fresh.weight, 2 * b * (rng.random((o, c // groups, *kernel)) - 0.5)
        yield "bias", fresh.bias, 2 * b * (rng.random(o) - 0.5)


@case(
    "layers.Conv1d",
    also=[starts_uniform],
    refuses=refused(1),
    bench=dict(init=dict(in_channels=80, out_channels=384, kernel_size=3, padding=1), call=dict(x=array(4, 80, 1500))),
)
def conv1d(draw):
    return drawn(draw, 1)


@case(
    "layers.Conv2d",
    also=[starts_uniform],
    refuses=refused(2),
    bench=dict(init=dict(in_channels=3, out_channels=768, kernel_size=16, stride=16), call=dict(x=array(8, 3, 224, 224))),
)
def conv2d(draw):
    return drawn(draw, 2)
