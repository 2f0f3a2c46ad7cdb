"""Work in pieces that fit the processor's cache: an op of ten steps then reads main memory once, not ten times."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import DTypeLike, NDArray

_NUMBERS = 1 << 15  # numbers in a piece: 128 KiB in float32, so that a handful of temporaries fit into the L2 cache


def blocks(rows: int, width: int = 1) -> Iterator[slice]:
    """Slices that cut `rows` rows of `width` numbers into pieces of about 2¹⁵ numbers, one row at least.

    Examples
    --------
    >>> list(blocks(5, 1 << 14))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    step = max(1, _NUMBERS // max(1, width))
    return (slice(start, start + step) for start in range(0, rows, step))


def by_blocks(fill: Callable, *arrays: NDArray, outputs: int = 1, scratch: int = 0):
    """New arrays like the first one, filled piece by piece: fill(*pieces of the arrays, *pieces of the outputs).

    For functions that treat every element alone; all arrays have one shape. Returns the output, or the list of `outputs` of them.
    With `scratch` given, fill gets one more argument: so many rows to work in, as long as the piece. They are one memory for all pieces,
    which stays in the cache. Infinities and NaN are values here and raise no warning.

    Examples
    --------
    >>> by_blocks(lambda x, y, out: np.multiply(x, y, out=out), np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    array([[3., 8.]])
    """
    first = arrays[0]
    filled = [np.empty(first.shape, first.dtype) for _ in range(outputs)]
    flat = [array.reshape(-1) for array in (*arrays, *filled)]  # views of what is contiguous, so always of `filled`
    rooms = [aligned(scratch, min(first.size, _NUMBERS), first.dtype)] if scratch else []
    with np.errstate(all="ignore"):
        for piece in blocks(first.size):
            pieces = [array[piece] for array in flat]
            fill(*pieces, *(room[:, : pieces[0].size] for room in rooms))
    return filled[0] if outputs == 1 else filled


def chain_rule(dy: NDArray, slope: NDArray) -> NDArray:
    """dx = dy · slope, where slope is the derivative of a function that treats every element alone.

    A single step needs no pieces: over the whole arrays it is faster.
    """
    with np.errstate(all="ignore"):
        return np.asarray(dy * slope)


def aligned(rows: int, width: int, dtype: DTypeLike) -> NDArray:
    """np.empty((rows, width)) that begins where a cache line does.

    NumPy itself sees to 16 bytes only. In the cache a product takes twice as long where every other store lies across two lines.
    """
    line, size = 64, rows * width * np.dtype(dtype).itemsize
    memory = np.empty(size + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(dtype).reshape(rows, width)
