"""IA³ (Liu et al. 2022, arXiv:2205.05638): fine-tuning that learns to turn single features up and down."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import demand, matching
from byhand.noise import Noise, at
from torch_impl.finetune._projections import measure, need_projection, projections, wrap
from torch_impl.layers.linear import Linear
from torch_impl.quantize.linear_4bit import Linear4bit


class IA3Linear(nn.Module):
    """y = l ⊙ (x Wᵀ + b),  or with feed_forward  y = (l ⊙ x) Wᵀ + b,  with a learned vector l; W and b are frozen.

    base : Linear or Linear4bit, in → out; ia3_l (out,), or (in,) with feed_forward, starts at 1. x (..., in) -> y (..., out). `merge`
    multiplies l into the base, after which it has no part in the output; `unmerge` puts the base back, bit for bit.
    """

    def __init__(self, base: Linear | Linear4bit, *, feed_forward: bool = False):
        super().__init__()
        need_projection("IA3Linear", base)
        self.base = base.requires_grad_(False)
        self.feed_forward = feed_forward
        n_out, n_in, here = measure(base)
        self.ia3_l = nn.Parameter(torch.ones(n_in if feed_forward else n_out, **here))
        self._unmerged: tuple[nn.Module, ...] = ()  # the base as it was before l was merged; a tuple registers nothing
        self._trained = True  # whether l is, once it is no longer merged

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        if self.merged:
            return self.base(x, noise=at(noise, "base"))
        if self.feed_forward:
            return self.base(x * self.ia3_l, noise=at(noise, "base"))
        return self.base(x, noise=at(noise, "base")) * self.ia3_l

    @property
    def merged(self) -> bool:
        """Whether l is multiplied into the base."""
        return self._unmerged != ()

    @torch.no_grad()
    def merge(self) -> None:
        """Put a plain layer with diag(l) W and l ⊙ b, or with W diag(l) and b, in the base's place, so that l costs nothing."""
        demand("IA3Linear.merge", not self.merged, "a layer that is not merged", merged=self.merged)
        need_projection("IA3Linear.merge", self.base)                    # an adapter may have taken its place since
        base, weight, bias = self.base, self.base.weight, self.base.bias
        plain = Linear(1, 1, bias=False, device="meta")  # on which nothing is drawn
        plain.weight = nn.Parameter(weight * (self.ia3_l if self.feed_forward else self.ia3_l[:, None]))
        if bias is not None:
            plain.bias = nn.Parameter(bias.clone() if self.feed_forward else bias * self.ia3_l)
        self.base, self._unmerged = plain.requires_grad_(False), (base,)
        self._trained = self.ia3_l.requires_grad
        self.ia3_l.requires_grad_(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for kept in self._unmerged:  # a tuple registers nothing, so `to` and its like would leave it behind
            kept._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def unmerge(self) -> None:
        """Put the base back as it was, bit for bit."""
        demand("IA3Linear.unmerge", self.merged, "a layer that is merged", merged=self.merged)
        (self.base,), self._unmerged = self._unmerged, ()
        self.ia3_l.requires_grad_(self._trained)


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
