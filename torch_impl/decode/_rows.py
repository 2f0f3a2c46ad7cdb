"""What the rules of decoding ask of rows of logits: a largest one that is finite, and which tokens are the best."""

import torch
from torch import Tensor

from byhand.checks import at_least_rank, demand, fail, floats, not_nan


def largest(function: str, logits: Tensor, *, needs: str = "a token that is not excluded in every row") -> Tensor:
    """(..., 1): each row's largest logit, refused by name unless it is finite. On an accelerator this waits for the logits."""
    floats(function, logits=logits)
    at_least_rank(function, 1, logits=logits)
    demand(function, logits.shape[-1] > 0, "at least one token", logits=logits)
    top = logits.amax(-1, keepdim=True)
    if not torch.isfinite(top).all():
        not_nan(function, logits=logits)
        demand(function, not torch.isposinf(top).any(), "logits below infinity", logits=logits)
        row = int(torch.isneginf(top).int().argmax())
        fail(function, needs, f"nothing but -inf in row {row} of logits of shape {tuple(logits.shape)}")
    return top


def widened(logits: Tensor) -> Tensor:
    """float16 and bfloat16 in float32, in which probabilities are summed; wider ones as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def best(logits: Tensor, k: int) -> Tensor:
    """(..., V): True at the k largest logits of each row, the lower ids of equal ones."""
    k = min(int(k), logits.shape[-1])
    return first_of_equals(logits, logits.topk(k).values[..., -1:], k)


def first_of_equals(values: Tensor, bound: Tensor, count: int | Tensor) -> Tensor:
    """(..., V): True at the `count` largest values of each row, the lower ids of equal ones; bound (..., 1) is the smallest of those."""
    above, equal = values > bound, values == bound
    return above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
