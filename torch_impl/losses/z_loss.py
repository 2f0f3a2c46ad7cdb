"""The z-loss alone: a pull on the normaliser of the softmax towards 1."""

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, demand, floats, same_shape


def z_loss(logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """loss = Σ lse² / M,  with  lse = log Σ_c exp(logits_c)  for each of M positions.  logits (..., V), mask (...,) or None -> ()."""
    floats("z_loss", logits=logits)
    at_least_rank("z_loss", 1, logits=logits)
    demand("z_loss", logits.shape[-1] > 0, "logits of at least one class", logits=logits)
    booleans("z_loss", mask=mask)
    same_shape("z_loss", logits.shape[:-1], mask=mask)
    squares = torch.logsumexp(logits, -1).square()
    if mask is None:
        return squares.mean()
    wide = torch.promote_types(logits.dtype, torch.float32)  # a float16 sum over many positions would overflow
    return (torch.where(mask, squares, 0).sum(dtype=wide) / mask.sum()).to(logits.dtype)
