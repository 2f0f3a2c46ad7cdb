"""IA³ (Liu et al. 2022, arXiv:2205.05638): fine-tuning that learns to turn single features up and down."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from byhand.checks import demand, matching
from byhand.noise import Noise, at
from torch_impl.finetune._projections import need_projection, projections, wrap
from torch_impl.layers.linear import Linear


class IA3Linear(nn.Module):
    """y = l ⊙ (x Wᵀ + b),  or with feed_forward  y = (l ⊙ x) Wᵀ + b,  with a learned vector l; W and b are frozen.

    base : Linear, in → out; ia3_l (out,), or (in,) with feed_forward, starts at 1. x (..., in) -> y (..., out). `merge` multiplies l into
    the base, after which it has no part in the output; `unmerge` puts the base's own weight back, bit for bit.
    """

    def __init__(self, base: Linear, *, feed_forward: bool = False):
        super().__init__()
        need_projection("IA3Linear", base)
        self.base = base.requires_grad_(False)
        self.feed_forward = feed_forward
        n_out, n_in = base.weight.shape
        self.ia3_l = nn.Parameter(torch.ones(n_in if feed_forward else n_out, dtype=base.weight.dtype, device=base.weight.device))
        self._unscaled: tuple[Tensor, Tensor | None] | None = None  # the base's own weight and bias, while it is merged

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        if self.merged:
            return self.base(x, noise=at(noise, "base"))
        if self.feed_forward:
            return self.base(x * self.ia3_l, noise=at(noise, "base"))
        return self.base(x, noise=at(noise, "base")) * self.ia3_l

    @property
    def merged(self) -> bool:
        """Whether l is multiplied into the base."""
        return self._unscaled is not None

    @torch.no_grad()
    def merge(self) -> None:
        """Multiply l into the base's weight (and bias, where it scales the output), so that it costs nothing; the old ones are kept."""
        demand("IA3Linear.merge", not self.merged, "a layer that is not merged", merged=self.merged)
        base, vector = self.base, self.ia3_l.detach()
        self._unscaled = base.weight.data, None if base.bias is None else base.bias.data
        if self.feed_forward:
            base.weight.data = base.weight.data * vector
        else:
            base.weight.data = base.weight.data * vector[:, None]
            if base.bias is not None:
                base.bias.data = base.bias.data * vector

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the base's own weight and bias back, bit for bit."""
        demand("IA3Linear.unmerge", self.merged, "a layer that is merged", merged=self.merged)
        assert self._unscaled is not None
        device = self.base.weight.device  # where it may have been moved since
        weight, bias = self._unscaled
        self.base.weight.data = weight.to(device)
        if bias is not None:
            self.base.bias.data = bias.to(device)
        self._unscaled = None


def apply_ia3(model: nn.Module, *, targets: Sequence[str] = ("k_proj", "v_proj"),
              feed_forward: Sequence[str] = ("down_proj",)) -> list[str]:
    """Freeze the model, put an IA3Linear in the place of every projection whose name matches, and return their names.

    Outputs of `targets` and inputs of `feed_forward` are scaled; both are names or shell patterns.
    """
    who, names = "apply_ia3", list(projections(model))
    outputs = matching(who, names, of="projections", targets=targets)
    inputs = matching(who, names, of="projections", feed_forward=feed_forward)
    both = [name for name in outputs if name in inputs]
    demand(who, not both, "each projection in targets or in feed_forward", both=both)
    chosen = [name for name in names if name in outputs or name in inputs]
    demand(who, len(chosen) > 0, "a target", targets=targets, feed_forward=feed_forward)
    wrap(model, chosen, lambda name, base: IA3Linear(base, feed_forward=name in inputs))
    return chosen
