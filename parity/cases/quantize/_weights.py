"""What is quantized and dequantized: shapes of one chunk and of several, blocks of every size, values on the edge between two codes."""

import dataclasses
import math

import numpy as np

from parity.cases import array, dims, left_out, one_of
from parity.values import Filled, Large


@dataclasses.dataclass(frozen=True)
class codes(Filled):
    """Bytes."""

    def make(self, rng, hostility):
        return rng.integers(0, 256, self.shape, dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class edges(Filled):
    """The midpoints of neighbouring levels, and the numbers next to them, times one power of two; among them ones, so that most blocks
    are scaled by that power, without rounding."""

    levels: tuple[float, ...] = ()

    def make(self, rng, hostility):
        levels = np.sort(np.array(self.levels, dtype=np.float32))
        midpoints = (levels[:-1] + levels[1:]) / 2
        beside = [np.nextafter(midpoints, np.float32(toward)) for toward in (-2, 2)]
        palette = np.concatenate([midpoints, *beside, levels, [1, -1, 1, -1, 1, -1]])
        return np.asarray(rng.choice(palette, self.shape) * 2.0 ** rng.integers(-120, 120), dtype=np.float32).astype(np.float64)


def draw_weights(draw, levels, default):
    """(x, options): any shape, now and then one of more than 2¹⁶ values, and a block that may be left out."""
    shape = draw_shape(draw)
    x = draw(one_of(array(*shape), array(*shape), array(*shape, scale=10.0 ** draw(one_of(0, -44, -40, -30, 30, 37))),
                    edges(shape, tuple(levels.tolist()))))
    return x, dict(block=draw(one_of(3, 40001))) if math.prod(shape) > 1 << 16 else dict(block=draw(left_out(draw_block(draw, default))))


def draw_blocks(draw, default):
    """(shape, options, blocks): as draw_weights, and how many blocks that makes; every third time a block is left out that matters."""
    if draw(one_of(False, False, True)) and not draw.edges:
        shape = draw(one_of((5, 67), (2, 2 * default), (4, default), (5, 3, default)))
        return shape, {}, -(-math.prod(shape) // default)
    shape, block = draw_shape(draw), draw_block(draw, default)
    if not draw.edges:
        shape, block = draw(one_of((shape, block), (shape, block), ((5, 12), 4), ((6, 2, 5), 5), ((3, 43717), 3)))
    return shape, dict(block=block), -(-math.prod(shape) // block)


def draw_shape(draw):
    """Any small shape, or a larger one."""
    shape = draw(dims(min_rank=0))
    if isinstance(draw, Large) or draw.edges:
        return shape
    return draw(one_of(shape, shape, shape, shape, (5, 67), (3, 5, 31), (2, 1001), draw(one_of((3, 43717), (70001, 2)))))


def draw_block(draw, default):
    """A block size, the default included: one value, odd ones, more than there are values, more than a chunk."""
    return draw(one_of(default, 1, 2, 3, 5, 64, 100, 1000, 40000, 1 << 40))
