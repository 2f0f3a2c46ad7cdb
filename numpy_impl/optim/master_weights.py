"""Training of weights that are kept in bfloat16 (master weights: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, floats, given, same_names, same_shape
from numpy_impl.optim.optimizer import Optimizer
from numpy_impl.quantize.bfloat16 import round_to_bfloat16


class BFloat16Weights:
    """θ ← round(Θ)  after every step in which an optimizer updates Θ, a copy of θ in full precision (the master weights).

    A bfloat16 has 8 significant bits, so that an update below θ · 2⁻⁹ would be lost, and late in a training all of them are: Θ collects
    them. NumPy has no bfloat16; θ stays float32 or float64, every number of it one that a bfloat16 can hold.

    Parameters
    ----------
    params : dict of name -> array, changed in place: they are rounded at once
    make : callable      the class of the optimizer, called as ``make(masters, **options)``: AdamW, PagedAdamW …
    options              of the optimizer: lr and the others

    `step` is the optimizer's, from gradients at θ. `state_dict` has Θ as ``"NAME.master"`` beside the optimizer's own entries, so that
    a run goes on with the same bits.

    Raises
    ------
    ValueError   as the optimizer does

    Examples
    --------
    >>> from numpy_impl.optim.sgd import SGD
    >>> params = {"w": np.array([1.0], dtype=np.float32)}
    >>> optimizer = BFloat16Weights(params, make=SGD, lr=0.001)
    >>> for _ in range(3):
    ...     optimizer.step({"w": np.array([-1.0], dtype=np.float32)})     # 0.001 is less than half of the 0.0078125 between bfloat16s at 1
    ...     print(params["w"], optimizer.state_dict()["w.master"].round(4))
    [1.] [1.001]
    [1.] [1.002]
    [1.] [1.003]
    >>> optimizer.step({"w": np.array([-1.0], dtype=np.float32)})
    >>> params["w"]
    array([1.0078125], dtype=float32)
    """

    def __init__(self, params: Mapping[str, NDArray], *, make: Callable[..., Optimizer], **options: Any):
        demand("BFloat16Weights", isinstance(params, Mapping), "params as a dict", params=params)
        for name, param in params.items():
            given("BFloat16Weights", **{f"params[{name!r}]": param})
            floats("BFloat16Weights", **{f"params[{name!r}]": param})
        self.params = dict(params)
        self.masters = {name: np.array(param) for name, param in params.items()}
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

    def step(self, grads: Mapping[str, NDArray], lr: float | None = None) -> None:
        """Update Θ from the gradients at θ, and round."""
        self.optimizer.step(grads, lr=lr)
        self._round()

    def state_dict(self) -> dict[str, NDArray]:
        """Θ and what the optimizer keeps: the live arrays, not copies."""
        return {f"{name}.master": master for name, master in self.masters.items()} | self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, NDArray]) -> None:
        """Copy a `state_dict` into place; θ follows from Θ.

        Raises
        ------
        ValueError   if a name is missing or unknown, or a shape or dtype differs; nothing has been changed then
        """
        who, own = "BFloat16Weights.load_state_dict", self.state_dict()
        same_names(who, own, state=state)
        for name, master in self.masters.items():
            key = f"{name}.master"
            given(who, **{f"state[{key!r}]": state[key]})
            floats(who, **{key: master, f"state[{key!r}]": state[key]})
            same_shape(who, master.shape, **{f"state[{key!r}]": state[key]})
        self.optimizer.load_state_dict({key: state[key] for key in self.optimizer.state_dict()})
        for name, master in self.masters.items():
            master[...] = state[f"{name}.master"]
        self._round()

    def _round(self) -> None:
        for name, param in self.params.items():
            param[...] = round_to_bfloat16(self.masters[name])[0]
