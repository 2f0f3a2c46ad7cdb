"""What holds parameters: plain arrays on plain attributes, gradients as values that nest by attribute name."""

import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grads = dict[str, Any]  # name -> gradient array, or the Grads of a child


class Module:
    """A layer: `forward(*inputs) -> (y, backward)`, and `backward(*cotangents) -> (*dinputs, grads)`.

    Parameters are NumPy arrays on plain attributes; children are modules on plain attributes, or lists or dicts of modules. Nothing is
    registered: `state_dict` walks the attributes in the order in which they were set. An attribute named in the class attribute
    `buffers` is state that is saved but not trained.

    `module(x)` is inference: the bits of `forward(x)[0]`, with no pullback kept alive.

    Examples
    --------
    >>> class Scale(Module):
    ...     def __init__(self, width):
    ...         self.weight = np.ones(width, dtype=np.float32)
    ...     def forward(self, x):
    ...         def backward(dy):
    ...             return dy * self.weight, self.grads(weight=(dy * x).sum(0))
    ...         return x * self.weight, backward
    >>> scale = Scale(2)
    >>> y, backward = scale.forward(np.array([[3.0, 4.0]], dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> grads["weight"]
    array([3., 4.], dtype=float32)
    >>> list(scale.state_dict())
    ['weight']
    """

    buffers: tuple[str, ...] = ()

    def forward(self, *inputs: Any, **options: Any) -> tuple[Any, Any]:
        """(y, backward); every layer writes its own."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.forward(*inputs, **options)[0]

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, child) of every child module, in attribute order; a list's children are named `blocks.0`, `blocks.1` …"""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, dict)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                yield from ((f"{name}.{key}", child) for key, child in items if isinstance(child, Module))

    def modules(self) -> Iterator[tuple[str, "Module"]]:
        """(dotted name, module) of everything below this module, parents before their children."""
        for name, child in self.children():
            yield name, child
            yield from ((f"{name}.{inner}", module) for inner, module in child.modules())

    def replace_child(self, name: str, module: "Module") -> None:
        """Put `module` in the place of the one with this dotted name: an adapter around a projection, say.

        Raises
        ------
        ValueError   if there is none of that name
        """
        if name not in dict(self.modules()):
            raise ValueError(f"{type(self).__name__}.replace_child needs the name of a module below it; got {name!r}")
        for own, child in self.children():
            if own == name:
                self._place(name, module)
            elif name.startswith(own + "."):
                child.replace_child(name[len(own) + 1 :], module)

    def _place(self, name: str, module: "Module") -> None:
        attribute, _, key = name.partition(".")
        holder = vars(self)[attribute]
        if isinstance(holder, dict):
            holder[key] = module
        elif isinstance(holder, list):
            holder[int(key)] = module
        else:
            setattr(self, name, module)

    def state_dict(self) -> dict[str, NDArray]:
        """Every array by its dotted name: parameters, frozen parameters and buffers. The live arrays, not copies."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        for prefix, child in self.children():
            own |= {f"{prefix}.{name}": value for name, value in child.state_dict().items()}
        return own

    def load_state_dict(self, state: Mapping[str, NDArray]) -> None:
        """Copy every array of `state` into place, cast to this module's dtypes.

        Raises
        ------
        ValueError   if a name is missing or unknown, or a shape differs; then nothing has been changed
        """
        name, own = type(self).__name__, self.state_dict()
        missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unknown:
            raise ValueError(f"{name}.load_state_dict needs exactly its own names; missing {missing}, unknown {unknown}")
        for key, array in own.items():
            if np.shape(state[key]) != array.shape:
                raise ValueError(f"{name}.load_state_dict needs {key} of shape {array.shape}; got {np.shape(state[key])}")
        for key, array in own.items():
            array[...] = state[key]

    def parameters(self) -> dict[str, NDArray]:
        """The trainable arrays by dotted name: exactly the keys of the flattened `grads`."""
        own = {name: value for name, value in vars(self).items() if self.trains(name)}
        for prefix, child in self.children():
            own |= {f"{prefix}.{name}": value for name, value in child.parameters().items()}
        return own

    def freeze(self, *patterns: str) -> "Module":
        """Stop training every parameter whose dotted name matches one of the shell patterns; without patterns, all of them."""
        return self._set_frozen(patterns or ("*",), True, "")

    def unfreeze(self, *patterns: str) -> "Module":
        """Undo `freeze` for the names that match."""
        return self._set_frozen(patterns or ("*",), False, "")

    def grads(self, **grads: NDArray | None) -> Grads:
        """This layer's own gradients: those of absent (None), frozen and buffer arrays are left out."""
        return {name: grad for name, grad in grads.items() if grad is not None and self.trains(name)}

    def trains(self, name: str) -> bool:
        """Whether the attribute is an array that is trained: no buffer, and not frozen."""
        own = vars(self)
        return isinstance(own.get(name), np.ndarray) and name not in self.buffers and name not in own.get("_frozen", ())

    def _set_frozen(self, patterns: tuple[str, ...], frozen: bool, prefix: str) -> "Module":
        names = {n for n, v in vars(self).items() if isinstance(v, np.ndarray) and any(fnmatch.fnmatch(prefix + n, p) for p in patterns)}
        before = vars(self).get("_frozen", frozenset())
        self._frozen = frozenset(before | names if frozen else before - names)
        for name, child in self.children():
            child._set_frozen(patterns, frozen, f"{prefix}{name}.")
        return self


def flatten(grads: Mapping[str, Any] | list, prefix: str = "") -> dict[str, NDArray]:
    """Nested gradients by dotted name: the keys of `parameters()`.

    Examples
    --------
    >>> flatten({"blocks": [{"weight": 1}, {"weight": 2}], "bias": 3})
    {'blocks.0.weight': 1, 'blocks.1.weight': 2, 'bias': 3}
    """
    flat: dict[str, NDArray] = {}
    items = enumerate(grads) if isinstance(grads, list) else grads.items()
    for name, value in items:
        if isinstance(value, (dict, list)):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
