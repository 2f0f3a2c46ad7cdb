"""A mixture of feed-forward experts, each of which works on the tokens that chose it and on no others (Shazeer et al. 2017,
arXiv:1701.06538; without padding or a capacity, as Gale et al. 2022, arXiv:2211.15841)."""

from torch import Tensor

from torch_impl.layers.feed_forward import ACTIVATIONS
from torch_impl.layers.gated_feed_forward import GATES
from torch_impl.moe._inputs import checked
from torch_impl.moe.grouped_linear import Kernel, grouped_linear
from torch_impl.moe.permute import Plan, permute, unpermute


def experts(x: Tensor, weights: Tensor, gate: Tensor | None, up: Tensor, down: Tensor, *, plan: Plan, activation: str = "swiglu",
            kernel: Kernel = "auto") -> Tensor:
    """y[t] = Σ over the rows m of token t of weights[slots[m]] · fₑ(x[t]), e being the expert of row m and
    fₑ(x) = downₑ · (activation(gateₑ x) · upₑ x), or downₑ · activation(upₑ x) without gate.

    x (N, D), weights of any shape, gate (E, F, D) or None, up (E, F, D), down (E, D, F), plan a Plan or its three arrays -> y (N, D).
    `kernel` as in grouped_linear. Weights may be float32 beside half precision.
    """
    tokens, slots, counts = checked("experts", x, weights, gate, up, down, plan, activation)
    rows = permute(x, tokens=tokens)
    h = grouped_linear(rows, up, counts=counts, kernel=kernel)
    h = ACTIVATIONS[activation](h) if gate is None else GATES[activation](grouped_linear(rows, gate, counts=counts, kernel=kernel), h)
    results = grouped_linear(h, down, counts=counts, kernel=kernel)
    return unpermute(results, weights.reshape(-1).index_select(0, slots), tokens=tokens, n=x.shape[0])
