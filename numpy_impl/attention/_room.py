"""Memory for the tiles of attention, lent again and again."""

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numpy_impl.ops._blocks import aligned


class Room:
    """room("name", *shape) is an array of that shape whose contents are anything: the same memory at every call with that name.

    Memory fresh from the system costs more than the arithmetic done in it. And it begins with a cache line: where rows do not, every load
    of 64 bytes touches two of them, and a product of small matrices takes a fifth longer.

    Examples
    --------
    >>> room = Room(np.float32)
    >>> room("scores", 2, 3)[...] = 1.0
    >>> room("scores", 4).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, dtype: DTypeLike):
        self.dtype: np.dtype = np.dtype(dtype)
        self.buffers: dict[str, NDArray] = {}

    def __call__(self, name: str, *shape: int) -> NDArray:
        size = math.prod(shape)
        if name not in self.buffers or self.buffers[name].size < size:
            self.buffers[name] = aligned(1, size, self.dtype)[0]
        return self.buffers[name][:size].reshape(shape)
