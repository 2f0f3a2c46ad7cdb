"""A model made empty and filled array by array from files: at no time does it stand in memory twice."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from byhand.checks import demand, same_names
from byhand.hugging_face.combined import read_into


def filled(make: Any, config: Any, state: Mapping[str, Any], *, dtype: str = "float32", device: str | None = None) -> Any:
    """The model ``make(config)`` with the arrays of `state` by name, in memory or on disk.

    make      a class of numpy_impl.models or, with a device, of torch_impl.models
    dtype     of the model, to which the arrays are cast
    device    "cpu", "cuda" …: of a torch model; None: a NumPy model

    Raises
    ------
    ValueError   if a name is missing or unknown, or a shape differs

    Examples
    --------
    >>> from byhand.configs.llama import LLAMA_PRESETS
    >>> from numpy_impl.models.llama import Llama
    >>> model = Llama(LLAMA_PRESETS["llama-nano"])
    >>> same = filled(Llama, model.config, model.state_dict(), dtype="float64")
    >>> same.norm.weight.dtype, all(np.array_equal(array, same.state_dict()[name]) for name, array in model.state_dict().items())
    (dtype('float64'), True)
    """
    if device is not None:
        return _filled_torch(make, config, state, dtype, device)
    model = make(config, dtype=np.dtype(dtype), rng=_Zeros())
    own = model.state_dict()
    _fits(make.__name__, {name: array.shape for name, array in own.items()}, state)
    for name, array in own.items():
        read_into(array, state[name])
    return model


def _filled_torch(make: Any, config: Any, state: Mapping[str, Any], dtype: str, device: str) -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    drawn = (torch.Tensor.uniform_, torch.Tensor.normal_)

    class Undrawn(TorchFunctionMode):
        """Memory stays as it was found where a parameter would be drawn."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return args[0] if function in drawn else function(*args, **(kwargs or {}))

    with Undrawn():
        model = make(config, dtype=getattr(torch, dtype), device=device)
    own = model.state_dict()
    _fits(make.__name__, {name: tuple(tensor.shape) for name, tensor in own.items()}, state)
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16:
                read_into(tensor.numpy(), state[name])    # the tensor's own memory
            else:
                tensor.copy_(torch.from_numpy(np.array(state[name])))
    return model


def _fits(who: str, own: Mapping[str, tuple[int, ...]], state: Mapping[str, Any]) -> None:
    same_names(who, own, state=dict.fromkeys(state))
    for name, shape in own.items():
        demand(who, tuple(state[name].shape) == shape, f"{name} of shape {shape}", **{name: tuple(state[name].shape)})


class _Zeros:
    """In the place of a random generator where the values are overwritten: drawing them takes longer than reading a file. Its arrays may be
    written to, as a generator's may: some constructors scale in place what they drew."""

    def standard_normal(self, size: Any = None, dtype: Any = np.float32) -> Any:
        return np.float32(0) if size is None else np.zeros(size, dtype)

    random = standard_normal

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Any = None) -> Any:
        return self.standard_normal(size)

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        return self.standard_normal(size)
