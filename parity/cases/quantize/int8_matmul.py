"""What int8_matmul is fed: signed and unsigned codes, all kinds of zero points, sums that float32 just holds, and one product more."""

import numpy as np

from parity.cases import array, case, dims, flag, left_out, maybe, one_of, size
from parity.cases.quantize.int8 import codes


class extreme(codes):
    """Codes of which the first 1,024 of a row, but for few or for none, are −128: the largest products."""

    def make(self, rng, hostility):
        made = super().make(rng, hostility)
        few = rng.random((*self.shape[:-1], min(1024, self.shape[-1]))) < rng.choice([0, 0.001], (*self.shape[:-1], 1))
        made[..., :1024] = np.where(few, made[..., :1024], -128)
        return made


class partly_zero(codes):
    """Codes, every second of them 0."""

    def make(self, rng, hostility):
        return np.asarray(super().make(rng, hostility) * rng.integers(0, 2, self.shape, dtype=self.dtype))


@case(
    "quantize.int8_matmul",
    gradient=False,
    equivalent={"_OUTPUTS = 512 -> _OUTPUTS = 513": "how many rows of b are floats at a time changes nothing"},
    bench=dict(a=codes((512, 4096)), b=codes((4096, 4096))),
    refuses=[
        dict(a=codes(()), b=codes((2, 3))),
        dict(a=[[1, 2, 3]], b=codes((2, 3))),
        dict(a=codes((2, 3)), b=None),
        dict(a=codes((2, 3)), b=codes((3,))),
        dict(a=codes((2, 3)), b=codes((2, 4))),
        dict(a=codes((2, 3), "int32"), b=codes((2, 3))),
        dict(a=codes((2, 3)), b=array(2, 3)),
        dict(a=codes((2, 3)), b=codes((2, 3)), a_zero_point=array()),
        dict(a=codes((2, 3)), b=codes((2, 3)), a_zero_point=np.array(128)),
        dict(a=codes((2, 3)), b=codes((2, 3), "uint8"), b_zero_point=np.array(-1)),
        dict(a=codes((2, 3)), b=codes((2, 3), "uint8"), b_zero_point=np.array(256)),
        dict(a=codes((2, 3)), b=codes((2, 3)), a_zero_point=np.array([0, 1, 2])),
        dict(a=codes((2, 3)), b=codes((2, 3)), b_zero_point=np.array([[0], [1]])),
        dict(a=codes((1, 131072)), b=codes((1, 131072))),
        dict(a=codes((1, 65794), "uint8"), b=codes((1, 65794))),
        dict(a=codes((1, 65794)), b=codes((1, 65794)), b_zero_point=np.array(3)),
        dict(a=codes((1, 33026), "uint8"), b=codes((1, 33026), "uint8")),
    ],
)
def int8_matmul(draw):
    *lead, width = draw(dims())
    outputs = draw(size(0, 6))
    made: type[codes]
    kinds = draw(one_of("int8", "uint8")), draw(one_of("int8", "uint8"))
    if not draw.edges and draw(flag()):   # several sums of 1,024 products, several strips of outputs
        lead, width, outputs = draw(one_of(([3], 2051, 5), ([2], 1027, 4), ([1, 2], 5, 1100), ([3], 1030, 514)))
    if not draw.edges and draw(flag()):
        made, kinds = extreme, ("int8", "int8")
    else:
        made = codes
    a, b = made((*lead, width), kinds[0]), made((outputs, width), kinds[1])
    if draw(one_of(False, False, True)):  # only one side has zero points, and some of them are 0
        name, shape = draw(one_of(("a_zero_point", tuple(lead)), ("b_zero_point", (outputs,))))
        return dict(a=codes((*lead, width)), b=codes((outputs, width)), **{name: partly_zero(shape)})
    zeros = {}
    for name, kind, shape in (("a_zero_point", kinds[0], tuple(lead)), ("b_zero_point", kinds[1], (outputs,))):
        zeros[name] = draw(left_out(maybe(one_of(codes((), kind), codes(shape, kind)))))
    return dict(a=a, b=b, **zeros)
