"""LoRA (Hu et al. 2021, arXiv:2106.09685) and DoRA (Liu et al. 2024, arXiv:2402.09353) around an affine layer."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import fail
from byhand.noise import Noise, at
from numpy_impl.finetune._adapted import Adapter, _Adapted
from numpy_impl.finetune.dora import dora_delta, dora_norm
from numpy_impl.finetune.lora import lora_delta
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.ops.dropout import dropout as drop
from numpy_impl.quantize.linear_4bit import Linear4bit


class LoRALinear(_Adapted):
    """y = base(x) + Σ s · drop(x) Aᵀ Bᵀ  over the active adapters; the base is frozen, and only A and B train.

    With DoRA, an adapter's term is  g ∘ (x̃ Wᵀ + s · x̃ Aᵀ Bᵀ) − x̃ Wᵀ  with  x̃ = drop(x)  and  g = magnitude / ‖W + s · B A‖  by rows:
    without dropout, that makes the output x W'ᵀ + b for a W' whose rows have the lengths that `magnitude` says. W is always the base's own
    weight, so that deltas of several adapters add, whatever they are.

    Parameters
    ----------
    base : Linear or Linear4bit   what the adapters stand on; it is frozen by this
    r : int               the rank of the adapter "default"; None adds no adapter yet
    alpha : float         its update counts α/r
    rslora : bool         or α/√r
    dropout : float       probability in [0, 1] for an entry of x, on the adapter's path only
    dora : bool           whether a magnitude trains too
    detach_norm : bool    with DoRA: whether the gradient takes the norm for a constant, as the paper proposes
    start : str           of A: "kaiming", uniform in ±1/√in, or "gaussian", normal with deviation 1/r; B starts at zero
    rng                   np.random.Generator of the start

    Adapters beside the first come with `add`. lora_A is (r, in), lora_B (out, r), magnitude (out,).

    Raises
    ------
    ValueError   if base is no affine layer, or an option is out of range

    Examples
    --------
    >>> layer = LoRALinear(Linear(3, 4, rng=np.random.default_rng(0)), r=2, alpha=4, rng=np.random.default_rng(1))
    >>> x = np.ones((5, 3), dtype=np.float32)
    >>> y, backward = layer.forward(x)
    >>> bool((y == layer.base(x)).all())                  # B is zero
    True
    >>> dx, grads = backward(np.ones_like(y))
    >>> grads["base"], {name: grad.shape for name, grad in grads["adapters"]["default"].items()}
    ({}, {'lora_A': (2, 3), 'lora_B': (4, 2)})
    """

    def __init__(self, base: Module, *, r: int | None, alpha: float, rslora: bool = False, dropout: float = 0.0, dora: bool = False,
                 detach_norm: bool = True, start: str = "kaiming", rng: np.random.Generator | None = None):
        if not isinstance(base, (Linear, Linear4bit)):
            fail("LoRALinear", "base as an affine layer of this library's", type(base).__name__)
        super().__init__(base)
        if r is not None:
            self.add(r=r, alpha=alpha, rslora=rslora, dropout=dropout, dora=dora, detach_norm=detach_norm, start=start, rng=rng)

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., in) -> y (..., out); backward: dy -> dx, grads. Every adapter drops out by the stream of its name."""
        out, base_backward = self.base.forward(x, noise=at(noise, "base"))
        y, pullbacks = out, {}
        for name, adapter in self._running:
            path = self._dora if adapter.dora else self._lora
            delta, pullbacks[name] = path(adapter, x, out, at(noise, name))
            y = np.add(y, delta, out=delta)

        def backward(dy):
            # Every path starts from the same dy. What a path read from the base's output goes back into the base with dy, in one product;
            # but not into its bias, which no path reads.
            dout, dx_paths, grads = dy, [], {}
            for name, pullback in pullbacks.items():
                dx_path, dout_path, grads[name] = pullback(dy)
                dx_paths.append(dx_path)
                dout = dout if dout_path is None else dout + dout_path
            dx, dbase = base_backward(dout)
            if dout is not dy:
                dbase = self.base.grads(bias=dy.sum(tuple(range(dy.ndim - 1))))
            for dx_path in dx_paths:
                dx = np.add(dx, dx_path, out=dx_path)
            return dx, {"base": dbase, "adapters": grads}

        return y, backward

    # A path: what one adapter adds. Its pullback maps dy to dx, the cotangent of what it read from the base's output (or None), and grads.

    def _lora(self, adapter: Adapter, x: NDArray, out: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        delta, delta_backward = lora_delta(
            x, adapter.lora_A, adapter.lora_B, scaling=adapter.scaling, dropout=adapter.dropout, noise=noise
        )

        def backward(dy):
            dx, dlora_A, dlora_B = delta_backward(dy)
            return dx, None, adapter.grads(lora_A=dlora_A, lora_B=dlora_B)

        return delta, backward

    def _dora(self, adapter: Adapter, x: NDArray, out: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        dropped, drop_backward = drop(x, p=adapter.dropout, noise=noise)
        shares = dropped is x and not self.merged      # then x̃ Wᵀ is the base's output, less the bias; else it takes a product of its own
        if not shares:
            out, out_backward = self._original.forward(dropped)
        bias = self._original.bias
        low_rank, low_rank_backward = lora_delta(dropped, adapter.lora_A, adapter.lora_B, scaling=adapter.scaling)
        norm, norm_backward = self._norm(adapter)
        if adapter.detach_norm:
            norm_backward = None                           # and with it goes what it keeps
        delta, delta_backward = dora_delta(out if bias is None else out - bias, low_rank, adapter.magnitude, norm)

        def backward(dy):
            dout, dlow_rank, dmagnitude, dnorm = delta_backward(dy)
            dx, dlora_A, dlora_B = low_rank_backward(dlow_rank)
            if norm_backward is not None:
                through_A, through_B = norm_backward(dnorm)
                dlora_A += through_A
                dlora_B += through_B
            if not shares:
                dx += out_backward(dout)[0]
            grads = adapter.grads(lora_A=dlora_A, lora_B=dlora_B, magnitude=dmagnitude)
            return drop_backward(dx), dout if shares else None, grads

        return delta, backward

    # What the base class asks of every layer. A quantized weight is dequantized only where there is no way around it.

    @property
    def _dtype(self) -> np.dtype:
        return self._original.dtype if hasattr(self._original, "dtype") else self._original.weight.dtype

    def _shapes(self, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        outputs, inputs = _size(self._original)
        return (r, inputs), (outputs, r)

    def _update(self, adapter: Adapter) -> NDArray:
        update = adapter.lora_B @ (adapter.lora_A * adapter.scaling)
        if adapter.magnitude is None:
            return update
        weight = self._original.weight
        return dora_delta(weight.T, update.T, adapter.magnitude, self._norms(adapter))[0].T

    def _norm(self, adapter: Adapter) -> tuple[NDArray, Callable]:
        base = self._original
        weight = base.strips if hasattr(base, "strips") else base.weight
        return dora_norm(adapter.lora_A, adapter.lora_B, weight=weight, scaling=adapter.scaling)

    def _norms(self, adapter: Adapter) -> NDArray:
        return self._norm(adapter)[0]

    def _stand_in(self, weight: NDArray) -> Module:
        plain = object.__new__(Linear)                     # its constructor would draw a weight, only for it to be replaced
        plain.weight, plain.bias = weight, self.base.bias
        return plain.freeze(*(name for name in ("weight", "bias") if not self.base.trains(name)))


def _size(base: Any) -> tuple[int, int]:
    """(out, in) of the weight."""
    return (base.out_features, base.in_features) if hasattr(base, "out_features") else base.weight.shape
