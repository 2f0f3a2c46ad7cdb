"""Evenly spaced numbers, rounded as the published tables are."""

import torch
from torch import Tensor


def spaced(first: float, last: float, parts: int) -> Tensor:
    """(parts + 1,) float32: the edges of `parts` equal parts of [first, last], counted from the nearer end, each rounded once.

    torch.linspace itself rounds once or twice, as the processor can.
    """
    start, stop = torch.tensor([first, last], dtype=torch.float32)
    step = ((stop - start) / parts).double()
    k = torch.arange(parts + 1)
    return torch.where(2 * k < parts, start.double() + step * k, stop.double() - step * (parts - k)).float()
