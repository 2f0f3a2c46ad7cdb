"""Mean squared error."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from byhand.checks import choice, floats, same_shape


def mse(prediction: Tensor, target: Tensor, *, reduction: Literal["mean", "sum", "none"] = "mean") -> Tensor:
    """loss = mean (prediction − target)².  prediction (...,), target (...,) -> () or, with reduction "none", (...,)."""
    floats("mse", prediction=prediction, target=target)
    same_shape("mse", prediction.shape, target=target)
    choice("mse", ("mean", "sum", "none"), reduction=reduction)
    return F.mse_loss(prediction, target, reduction=reduction)
