"""What a decoder reads while it learns to predict labels: the labels themselves, one place later."""

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, integers


def shift_right(labels: Tensor, *, start: int, padding: int, ignore_index: int = -100) -> Tensor:
    """y = (start, labels₀, labels₁, …, labels_T₋₂),  with padding in place of ignore_index.  labels (..., T) -> (..., T)."""
    integers("shift_right", labels=labels)
    at_least_rank("shift_right", 1, labels=labels)
    return F.pad(labels.masked_fill(labels == ignore_index, padding), (1, 0), value=start)[..., :labels.shape[-1]]
