"""LoRA (Hu et al. 2021, arXiv:2106.09685) and DoRA (Liu et al. 2024, arXiv:2402.09353) around a convolution."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import demand, fail
from byhand.noise import Noise, at
from torch_impl.finetune._adapted import Adapter, _Adapted
from torch_impl.finetune.dora import dora_delta, dora_norm
from torch_impl.layers.conv import Conv1d, Conv2d
from torch_impl.ops.conv import conv1d, conv2d
from torch_impl.ops.dropout import dropout as drop


class _LoRAConv(_Adapted):
    """What both have in common."""

    _kind: type[Conv1d] | type[Conv2d]
    _convolve: Callable

    def __init__(self, base: Any, *, r: int | None, alpha: float, rslora: bool = False, dropout: float = 0.0, dora: bool = False,
                 detach_norm: bool = True, start: str = "kaiming", rng: torch.Generator | None = None):
        if not isinstance(base, self._kind):
            fail(type(self).__name__, f"base as a {self._kind.__name__}", type(base).__name__)
        super().__init__(base)
        if r is not None:
            self.add(r=r, alpha=alpha, rslora=rslora, dropout=dropout, dora=dora, detach_norm=detach_norm, start=start, rng=rng)

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        y = self.base(x, noise=at(noise, "base"))
        for name, adapter in self._running:
            dropped = drop(x, p=adapter.dropout, noise=at(noise, name))
            delta = self._low_rank(adapter, dropped, y.shape)
            y = y + (self._directed(adapter, dropped, delta) if adapter.dora else delta)
        return y

    def _low_rank(self, adapter: Adapter, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """s · B ∗ (A ∗ x), of this shape."""
        if adapter.r == 0:
            return x.new_zeros(shape)
        base, convolve = self.base, type(self)._convolve
        thin = convolve(x, adapter.lora_A, stride=base.stride, padding=base.padding, dilation=base.dilation)
        return convolve(adapter.scaling * thin, adapter.lora_B, groups=base.groups)

    def _directed(self, adapter: Adapter, x: Tensor, low_rank: Tensor) -> Tensor:
        """The same around the direction of the moved weight."""
        plain, bias = self._original(x).movedim(1, -1), self._original.bias
        norm = self._norms(adapter)
        norm = norm.detach() if adapter.detach_norm else norm
        plain = plain if bias is None else plain - bias
        return dora_delta(plain, low_rank.movedim(1, -1), adapter.magnitude, norm).movedim(-1, 1)

    def _shapes(self, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        (outputs, inputs, *kernel), groups = self.base.weight.shape, self.base.groups
        demand(type(self).__name__, r % groups == 0, "a rank that the base's groups divide", r=r, groups=groups)
        return (r, inputs * groups, *kernel), (outputs, r // groups, *(1 for _ in kernel))

    def _update(self, adapter: Adapter) -> Tensor:
        flat_A, flat_B, weight = self._matrices(adapter)
        update = flat_B @ (adapter.scaling * flat_A)
        if adapter.dora:
            update = dora_delta(weight.mT, update.mT, adapter.magnitude, self._norms(adapter)).mT
        return update.reshape(self.base.weight.shape)

    def _norms(self, adapter: Adapter) -> Tensor:
        flat_A, flat_B, weight = self._matrices(adapter)
        return dora_norm(flat_A, flat_B, weight=weight, scaling=adapter.scaling)

    def _matrices(self, adapter: Adapter) -> tuple[Tensor, Tensor, Tensor]:
        """A (R, C · kernel), B (O, R) and the base's weight (O, C · kernel)."""
        weight, groups = self._original.weight, self.base.groups
        demand(type(self).__name__, groups == 1, "groups=1 for a weight that has moved: A mixes channels that the base's groups keep apart",
               groups=groups)
        outputs, window = len(weight), math.prod(weight.shape[1:])
        return adapter.lora_A.reshape(adapter.r, window), adapter.lora_B.reshape(outputs, adapter.r), weight.reshape(outputs, window)

    def _stand_in(self, weight: Tensor) -> nn.Module:
        base = self.base
        plain = self._kind(1, 1, 1, stride=base.stride, padding=base.padding, dilation=base.dilation, bias=False,
                           device="meta")                       # on which nothing is drawn from the generator
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), base.bias
        return plain


class LoRAConv1d(_LoRAConv):
    """y = base(x) + Σ s · B ∗ (A ∗ drop(x))  over the active adapters, ∗ being a convolution.  x (N, C, T) -> y (N, O, T').

    A (R, C, k) convolves as the base does, but into R channels; B (O, R/groups, 1) widens those to the base's.
    """

    _kind, _convolve = Conv1d, conv1d


class LoRAConv2d(_LoRAConv):
    """y = base(x) + Σ s · B ∗ (A ∗ drop(x))  over the active adapters, ∗ being a convolution.  x (N, C, H, W) -> y (N, O, H', W').

    A (R, C, kh, kw) convolves as the base does, but into R channels; B (O, R/groups, 1, 1) widens those to the base's.
    """

    _kind, _convolve = Conv2d, conv2d
