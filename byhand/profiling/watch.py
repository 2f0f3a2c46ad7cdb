"""Being told of every call of a component and of its pullback, from outside: the components' files know nothing of it.

For as long as it lasts, the functions' code is exchanged, not the functions. So it does not matter who holds them, a table of activations,
a layer made earlier, a functools.partial; and what they compute is computed by the very same code, called one level further down.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from byhand.profiling.names import Component, Frame, components_of, name_of


@contextlib.contextmanager
def watched(package: str, enter: Callable[[Frame], Any], leave: Callable[[], Any]) -> Iterator[None]:
    """Within the context, `enter(frame)` and `leave()` are called around each call of a component of the package.

    A pullback is known by how it is returned, as the last of what a component returns; it bears that component's name. One that was
    returned before the context is not watched.
    """
    found = {component.function: component for component in components_of(package)}
    before: dict[Any, CodeType] = {function: function.__code__ for function in found}
    exchanged: dict[Any, CodeType] = {function: _calling(_wrapper(component, enter, leave), function)
                                      for function, component in found.items()}
    try:
        for function, code in exchanged.items():
            function.__code__ = code
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code


def _wrapper(component: Component, enter: Callable[[Frame], Any], leave: Callable[[], Any]) -> Callable:
    """The same function, with a word before and after, and with its pullback watched."""
    function, owner, frame = component
    same = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    same.__kwdefaults__ = function.__kwdefaults__
    package = function.__module__.partition(".")[0] + "."
    kinds: dict[type, tuple[Frame, Frame]] = {}

    def frames(kind: type) -> tuple[Frame, Frame]:
        """Of a method: by the class of the object, GPT2 and not the CausalLM that it is made from."""
        named = name_of(kind) if owner is not None and kind.__module__.startswith(package) else frame.name
        made = Frame(named, frame.phase, inherits=frame.inherits)
        return made, made.backward()

    def watched_call(*args: Any, **kwargs: Any) -> Any:
        kind = type(args[0]) if owner is not None and args else object
        pair = kinds.get(kind)
        if pair is None:
            pair = kinds[kind] = frames(kind)
        enter(pair[0])
        try:
            result = same(*args, **kwargs)
        finally:
            leave()
        if type(result) is tuple and result and type(result[-1]) is FunctionType:
            return *result[:-1], _watched_pullback(result[-1], pair[1], enter, leave)
        return result

    return watched_call


def _watched_pullback(pullback: Callable, frame: Frame, enter: Callable[[Frame], Any], leave: Callable[[], Any]) -> Callable:
    def watched_pullback(*args: Any, **kwargs: Any) -> Any:
        enter(frame)
        try:
            return pullback(*args, **kwargs)
        finally:
            leave()

    return watched_pullback


def _calling(wrapper: Callable, function: Any) -> CodeType:
    """Code for `function` that calls the wrapper, which is a constant of it: no name of the function's module is taken for it."""
    code = _template.__code__
    constants = tuple(wrapper if constant == _HERE else constant for constant in code.co_consts)
    return code.replace(co_consts=constants, co_name=function.__name__, co_freevars=function.__code__.co_freevars)


_HERE = "the wrapper"
_space: dict[str, Any] = {}
exec(f"def template(*args, **kwargs):\n    call = {_HERE!r}\n    return call(*args, **kwargs)", _space)
_template: FunctionType = _space["template"]
