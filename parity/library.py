"""For people's own functions: against ours (`check`), or two of their own against each other (`compare`)."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.runner import Result


def check(
    name_or_function: str | Callable,
    against: str | None = None,
    *,
    examples: int = 20,
    seed: int = 0,
    device: str = "cpu",
    laws: Iterable[str] | None = None,
) -> "Result":
    """Every law on a component of ours, or on your NumPy function in the place of ours.

    Parameters
    ----------
    name_or_function : a component's name, or a function of yours with that component's signature, returning (y, backward)
    against : the name of the component that your function implements; by default the function's own name
    examples, seed : how many examples of which census
    device : where the torch side runs, "cpu" or "cuda"
    laws : only these; by default all, except that a function of yours may word its refusals as it likes

    Returns
    -------
    Result   `.passed`, `.laws` (law -> verdict), `.failures` (each with law, what, example and shapes), `.to_json()`

    Raises
    ------
    ValueError   if no component has that name (the nearest is suggested)

    Examples
    --------
    >>> import numpy as np, parity
    >>> def relu(x):
    ...     def backward(dy):
    ...         return dy * (x > 0)
    ...     return x * (x > 0), backward
    >>> parity.check(relu, against="ops.relu", laws=["forward", "gradient", "linear"]).passed
    True
    """
    from parity.laws import FOR_OTHERS
    from parity.registry import find
    from parity.runner import run_component, settings

    implementation = None if isinstance(name_or_function, str) else name_or_function
    own_name = name_or_function if isinstance(name_or_function, str) else getattr(name_or_function, "__name__", "")
    component = find(against or own_name)
    if implementation is not None and laws is None:
        laws = FOR_OTHERS
    with settings(device):
        return run_component(component, examples=examples, seed=seed, device=device, implementation=implementation, laws=laws)


def compare(
    numpy_function: Callable,
    torch_function: Callable,
    inputs: Mapping[str, Any] | Callable,
    *,
    examples: int = 20,
    seed: int = 0,
    device: str = "cpu",
    laws: Iterable[str] | None = None,
) -> "Result":
    """Every law on a pair of your own: a NumPy function with its backward, and a torch function that autograd differentiates.

    Parameters
    ----------
    numpy_function : (*arrays, **options) -> (y, backward), arrays positional and first, options keyword-only
    torch_function : the same call -> y
    inputs : argument name -> NumPy array (rounded to float32, so that both precisions see the same numbers), spec
        (parity.cases.array …) or plain value; or a function draw -> such a dict, which then is asked for every example
        (docs/adding_a_component.md)
    examples, seed, device, laws : as in `check`

    Examples
    --------
    >>> import numpy as np, torch, parity
    >>> def square(x):
    ...     return x * x, lambda dy: 2 * x * dy
    >>> parity.compare(square, torch.square, {"x": np.arange(6.0).reshape(2, 3)}).passed
    True
    >>> def wrong(x):
    ...     return x * x, lambda dy: x * dy
    >>> parity.compare(wrong, torch.square, {"x": np.arange(6.0).reshape(2, 3)}).failures[0].law
    'gradient'
    """
    from parity.registry import Component
    from parity.runner import run_component, settings

    class Pair(Component):
        def implementation(self, side: str) -> Any:
            return numpy_function if side == "numpy" else torch_function

    name = getattr(numpy_function, "__name__", "function")
    draw = inputs if callable(inputs) else lambda _: dict(inputs)
    pair = Pair(f"yours.{name}", f"yours.{name}", draw, explicit_kind="op")
    with settings(device):
        return run_component(pair, examples=examples, seed=seed, device=device, laws=laws)
