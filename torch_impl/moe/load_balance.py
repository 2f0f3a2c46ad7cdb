"""Losses that keep a router from sending everything to a few experts."""

import math

import torch
from torch import Tensor

from byhand.checks import at_least_rank, booleans, floats, given, same_shape


def load_balance(
    scores: Tensor, *, chosen: Tensor, mask: Tensor | None = None, per_sequence: bool = False, renormalise: bool = False
) -> Tensor:
    """loss = E · Σ_e f_e · P_e,  with  f_e = the share of tokens that chose e  and  P_e = the mean score of e over the tokens.

    scores (..., E), chosen (..., E) bool, mask (...) False where a token is padding -> (), 0 if no token counts. per_sequence: the mean of
    the losses of sequences (..., T, E), one each, over those that have a token that counts. renormalise: each token's scores are divided
    by their sum. The gradient goes through P alone.
    """
    floats("load_balance", scores=scores)
    at_least_rank("load_balance", 2 if per_sequence else 1, scores=scores)
    given("load_balance", chosen=chosen)
    booleans("load_balance", chosen=chosen, mask=mask)
    same_shape("load_balance", scores.shape, chosen=chosen)
    same_shape("load_balance", scores.shape[:-1], mask=mask)

    *lead, e = scores.shape
    s, t = (math.prod(lead[:-1]), lead[-1]) if per_sequence else (1, math.prod(lead))
    real = torch.ones(s, t, 1, dtype=torch.bool, device=scores.device) if mask is None else mask.reshape(s, t, 1)
    p = torch.where(real, scores.reshape(s, t, e), 0)
    p = p.to(torch.promote_types(p.dtype, torch.float32))  # sums over many tokens
    if renormalise:
        p = p / (p.sum(-1, keepdim=True) + 1e-20)
    n = real.sum(1).clamp_min(1)
    f = (chosen.reshape(s, t, e) & real).sum(1).to(p.dtype) / n
    sequences = real.any(1).sum().clamp_min(1)
    return ((f * p.sum(1) / n).sum() * e / sequences).to(scores.dtype)


def importance(scores: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """loss = CV(I)² = Σ_e (I_e − μ)² / (E μ²),  with  I_e = Σ scores of e over the tokens  and  μ = Σ_e I_e / E.

    scores (..., E), mask (...) False where a token is padding -> (), 0 if μ is 0.
    """
    floats("importance", scores=scores)
    at_least_rank("importance", 1, scores=scores)
    booleans("importance", mask=mask)
    same_shape("importance", scores.shape[:-1], mask=mask)

    e = scores.shape[-1]
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    total = (wide if mask is None else torch.where(mask[..., None], wide, 0)).reshape(math.prod(scores.shape[:-1]), e).sum(0)
    mu = total.sum() / max(e, 1)
    unit = torch.where(mu != 0, mu.square() * e, torch.inf)
    return ((total - mu).square().sum() / unit).to(scores.dtype)
