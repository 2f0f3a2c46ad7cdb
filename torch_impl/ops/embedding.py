"""The embedding table: a row per id."""

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import demand, exact_rank, floats, ids_below


def embedding(weight: Tensor, *, ids: Tensor, padding_idx: int | None = None) -> Tensor:
    """y = weight[ids], where the row `padding_idx` gets no gradient.

    weight (V, D), ids (...) -> y (..., D).  The kernel wants int32 or int64 ids; other integers are widened.
    """
    floats("embedding", weight=weight)
    exact_rank("embedding", 2, weight=weight)
    n_rows = weight.shape[0]
    ids_below("embedding", n_rows, ids=ids)
    inside = padding_idx is None or (isinstance(padding_idx, int) and -n_rows <= padding_idx < n_rows)
    demand("embedding", inside, f"padding_idx in [{-n_rows}, {n_rows - 1}] or None", padding_idx=padding_idx)
    return F.embedding(ids if ids.dtype in (torch.int32, torch.int64) else ids.long(), weight, padding_idx)
