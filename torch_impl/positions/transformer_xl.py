"""The shift of relative positions (Dai et al. 2019, arXiv:1901.02860, appendix B)."""

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, floats, size


def relative_shift(x: Tensor, *, keys: int | None = None) -> Tensor:
    """y[t, s] = x[t, s + T − 1 − t],  0 where x has no such column: from products with distances to scores of keys.

    x (..., T, L), whose column j belongs to the distance S − 1 − j -> y (..., T, S), with S = keys, or L. A view of a padded copy: in rows
    that are taken to be one number shorter than they are, what lay on a diagonal is a column.
    """
    floats("relative_shift", x=x)
    at_least_rank("relative_shift", 2, x=x)
    *lead, t, columns = x.shape
    keys = columns if keys is None else keys
    size("relative_shift", at_least=0, keys=keys)
    width = max(columns, keys + t)
    flat = F.pad(x, (0, width - columns)).reshape(*lead, t * width)
    return flat[..., t - 1 : t * width - 1].reshape(*lead, t, max(width - 1, keys))[..., :keys]
