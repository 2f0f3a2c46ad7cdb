"""Training of weights that are kept in bfloat16 (master weights: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from byhand.checks import demand, floats, given, same_names, same_shape
from torch_impl.optim.optimizer import Optimizer


class BFloat16Weights:
    """θ ← round(Θ)  after every step in which an optimizer updates Θ, a copy of θ in full precision (the master weights).

    θ may be in bfloat16 itself, or in a wider dtype of which it then uses only what a bfloat16 holds, as on the NumPy side. Θ is float32,
    or float64 where θ is. `make` is the optimizer's class, called as ``make(masters, **options)``.
    """

    def __init__(self, params: Mapping[str, Tensor], *, make: Callable[..., Optimizer], **options: Any):
        demand("BFloat16Weights", isinstance(params, Mapping), "params as a dict", params=params)
        for name, param in params.items():
            given("BFloat16Weights", **{f"params[{name!r}]": param})
            floats("BFloat16Weights", **{f"params[{name!r}]": param})
        self.params = dict(params)
        self.masters = {name: _widened(param.detach()).clone() for name, param in params.items()}
        self.optimizer = make(self.masters, **options)
        self._round()

    @property
    def lr(self) -> float:
        """The learning rate of a step that is given none."""
        return self.optimizer.lr

    @property
    def steps(self) -> int:
        """How many steps there have been."""
        return self.optimizer.steps

    def step(self, grads: Mapping[str, Tensor], lr: float | None = None) -> None:
        """Update Θ from the gradients at θ, and round."""
        if isinstance(grads, Mapping):                              # what is none, the optimizer refuses
            grads = {name: _widened(grad) for name, grad in grads.items()}
        self.optimizer.step(grads, lr=lr)
        self._round()

    def state_dict(self) -> dict[str, Tensor]:
        """Θ as ``"NAME.master"`` and what the optimizer keeps."""
        return {f"{name}.master": master for name, master in self.masters.items()} | self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a `state_dict` into place; θ follows from Θ. Anything but the same names, shapes and dtypes is refused."""
        who, own = "BFloat16Weights.load_state_dict", self.state_dict()
        same_names(who, own, state=state)
        for name, master in self.masters.items():
            key = f"{name}.master"
            given(who, **{f"state[{key!r}]": state[key]})
            floats(who, **{key: master, f"state[{key!r}]": state[key]})
            same_shape(who, master.shape, **{f"state[{key!r}]": state[key]})
        self.optimizer.load_state_dict({key: state[key] for key in self.optimizer.state_dict()})
        for name, master in self.masters.items():
            master.copy_(state[f"{name}.master"])
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        for name, param in self.params.items():
            param.copy_(self.masters[name].to(torch.bfloat16))


def _widened(tensor: Tensor) -> Tensor:
    """bfloat16 (and float16) as float32, everything else as it is."""
    half = getattr(tensor, "dtype", None) in (torch.bfloat16, torch.float16)
    return tensor.float() if half else tensor
