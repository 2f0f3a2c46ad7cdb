"""A mixture of experts as it is defined: every expert on every token, then masked and weighed. What `moe.experts` is measured by."""

import torch
from torch import Tensor

from torch_impl.layers.feed_forward import ACTIVATIONS
from torch_impl.layers.gated_feed_forward import GATES
from torch_impl.moe._inputs import checked
from torch_impl.moe.permute import Plan


def dense_experts(x: Tensor, weights: Tensor, gate: Tensor | None, up: Tensor, down: Tensor, *, plan: Plan,
                  activation: str = "swiglu") -> Tensor:
    """y[t] = Σₑ c[t,e] · fₑ(x[t]), where c[t,e] is the sum of the weights with which token t goes to expert e, and
    fₑ(x) = downₑ · (activation(gateₑ x) · upₑ x), or downₑ · activation(upₑ x) without gate.

    Shapes as in experts; the same result, for E / k times the work.
    """
    tokens, slots, counts = checked("dense_experts", x, weights, gate, up, down, plan, activation)
    n, count = x.shape[0], up.shape[0]
    of_row = tokens * count + torch.arange(count, device=x.device).repeat_interleave(counts, output_size=len(tokens))
    c = weights.new_zeros(n * count).index_add(0, of_row, weights.reshape(-1).index_select(0, slots)).view(n, count)

    h = torch.einsum("nd,efd->enf", x, up)
    h = ACTIVATIONS[activation](h) if gate is None else GATES[activation](torch.einsum("nd,efd->enf", x, gate), h)
    every = torch.einsum("enf,edf->end", h, down)
    return torch.einsum("ne,end->nd", c, every.to(c.dtype)).to(x.dtype)
