"""The k largest scores of each token, in an order that does not depend on the machine: how a router chooses its experts."""

from torch import Tensor

from byhand.checks import at_least_rank, demand, floats, not_nan, size


def top_k(scores: Tensor, *, k: int) -> Tensor:
    """idsⱼ = the expert with the j-th largest score, j = 0 … k − 1;  of equal scores the lower expert comes first.

    scores (..., E) -> ids (..., k) int64.  Which of equal scores torch.topk takes is not defined, hence the stable sort.
    """
    floats("top_k", scores=scores)
    at_least_rank("top_k", 1, scores=scores)
    size("top_k", k=k)
    demand("top_k", k <= scores.shape[-1], "k of at most the number of experts", k=k, scores=scores)
    not_nan("top_k", scores=scores)
    return scores.detach().sort(dim=-1, descending=True, stable=True).indices[..., :k]
