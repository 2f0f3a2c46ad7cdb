"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2020, arXiv:2005.00247): small layers between frozen ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import choice, demand, matching, positive, size
from byhand.noise import Noise, at
from torch_impl.finetune._projections import measure, need_projection, projections, wrap
from torch_impl.layers.feed_forward import ACTIVATIONS
from torch_impl.layers.linear import Linear
from torch_impl.layers.norm import LayerNorm
from torch_impl.quantize.linear_4bit import Linear4bit


class BottleneckAdapter(nn.Module):
    """y = h + scale · up(activation(down(norm(h)))).  h (..., D) -> y (..., D) through R = width features; up starts at 0."""

    def __init__(self, d_model: int, width: int, *, activation: str = "gelu", norm: bool = False, scale: float = 1.0,
                 dtype: torch.dtype = torch.float32, device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        who = "BottleneckAdapter"
        size(who, d_model=d_model, width=width)
        choice(who, ACTIVATIONS, activation=activation)
        positive(who, scale=scale)
        self.activation, self.scale = activation, float(scale)
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        self.norm = LayerNorm(d_model, **here) if norm else None
        self.down = Linear(d_model, width, rng=rng, **here)
        self.up = Linear(width, d_model, rng=rng, **here)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor, *, noise: Noise | None = None) -> Tensor:
        z = h if self.norm is None else self.norm(h)
        z = ACTIVATIONS[self.activation](self.down(z, noise=at(noise, "down")))  # (..., R)
        return h + self.scale * self.up(z, noise=at(noise, "up"))


class BottleneckLinear(nn.Module):
    """y = adapter(base(x)): a frozen projection, in → out, with a bottleneck adapter behind it.  x (..., in) -> y (..., out)."""

    def __init__(self, base: Linear | Linear4bit, width: int, *, activation: str = "gelu", norm: bool = False, scale: float = 1.0,
                 rng: torch.Generator | None = None):
        super().__init__()
        need_projection("BottleneckLinear", base)
        self.base = base.requires_grad_(False)
        n_out, _, here = measure(base)
        self.adapter = BottleneckAdapter(n_out, width, activation=activation, norm=norm, scale=scale, rng=rng, **here)

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        return self.adapter(self.base(x, noise=at(noise, "base")), noise=at(noise, "adapter"))


def apply_bottleneck(model: nn.Module, *, width: int, targets: Sequence[str] = ("o_proj", "down_proj"), activation: str = "gelu",
                     norm: bool = False, scale: float = 1.0, rng: torch.Generator | None = None) -> list[str]:
    """Freeze the model, put a bottleneck adapter behind every projection whose name or pattern is in `targets`, and return their names."""
    who = "apply_bottleneck"
    size(who, width=width)
    choice(who, ACTIVATIONS, activation=activation)
    positive(who, scale=scale)
    names = matching(who, projections(model), of="projections", targets=targets)
    demand(who, len(names) > 0, "a target", targets=targets)
    options: dict[str, Any] = dict(activation=activation, norm=norm, scale=scale, rng=rng)
    wrap(model, names, lambda _, base: BottleneckLinear(base, width, **options))
    return names
