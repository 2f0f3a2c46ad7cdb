"""What BFloat16Weights is fed: trajectories of AdamW and of SGD, in steps that a bfloat16 sees and in steps that it does not."""

from typing import Any

import numpy as np

from parity.cases import array, case, flag, integer, left_out, maybe, one_of, size
from parity.cases.optim.trajectory import _copied

OPTIMIZERS = ("AdamW", "SGD")


def play(side, *, params, grads, lrs, optimizer, stop, **options):
    """The masters and the state at the end; of what is rounded, whether it is, as an update of 10⁻¹⁶ can turn a rounding."""
    live = _copied(side, params)
    trained = _made(side, live, optimizer, options)
    half = len(grads) if stop is None else min(stop, len(grads))
    for grad, lr in zip(grads[:half], lrs[:half], strict=True):
        trained.step(_copied(side, grad), lr=lr)
    if stop is not None:                                                      # what was saved is put into another one
        saved = _copied(side, trained.state_dict())
        live = {name: side.array(np.zeros_like(param)) for name, param in _numpy(side, live).items()}
        trained = _made(side, live, optimizer, options)
        trained.load_state_dict(saved)
        for grad, lr in zip(grads[half:], lrs[half:], strict=True):
            trained.step(_copied(side, grad), lr=lr)
    state = dict(trained.state_dict())
    rounding = side.get("quantize.round_to_bfloat16")
    return dict(
        state=state, steps=np.array(trained.steps), lr=np.array(trained.lr),
        rounded={name: np.array(_bits(side, param) == _bits(side, _first(rounding(state[f"{name}.master"])))) for name, param in
                 live.items()},
    )


def _made(side: Any, live: dict[str, Any], optimizer: str, options: dict[str, Any]) -> Any:
    return side.get("optim.BFloat16Weights")(live, make=side.get(f"optim.{optimizer}"), **options)


def _first(found: Any) -> Any:
    return found[0] if isinstance(found, tuple) else found


def _bits(side: Any, array: Any) -> bytes:
    return np.asarray(side.numpy(array)).tobytes()


def _numpy(side: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(side.numpy(array)) for name, array in arrays.items()}


def loads(side, *, params, grads, lrs, optimizer, stop, **options):
    """A state that does not fit is refused, and changes nothing."""
    live = _copied(side, params)
    trained = _made(side, live, optimizer, options)
    trained.step(_copied(side, grads[0]), lr=0.5)
    before = _numpy(side, _copied(side, trained.state_dict()) | _copied(side, live))
    good = _copied(side, trained.state_dict())
    name = next(iter(params))
    flat = np.asarray(side.numpy(good[f"{name}.master"]))
    other = side.array(np.zeros((*flat.shape, 2), flat.dtype))
    bad = [
        {key: value for key, value in good.items() if key != f"{name}.master"},
        good | {"unknown.master": other},
        good | {f"{name}.master": other},
        good | {f"{name}.master": side.array(np.zeros(flat.shape, np.int64))},
        good | {"step": other},
    ]
    for i, state in enumerate(bad):
        refused = False
        try:
            trained.load_state_dict(state)
        except ValueError:
            refused = True
        after = _numpy(side, trained.state_dict() | live)
        same = all(after[key].tobytes() == value.tobytes() for key, value in before.items())
        yield f"state {i} is refused, and changes nothing", refused and same, True


_W = dict(params={"w": array(2, 3)}, grads=[{"w": array(2, 3)}], lrs=[None], optimizer="SGD", stop=None, lr=0.1)


@case(
    "optim.BFloat16Weights", kind="play", play=play, also=[loads],
    refuses=[_W | {"lr": -1.0}, _W | {"lrs": [-0.1]}, _W | {"params": {}}, _W | {"grads": [{"v": array(2, 3)}]},
             _W | {"grads": [{"w": array(3, 2)}]}],
)
def bfloat16_weights(draw):
    shapes = {"attn.weight": (draw(size()), draw(size())), "bias": (draw(size(low=0)),), "scale": ()}
    steps = draw(integer(1, 6))
    scale = draw(one_of(1.0, 1e-3))
    return dict(
        params={name: array(*shape) for name, shape in shapes.items()},
        grads=[{name: array(*shape, scale=scale) for name, shape in shapes.items()} for _ in range(steps)],
        lrs=[draw(one_of(None, 0.5, 1e-4)) for _ in range(steps)],
        optimizer=draw(one_of(*OPTIMIZERS)), stop=draw(maybe(integer(0, 5))), lr=draw(one_of(0.1, 0.003)),
        weight_decay=draw(left_out(one_of(0.0, 0.1))), maximize=draw(left_out(flag())),
    )
