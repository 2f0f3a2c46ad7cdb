"""Evenly spaced numbers, rounded as the published tables are."""

import numpy as np
from numpy.typing import NDArray


def spaced(first: float, last: float, parts: int) -> NDArray:
    """(parts + 1,) float32: the edges of `parts` equal parts of [first, last].

    Every bit of a table made from these counts, so the rounding is part of the definition: the ends and the step are float32, the
    edges of either half are counted from the end that is nearer, and a product and its sum are rounded once. That is torch.linspace
    on every processor with fused multiply-add.
    """
    start, stop = np.float32(first), np.float32(last)
    step = float((stop - start) / np.float32(parts))
    k = np.arange(parts + 1)
    return np.where(2 * k < parts, float(start) + step * k, float(stop) - step * (parts - k)).astype(np.float32)
