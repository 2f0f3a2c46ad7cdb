"""LoRA (Hu et al. 2021, arXiv:2106.09685) and DoRA (Liu et al. 2024, arXiv:2402.09353) around an affine layer."""

from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import fail
from byhand.noise import Noise, at
from torch_impl.finetune._adapted import Adapter, _Adapted
from torch_impl.finetune.dora import dora_delta, dora_norm
from torch_impl.finetune.lora import lora_delta
from torch_impl.layers.linear import Linear
from torch_impl.ops.dropout import dropout as drop
from torch_impl.quantize.linear_4bit import Linear4bit


class LoRALinear(_Adapted):
    """y = base(x) + Σ s · drop(x) Aᵀ Bᵀ  over the active adapters; the base is frozen, and only A and B train.

    With DoRA, an adapter's term is  g ∘ (x̃ Wᵀ + s · x̃ Aᵀ Bᵀ) − x̃ Wᵀ  with  x̃ = drop(x)  and  g = magnitude / ‖W + s · B A‖  by rows.
    x (..., in) -> y (..., out). lora_A is (r, in), lora_B (out, r), magnitude (out,).
    """

    def __init__(self, base: nn.Module, *, r: int | None, alpha: float, rslora: bool = False, dropout: float = 0.0, dora: bool = False,
                 detach_norm: bool = True, start: str = "kaiming", rng: torch.Generator | None = None):
        if not isinstance(base, (Linear, Linear4bit)):
            fail("LoRALinear", "base as an affine layer of this library's", type(base).__name__)
        super().__init__(base)
        if r is not None:
            self.add(r=r, alpha=alpha, rslora=rslora, dropout=dropout, dora=dora, detach_norm=detach_norm, start=start, rng=rng)

    def forward(self, x: Tensor, *, noise: Noise | None = None) -> Tensor:
        out = self.base(x, noise=at(noise, "base"))
        y = out
        for name, adapter in self._running:
            if adapter.dora:
                y = y + self._dora(adapter, x, out, at(noise, name))
            else:
                y = y + lora_delta(
                    x, adapter.lora_A, adapter.lora_B, scaling=adapter.scaling, dropout=adapter.dropout, noise=at(noise, name)
                )
        return y

    def _dora(self, adapter: Adapter, x: Tensor, out: Tensor, noise: Noise | None) -> Tensor:
        dropped = drop(x, p=adapter.dropout, noise=noise)
        if dropped is not x or self.merged:
            out = self._original(dropped)
        bias = self._original.bias
        low_rank = lora_delta(dropped, adapter.lora_A, adapter.lora_B, scaling=adapter.scaling)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not adapter.detach_norm):
            norm = self._norms(adapter)
        return dora_delta(out if bias is None else out - bias, low_rank, adapter.magnitude, norm)

    # What the base class asks of every layer. A quantized weight is dequantized only where there is no way around it.

    @property
    def _like(self) -> Tensor:
        base = self._original
        return base.codes.new_empty(0, dtype=base.dtype) if hasattr(base, "codes") else base.weight

    def _shapes(self, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        outputs, inputs = _size(self._original)
        return (r, inputs), (outputs, r)

    def _update(self, adapter: Adapter) -> Tensor:
        update = adapter.lora_B @ (adapter.lora_A * adapter.scaling)
        if adapter.magnitude is None:
            return update
        return dora_delta(self._original.weight.T, update.T, adapter.magnitude, self._norms(adapter)).T

    def _norms(self, adapter: Adapter) -> Tensor:
        base = self._original
        weight = base.strips if hasattr(base, "strips") else base.weight
        return dora_norm(adapter.lora_A, adapter.lora_B, weight=weight, scaling=adapter.scaling)

    def _stand_in(self, weight: Tensor) -> nn.Module:
        plain = Linear(1, 1, bias=False, device="meta")     # on which nothing is drawn from the generator
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), self.base.bias
        return plain


def _size(base: Any) -> tuple[int, int]:
    """(out, in) of the weight."""
    return (base.out_features, base.in_features) if hasattr(base, "out_features") else tuple(base.weight.shape)
