"""The Bradley–Terry loss: the scores of two answers say how probably people prefer the one to the other."""

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import floats, in_range, not_negative, same_shape


def bradley_terry(chosen: Tensor, rejected: Tensor, *, margin: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    """loss = mean of  −(1 − ε) · log σ(δ) − ε · log σ(−δ),  with  δ = chosen − rejected − margin.  chosen, rejected (...,) -> ()."""
    floats("bradley_terry", chosen=chosen, rejected=rejected)
    same_shape("bradley_terry", chosen.shape, rejected=rejected)
    not_negative("bradley_terry", margin=margin)
    in_range("bradley_terry", 0, 1, label_smoothing=label_smoothing)
    delta = chosen - rejected - margin
    return (label_smoothing * delta - F.logsigmoid(delta)).mean()
