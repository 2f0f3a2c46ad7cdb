"""What every optimizer shares: torch.optim behind `step(grads, lr)`, groups by pattern, and state by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from byhand.checks import by_pattern, demand, floats, given, integers, not_negative, same_names, same_shape, size


class Optimizer:
    """A torch.optim optimizer that is handed named tensors, and gradients of the same names.

    `make` is the torch.optim class, `flags` its switches that are no option of a group. The fused kernel is used on the CPU and on CUDA:
    one pass over memory, the same formula as the plain one, equal to it in all but the last bits. It walks memory as if every tensor were
    contiguous, without checking (on the CPU it silently gives wrong results otherwise), so gradients are made contiguous, and parameters
    with other strides go to torch's default.
    """

    def __init__(
        self,
        make: Callable[..., torch.optim.Optimizer],
        params: Mapping[str, Tensor],
        *,
        lr: float,
        check: Callable[..., None],
        groups: Iterable[Mapping[str, Any]] | None = None,
        flags: Mapping[str, Any],
        **options: Any,
    ):
        function = type(self).__name__
        demand(function, isinstance(params, Mapping) and len(params) > 0, "params as a dict with at least one array", params=params)
        for name, param in params.items():
            given(function, **{f"params[{name!r}]": param})
            floats(function, **{f"params[{name!r}]": param})
            demand(function, param.is_leaf, f"params[{name!r}] as a leaf of the graph", **{f"params[{name!r}]": param})
        demand(function, len({id(p) for p in params.values()}) == len(params), "every array under one name", names=list(params))
        not_negative(function, lr=lr)
        self.params, self.lr, self.steps = dict(params), lr, 0
        grouped = by_pattern(function, params, groups, check, **options, lr_scale=1.0)
        self._options = {name: group for names, group in grouped for name in names}
        self._fused = all(p.is_contiguous() and p.device.type in ("cpu", "cuda") for p in params.values())
        tensors: list[dict[str, Any]] = [{"params": [params[name] for name in names], **group} for names, group in grouped]
        self._optimizer = make(tensors, lr=lr, fused=self._fused or None, **flags)

    def step(self, grads: Mapping[str, Tensor], lr: float | None = None) -> None:
        """Update every parameter from its gradient; lr=None uses the constructor's."""
        function = type(self).__name__
        lr = self.lr if lr is None else lr
        not_negative(function, lr=lr)
        same_names(function, self.params, grads=grads)
        for name, param in self.params.items():
            given(function, **{f"grads[{name!r}]": grads[name]})
            floats(function, **{f"params[{name!r}]": param, f"grads[{name!r}]": grads[name]})
            same_shape(function, param.shape, **{f"grads[{name!r}]": grads[name]})
            demand(function, grads[name].device == param.device, f"grads[{name!r}] on {param.device}", device=grads[name].device)

        self.steps += 1
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        for name, param in self.params.items():
            grad = grads[name].detach()
            param.grad = grad.contiguous() if self._fused else grad.clone()  # torch's default (foreach) may write to gradients
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """The number of steps as ``"step"`` and every kept tensor as ``"NAME.KEY"``."""
        kept = {}
        for name, param in self.params.items():
            state = self._kept(name)
            for key in self._keeps(self._options[name]):
                kept[f"{name}.{key}"] = state[key] if key in state else torch.zeros_like(param)
        return {"step": torch.tensor(self.steps)} | kept

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a `state_dict` into place; anything but the same names, shapes and dtypes is refused."""
        function, own = f"{type(self).__name__}.load_state_dict", self.state_dict()
        same_names(function, own, state=state)
        given(function, **{f"state[{key!r}]": array for key, array in state.items()})
        integers(function, step=state["step"])
        same_shape(function, (), step=state["step"])
        size(function, at_least=0, step=int(state["step"]))
        for key in (key for key in own if key != "step"):
            floats(function, **{key: own[key], f"state[{key!r}]": state[key]})
            same_shape(function, own[key].shape, **{f"state[{key!r}]": state[key]})
        self.steps = int(state["step"])
        self._load(state)

    def _kept(self, name: str) -> Mapping[str, Tensor]:
        """What is kept for a parameter, by our names for it; empty before the first step."""
        return self._optimizer.state.get(self.params[name], {})

    def _load(self, state: Mapping[str, Tensor]) -> None:
        # torch numbers the parameters in the order of its groups, and makes the state of a parameter at its first step
        packed = {}
        for i, (name, options) in enumerate(self._options.items() if self.steps else ()):
            like = torch.empty_like(self.params[name], requires_grad=False)
            packed[i] = {key: like.clone().copy_(state[f"{name}.{key}"]) for key in self._keeps(options)}
            packed[i]["step"] = torch.tensor(float(self.steps))
        self._optimizer.load_state_dict({"state": packed, "param_groups": self._optimizer.state_dict()["param_groups"]})

    def _keeps(self, options: dict[str, Any]) -> tuple[str, ...]:
        """The names of the tensors kept for a parameter with these options."""
        raise TypeError(f"{type(self).__name__} defines no _keeps")
