"""What round_to_bfloat16 is fed: ordinary numbers, ties in both directions, subnormal and overflowing ones, any bit pattern."""

import numpy as np

from parity.cases import array, case, dims, one_of
from parity.values import Filled


class halfway(Filled):
    """float32s of any size whose lower 16 bits are just at, below or above one half; among them NaNs whose bits would carry over."""

    def make(self, rng, hostility):
        upper = np.where(rng.random(self.shape) < 0.1, 0x7FFF, rng.integers(0, 1 << 16, self.shape))
        lower = rng.choice([0x7FFF, 0x8000, 0x8001, 0, 0xFFFF], self.shape)
        return np.asarray(upper << 16 | lower).astype(np.uint32).view(np.float32).astype(np.float64)


@case(
    "quantize.round_to_bfloat16",
    skip={"witness": "the output is constant between jumps; the gradient is the straight-through estimator's"},
    refuses=[dict(x=np.array([1, 2])), dict(x=np.array([True]))],
)
def round_to_bfloat16(draw):
    shape = draw(dims(min_rank=0))
    if not draw.edges and not draw.ordinary and draw(one_of(False, False, True)):
        shape = (3, 11003)
    return dict(x=array(*shape) if draw.ordinary else draw(one_of(array(*shape), halfway(shape))))
