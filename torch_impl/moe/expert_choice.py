"""Expert choice (Zhou et al. 2022, arXiv:2202.09368): experts choose tokens, so that all of them are equally busy."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from byhand.checks import booleans, choice, demand, exact_rank, floats, not_nan, same_shape, size


class Choice(NamedTuple):
    """What each expert takes: weights (E, C), the scores of all tokens (N, E), the chosen tokens ids (E, C), best first."""

    weights: Tensor
    scores: Tensor
    ids: Tensor


def expert_choice(
    logits: Tensor, *, limit: int, score: Literal["softmax", "sigmoid"] = "softmax", mask: Tensor | None = None
) -> Choice:
    """weights_ec = s[ids_ec, e],  with  s = score(logits)  and  ids_e = the C tokens with the largest s in column e.

    C = min(limit, N); of equal tokens the lower one comes first; padding, where mask (N,) is False, comes last and has weight 0.
    logits (N, E) -> weights (E, C), scores (N, E), ids (E, C). Logits in half precision are scored in float32, and the results stay so.
    """
    floats("expert_choice", logits=logits)
    exact_rank("expert_choice", 2, logits=logits)
    n, e = logits.shape
    demand("expert_choice", e > 0, "logits of at least one expert", logits=logits)
    size("expert_choice", limit=limit)
    choice("expert_choice", ("softmax", "sigmoid"), score=score)
    booleans("expert_choice", mask=mask)
    same_shape("expert_choice", (n,), mask=mask)
    not_nan("expert_choice", logits=logits)

    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid()
    not_nan("expert_choice", scores=scores)  # from a logit of ∞, or from nothing but −∞
    real = torch.ones(n, dtype=torch.bool, device=logits.device) if mask is None else mask
    with torch.no_grad():
        by = scores if score == "softmax" else logits  # a sigmoid ranks as its logit, which knows no ties by rounding
        by = by.T.clamp_min(torch.finfo(by.dtype).min).masked_fill(~real, -torch.inf)  # no real token is as low as padding
        ids = by.sort(dim=-1, descending=True, stable=True).indices[:, :limit]
    return Choice(torch.where(real[ids], scores.T.gather(1, ids), 0), scores, ids)
