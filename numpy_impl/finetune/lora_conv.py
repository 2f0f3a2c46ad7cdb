"""LoRA (Hu et al. 2021, arXiv:2106.09685) and DoRA (Liu et al. 2024, arXiv:2402.09353) around a convolution."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, fail
from byhand.noise import Noise, at
from numpy_impl.finetune._adapted import Adapter, _Adapted
from numpy_impl.finetune.dora import dora_delta, dora_norm
from numpy_impl.layers.conv import Conv1d, Conv2d
from numpy_impl.layers.module import Module
from numpy_impl.ops.conv import conv1d, conv2d
from numpy_impl.ops.dropout import dropout as drop


class _LoRAConv(_Adapted):
    """What both have in common."""

    _kind: type[Conv1d] | type[Conv2d]
    _convolve: Callable

    def __init__(self, base: Any, *, r: int | None, alpha: float, rslora: bool = False, dropout: float = 0.0, dora: bool = False,
                 detach_norm: bool = True, start: str = "kaiming", rng: np.random.Generator | None = None):
        if not isinstance(base, self._kind):
            fail(type(self).__name__, f"base as a {self._kind.__name__}", type(base).__name__)
        super().__init__(base)
        if r is not None:
            self.add(r=r, alpha=alpha, rslora=rslora, dropout=dropout, dora=dora, detach_norm=detach_norm, start=start, rng=rng)

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (N, C, ...) -> y (N, O, ...); backward: dy -> dx, grads. Every adapter drops out by the stream of its name."""
        y, base_backward = self.base.forward(x, noise=at(noise, "base"))
        pullbacks = {}
        for name, adapter in self._running:
            dropped, drop_backward = drop(x, p=adapter.dropout, noise=at(noise, name))
            delta, delta_backward = (self._dora if adapter.dora else self._lora)(adapter, dropped, y.shape)
            pullbacks[name] = delta_backward, drop_backward
            y = y + delta

        def backward(dy):
            dx, dbase = base_backward(dy)
            grads = {}
            for name, (delta_backward, drop_backward) in pullbacks.items():
                ddropped, grads[name] = delta_backward(dy)
                dx = dx + drop_backward(ddropped)
            return dx, {"base": dbase, "adapters": grads}

        return y, backward

    def _lora(self, adapter: Adapter, x: NDArray, shape: tuple[int, ...]) -> tuple[NDArray, Callable]:
        """Δ of this shape; backward: dy -> dx, grads."""
        delta, delta_backward = self._low_rank(adapter, x, shape)

        def backward(dy):
            dx, dlora_A, dlora_B = delta_backward(dy)
            return dx, adapter.grads(lora_A=dlora_A, lora_B=dlora_B)

        return delta, backward

    def _dora(self, adapter: Adapter, x: NDArray, shape: tuple[int, ...]) -> tuple[NDArray, Callable]:
        """The same around the direction of the moved weight, one length for each output channel."""
        plain, plain_backward = self._original.forward(x)
        bias = self._original.bias
        low_rank, low_rank_backward = self._low_rank(adapter, x, shape)
        norm, norm_backward = self._norm(adapter)
        plain, low_rank = np.moveaxis(plain, 1, -1), np.moveaxis(low_rank, 1, -1)      # (N, ..., O): dora_delta scales the last axis
        delta, delta_backward = dora_delta(plain if bias is None else plain - bias, low_rank, adapter.magnitude, norm)

        def backward(dy):
            # x came in twice, through the frozen weight and through A and B; A and B too, where the norm counts.
            dplain, dlow_rank, dmagnitude, dnorm = delta_backward(np.moveaxis(dy, 1, -1))
            dx, dlora_A, dlora_B = low_rank_backward(np.moveaxis(dlow_rank, -1, 1))
            if not adapter.detach_norm:
                through_A, through_B = norm_backward(dnorm)
                dlora_A, dlora_B = dlora_A + through_A.reshape(dlora_A.shape), dlora_B + through_B.reshape(dlora_B.shape)
            dx = dx + plain_backward(np.moveaxis(dplain, -1, 1))[0]
            return dx, adapter.grads(lora_A=dlora_A, lora_B=dlora_B, magnitude=dmagnitude)

        return np.moveaxis(delta, -1, 1), backward

    def _low_rank(self, adapter: Adapter, x: NDArray, shape: tuple[int, ...]) -> tuple[NDArray, Callable]:
        """s · B ∗ (A ∗ x), of this shape; backward: dy -> dx, dA, dB. Two convolutions and a factor between them, walked backwards."""
        lora_A, lora_B, scaling = adapter.lora_A, adapter.lora_B, adapter.scaling
        if adapter.r == 0:                                                             # no channels: nothing to convolve
            x_shape = x.shape
            return np.zeros(shape, x.dtype), lambda dy: (np.zeros(x_shape, dy.dtype), np.zeros_like(lora_A), np.zeros_like(lora_B))
        base, convolve = self.base, type(self)._convolve
        thin, squeeze_backward = convolve(x, lora_A, stride=base.stride, padding=base.padding, dilation=base.dilation)   # (N, R, ...)
        delta, widen_backward = convolve(scaling * thin, lora_B, groups=base.groups)   # (N, O, ...)

        def backward(dy):
            dthin, dlora_B, _ = widen_backward(dy)
            dx, dlora_A, _ = squeeze_backward(scaling * dthin)
            return dx, dlora_A, dlora_B

        return delta, backward

    # What the base class asks of every layer

    def _shapes(self, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        (outputs, inputs, *kernel), groups = self.base.weight.shape, self.base.groups
        demand(type(self).__name__, r % groups == 0, "a rank that the base's groups divide", r=r, groups=groups)
        return (r, inputs * groups, *kernel), (outputs, r // groups, *(1 for _ in kernel))

    def _update(self, adapter: Adapter) -> NDArray:
        flat_A, flat_B, weight = self._matrices(adapter)
        update = flat_B @ (adapter.scaling * flat_A)
        if adapter.dora:
            update = dora_delta(weight.T, update.T, adapter.magnitude, self._norms(adapter))[0].T
        return update.reshape(self.base.weight.shape)

    def _norm(self, adapter: Adapter) -> tuple[NDArray, Callable]:
        flat_A, flat_B, weight = self._matrices(adapter)
        return dora_norm(flat_A, flat_B, weight=weight, scaling=adapter.scaling)

    def _norms(self, adapter: Adapter) -> NDArray:
        return self._norm(adapter)[0]

    def _matrices(self, adapter: Adapter) -> tuple[NDArray, NDArray, NDArray]:
        """A (R, C · kernel), B (O, R) and the base's weight (O, C · kernel)."""
        weight, groups = self._original.weight, self.base.groups
        demand(type(self).__name__, groups == 1, "groups=1 for a weight that has moved: A mixes channels that the base's groups keep apart",
               groups=groups)
        outputs, window = len(weight), math.prod(weight.shape[1:])
        return adapter.lora_A.reshape(adapter.r, window), adapter.lora_B.reshape(outputs, adapter.r), weight.reshape(outputs, window)

    def _stand_in(self, weight: NDArray) -> Module:
        plain = copy.copy(self.base)
        plain.weight = weight
        return plain


class LoRAConv1d(_LoRAConv):
    """y = base(x) + Σ s · B ∗ (A ∗ drop(x))  over the active adapters, ∗ being a convolution; the base is frozen.

    A (R, C, k) convolves as the base does (stride, padding, dilation) but into R channels, and B (O, R/groups, 1) widens those to the
    base's. Without groups that is one convolution with the kernel s · B A, A taken as a matrix (R, C · k), which `merge` adds to the
    base's. A sees all channels even where the base has groups: such a layer runs and trains, but does not merge and has no DoRA.

    Parameters
    ----------
    base : Conv1d
    r : int    the rank of the adapter "default", a multiple of the base's groups; None adds no adapter yet
    alpha, rslora, dropout, dora, detach_norm, start, rng : as in `LoRALinear`; DoRA's magnitude is (O,), a length for each output channel

    Raises
    ------
    ValueError   if base is no Conv1d, its groups do not divide the rank, or an option is out of range

    Examples
    --------
    >>> layer = LoRAConv1d(Conv1d(3, 8, 5, padding=2), r=2, alpha=4)
    >>> y, backward = layer.forward(np.ones((2, 3, 10), dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> grads["base"], {name: grad.shape for name, grad in grads["adapters"]["default"].items()}
    ({}, {'lora_A': (2, 3, 5), 'lora_B': (8, 2, 1)})
    """

    _kind, _convolve = Conv1d, conv1d


class LoRAConv2d(_LoRAConv):
    """y = base(x) + Σ s · B ∗ (A ∗ drop(x))  over the active adapters, ∗ being a convolution; the base is frozen.

    Everything is as in `LoRAConv1d`, with A (R, C, kh, kw) and B (O, R/groups, 1, 1).

    Parameters
    ----------
    base : Conv2d
    r, alpha, rslora, dropout, dora, detach_norm, start, rng : as in `LoRAConv1d`

    Raises
    ------
    ValueError   if base is no Conv2d, its groups do not divide the rank, or an option is out of range

    Examples
    --------
    >>> layer = LoRAConv2d(Conv2d(3, 8, 5, padding=2), r=2, alpha=4)
    >>> x = np.ones((2, 3, 9, 9), dtype=np.float32)
    >>> y, backward = layer.forward(x)
    >>> bool((y == layer.base(x)).all())                          # B is zero
    True
    """

    _kind, _convolve = Conv2d, conv2d
