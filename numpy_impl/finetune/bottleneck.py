"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2020, arXiv:2005.00247): small layers between frozen ones."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, demand, matching, positive, size
from byhand.noise import Noise, at
from numpy_impl.finetune._projections import OnFrozen, measure, need_projection, projections, wrap
from numpy_impl.layers.feed_forward import ACTIVATIONS
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.layers.norm import LayerNorm
from numpy_impl.quantize.linear_4bit import Linear4bit


class BottleneckAdapter(Module):
    """y = h + scale · up(activation(down(norm(h)))).

    Parameters
    ----------
    d_model : int      D, width of h and y
    width : int        R, width of the bottleneck between them
    activation : str   gelu, gelu_tanh, gelu_sigmoid, relu, relu_squared, silu or mish
    norm : bool        whether h is layer-normalised before it goes down
    scale : float      how much of the branch is added
    dtype              of the parameters
    rng                np.random.Generator of the initial values

    up.weight (D, R) and up.bias start at 0, so that at first y is h; down starts as every Linear does. 2 · D · R + R + D parameters.

    Examples
    --------
    >>> adapter = BottleneckAdapter(6, 2, rng=np.random.default_rng(0))
    >>> h = np.ones((3, 6), dtype=np.float32)
    >>> y, backward = adapter.forward(h)
    >>> np.array_equal(y, h)
    True
    >>> dh, grads = backward(np.ones_like(y))
    >>> dh.shape, list(grads), grads["up"]["weight"].shape
    ((3, 6), ['down', 'up'], (6, 2))
    """

    def __init__(self, d_model: int, width: int, *, activation: str = "gelu", norm: bool = False, scale: float = 1.0,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        who = "BottleneckAdapter"
        size(who, d_model=d_model, width=width)
        choice(who, ACTIVATIONS, activation=activation)
        positive(who, scale=scale)
        self.activation, self.scale = activation, float(scale)
        self.norm = LayerNorm(d_model, dtype=dtype) if norm else None
        self.down = Linear(d_model, width, dtype=dtype, rng=rng)
        self.up = Linear(width, d_model, dtype=dtype, rng=rng)
        self.up.weight[...], self.up.bias[...] = 0, 0

    def forward(self, h: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """h (..., D) -> y (..., D); backward: dy -> dh, grads."""
        z, norm_backward = (h, None) if self.norm is None else self.norm.forward(h)
        z, down_backward = self.down.forward(z, noise=at(noise, "down"))         # (..., R)
        z, activation_backward = ACTIVATIONS[self.activation](z)
        z, up_backward = self.up.forward(z, noise=at(noise, "up"))               # (..., D)

        def backward(dy):
            dz, dup = up_backward(self.scale * dy)
            dz, ddown = down_backward(activation_backward(dz))
            grads = {"down": ddown, "up": dup}
            if norm_backward is not None:
                dz, grads["norm"] = norm_backward(dz)
            return dy + dz, grads                                                # the skip, plus the branch

        return h + self.scale * z, backward


class BottleneckLinear(OnFrozen):
    """y = adapter(base(x)): a frozen projection with a bottleneck adapter behind it.

    Parameters
    ----------
    base : Linear or Linear4bit   the projection in whose place it stands, in → out; it is frozen
    width : int                   R, width of the bottleneck

    activation, norm, scale and rng are those of `BottleneckAdapter`, and so is the start: at first the layer is its base. `unfreeze` thaws
    the base only for a pattern that names it, such as "*.base.bias".

    Examples
    --------
    >>> layer = BottleneckLinear(Linear(3, 4, rng=np.random.default_rng(0)), 2, rng=np.random.default_rng(1))
    >>> x = np.ones((5, 3), dtype=np.float32)
    >>> y, backward = layer.forward(x)
    >>> np.array_equal(y, layer.base(x))
    True
    >>> dx, grads = backward(y)
    >>> grads["base"], list(grads["adapter"])
    ({}, ['down', 'up'])
    """

    def __init__(self, base: Linear | Linear4bit, width: int, *, activation: str = "gelu", norm: bool = False, scale: float = 1.0,
                 rng: np.random.Generator | None = None):
        need_projection("BottleneckLinear", base)
        super().__init__(base)
        n_out, _, dtype = measure(base)
        self.adapter = BottleneckAdapter(n_out, width, activation=activation, norm=norm, scale=scale, dtype=dtype, rng=rng)

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., in) -> y (..., out); backward: dy -> dx, grads."""
        h, base_backward = self.base.forward(x, noise=at(noise, "base"))
        y, adapter_backward = self.adapter.forward(h, noise=at(noise, "adapter"))

        def backward(dy):
            dh, dadapter = adapter_backward(dy)
            dx, dbase = base_backward(dh)
            return dx, {"base": dbase, "adapter": dadapter}

        return y, backward


def apply_bottleneck(model: Module, *, width: int, targets: Sequence[str] = ("o_proj", "down_proj"), activation: str = "gelu",
                     norm: bool = False, scale: float = 1.0, rng: np.random.Generator | None = None) -> list[str]:
    """Freeze the model, and put a bottleneck adapter behind every projection whose name matches.

    Parameters
    ----------
    model : Module   changed in place
    width : int      R, width of the bottlenecks
    targets          names or shell patterns of projections. Houlsby's adapters stand behind both branches of a block, ("o_proj",
                     "down_proj"), Pfeiffer's behind the feed-forward layer alone, ("down_proj",)

    activation, norm, scale and rng are those of `BottleneckAdapter`.

    Returns
    -------
    the dotted names of the projections, in the model's order

    Raises
    ------
    ValueError   if a pattern matches no projection (near names are suggested), or an option is out of its range; then nothing
                 is changed

    Examples
    --------
    >>> from byhand.configs.gpt2 import GPT2Config
    >>> from numpy_impl.models.gpt2 import GPT2
    >>> model = GPT2(GPT2Config(vocabulary=7, max_length=8, d_model=8, n_layers=1, n_heads=2))
    >>> apply_bottleneck(model, width=2)
    ['blocks.0.attn.o_proj', 'blocks.0.mlp.down_proj']
    >>> sum(array.size for array in model.parameters().values())
    84
    """
    who = "apply_bottleneck"
    size(who, width=width)
    choice(who, ACTIVATIONS, activation=activation)
    positive(who, scale=scale)
    names = matching(who, projections(model), of="projections", targets=targets)
    demand(who, len(names) > 0, "a target", targets=targets)
    options = dict(activation=activation, norm=norm, scale=scale, rng=rng)
    wrap(model, names, lambda _, base: BottleneckLinear(base, width, **options))
    return names
