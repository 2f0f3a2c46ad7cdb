"""What every optimizer shares: parameters by name, groups by pattern, state that can be saved, and the walk in pieces that fit a cache."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import by_pattern, demand, floats, given, integers, not_negative, same_names, same_shape, size

_PIECE = 128 * 1024  # bytes of each array worked on at once: parameter, gradient, state and scratch together stay in the L2 cache


class Optimizer:
    """Updates named arrays in place from gradients of the same names; a subclass writes one formula.

    The arrays are the live arrays of a module (``module.parameters()``), so a step changes the module. A subclass says which arrays it
    keeps for a parameter (`_keeps`) and what happens to one piece of it (`_update`); `_scratch` is how many arrays of a piece's shape it
    needs to work in.

    Parameters
    ----------
    params : dict of name -> array, float32 or float64, changed in place; any strides
    lr : float         learning rate η ≥ 0, used where `step` is given none
    check : callable   what the options must satisfy, called as ``check(function, **options)``
    groups : list of dict, optional
        ``{"pattern": "*.bias", OPTION: VALUE, …}``: parameters whose name matches the shell pattern use these options instead. The first
        match wins. Besides the optimizer's own options there is ``lr_scale``, which multiplies the learning rate.
    options            the optimizer's options, for all other parameters
    """

    _scratch = 1

    def __init__(
        self,
        params: Mapping[str, NDArray],
        *,
        lr: float,
        check: Callable[..., None],
        groups: Iterable[Mapping[str, Any]] | None = None,
        **options: Any,
    ):
        function = type(self).__name__
        demand(function, isinstance(params, Mapping) and len(params) > 0, "params as a dict with at least one array", params=params)
        for name, param in params.items():
            given(function, **{f"params[{name!r}]": param})
            floats(function, **{f"params[{name!r}]": param})
            demand(function, param.flags.writeable, f"params[{name!r}] writeable", **{f"params[{name!r}]": param})
        demand(function, len({id(p) for p in params.values()}) == len(params), "every array under one name", names=list(params))
        not_negative(function, lr=lr)
        self.params, self.lr, self.steps = dict(params), float(lr), 0
        self._options: dict[str, dict[str, Any]] = {
            name: {key: _plain(value) for key, value in group.items()}
            for names, group in by_pattern(function, params, groups, check, **options, lr_scale=1.0)
            for name in names
        }
        self._state = self._allocate({name: self._keeps(self._options[name]) for name in params})
        largest_piece = max(walked[: _rows(walked)].nbytes for walked in map(_walked, params.values()))
        self._buffers = np.empty((self._scratch, largest_piece), np.uint8)

    def step(self, grads: Mapping[str, NDArray], lr: float | None = None) -> None:
        """Update every parameter from its gradient.

        Parameters
        ----------
        grads : dict of name -> array   exactly the names of the parameters, each of its parameter's shape and dtype; not changed
        lr : float, optional            learning rate of this step, from a schedule say

        Raises
        ------
        ValueError   if a name is missing or unknown, a shape or dtype differs, or lr is negative or not finite; nothing has been
                     changed then. NaN and infinities in a gradient are passed on: stopping is the training loop's decision.
        """
        function = type(self).__name__
        lr = self.lr if lr is None else lr
        not_negative(function, lr=lr)
        lr = float(lr)
        same_names(function, self.params, grads=grads)
        for name, param in self.params.items():
            given(function, **{f"grads[{name!r}]": grads[name]})
            floats(function, **{f"params[{name!r}]": param, f"grads[{name!r}]": grads[name]})
            same_shape(function, param.shape, **{f"grads[{name!r}]": grads[name]})

        self.steps += 1
        with np.errstate(all="ignore"):
            for name, param in self.params.items():
                options = self._options[name]
                kept = self._state[name].values()
                for piece in _pieces(param, grads[name], *kept, buffers=self._buffers):
                    self._update(options, lr * options["lr_scale"], *piece)
                    self._worked_on(len(kept) * piece[0].nbytes)

    def state_dict(self) -> dict[str, NDArray]:
        """The number of steps as ``"step"`` and every kept array as ``"NAME.KEY"``: the live arrays, not copies.

        With the parameters, this is all that a run needs to go on with the same bits.
        """
        kept = {f"{name}.{key}": array for name, arrays in self._state.items() for key, array in arrays.items()}
        return {"step": np.asarray(self.steps, dtype=np.int64)} | kept

    def load_state_dict(self, state: Mapping[str, NDArray]) -> None:
        """Copy a `state_dict` into place.

        Raises
        ------
        ValueError   if a name is missing or unknown, or a shape or dtype differs; nothing has been changed then
        """
        function, own = f"{type(self).__name__}.load_state_dict", self.state_dict()
        same_names(function, own, state=state)
        given(function, **{f"state[{key!r}]": array for key, array in state.items()})
        integers(function, step=state["step"])
        same_shape(function, (), step=state["step"])
        size(function, at_least=0, step=int(state["step"]))
        kept = [key for key in own if key != "step"]
        for key in kept:
            floats(function, **{key: own[key], f"state[{key!r}]": state[key]})
            same_shape(function, own[key].shape, **{f"state[{key!r}]": state[key]})
        self.steps = int(state["step"])
        for key in kept:
            for mine, theirs in _pieces(own[key], state[key], buffers=()):
                mine[...] = theirs
                self._worked_on(mine.nbytes)

    def _allocate(self, kept: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, NDArray]]:
        """For every parameter the arrays it keeps, by name, contiguous and zero; a subclass may put them elsewhere than in memory."""
        return {name: {key: np.zeros(self.params[name].shape, self.params[name].dtype) for key in keys} for name, keys in kept.items()}

    def _worked_on(self, nbytes: int) -> None:
        """Called after each piece, when so many bytes of the kept arrays have been read and written."""

    def _keeps(self, options: dict[str, Any]) -> tuple[str, ...]:
        """The names of the arrays kept for a parameter with these options, zero at first."""
        raise TypeError(f"{type(self).__name__} defines no _keeps")

    def _update(self, options: dict[str, Any], lr: float, param: NDArray, grad: NDArray, *arrays: NDArray) -> None:
        """The formula on one piece, in place: param and the kept arrays change, grad does not, scratch arrays come last."""
        raise TypeError(f"{type(self).__name__} defines no _update")


def _plain(value: Any) -> Any:
    """A float for np.float64, also in a tuple: it is a float too, but one that makes float64 of all float32 it meets."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return float(value) if isinstance(value, float) else value


def _rows(walked: NDArray) -> int:
    """How many rows of an array make a piece; at least one."""
    return max(1, _PIECE // max(1, walked[:1].nbytes))


def _walked(param: NDArray) -> NDArray:
    """A contiguous array as a flat view, every other array as it is."""
    return param.reshape(-1) if param.flags.c_contiguous else param


def _pieces(param: NDArray, *others: NDArray, buffers: Iterable[NDArray]) -> Iterator[list[NDArray]]:
    """Views of the same rows of every array, and a scratch array of that shape in each buffer, piece by piece."""
    walked = _walked(param)
    arrays = [walked, *(array.reshape(walked.shape) for array in others)]  # copies a strided gradient, which is only read
    rows = _rows(walked)
    for i in range(0, len(walked), rows):
        part = [array[i : i + rows] for array in arrays]
        yield part + [buffer[: part[0].nbytes].view(param.dtype).reshape(part[0].shape) for buffer in buffers]
