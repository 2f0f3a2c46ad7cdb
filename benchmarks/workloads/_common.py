"""What the workloads share: arrays of a seed, a model's twin with the same weights, forward and backward, a training step, and what they
must do at least."""

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workload import Column, Work
from byhand.model_source import model_class

SHOWN = 2048    # entries of a large array that are compared between columns


def normals(*shapes: tuple[int, ...], scale: float = 1.0, seed: int = 0) -> list[NDArray]:
    """float32 arrays, the same for every column."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype=np.float32) * np.float32(scale) for shape in shapes]


def tokens(vocabulary: int, *shape: int, seed: int = 0) -> NDArray:
    """int64 ids in [0, vocabulary)."""
    return np.random.default_rng(seed).integers(0, vocabulary, shape)


def given(column: Column, value: Any, dtype: str = "float32") -> Any:
    """A NumPy array where the column works, floats in `dtype` there; lists likewise, everything else as it is."""
    if isinstance(value, list):
        return [given(column, item, dtype) for item in value]
    if not isinstance(value, np.ndarray) or column.side == "numpy":
        return value
    import torch

    tensor = torch.tensor(value, device=column.device)      # a copy, aligned as torch's own arrays are
    return tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor


def shown(**arrays: Any) -> dict[str, NDArray]:
    """What columns are compared by: some entries of each array, evenly spread, as NumPy arrays."""
    found = {}
    for name, array in arrays.items():
        flat = (array.detach().float().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)).reshape(-1)
        found[name] = flat[:: max(1, flat.size // SHOWN)].astype(np.float64)
    return found


def implementation(side: str, place: str) -> Any:
    """What stands at "ops.gelu.gelu_tanh" on a side: room, file and name."""
    module, name = place.rsplit(".", 1)
    return getattr(importlib.import_module(f"{side}_impl.{module}"), name)


def differentiated(
    column: Column, forward: Callable[..., Any], arrays: Sequence[NDArray], *, flops: float | None = None, unit: str | None = None,
    units: float = 0.0,
) -> Work:
    """Forward and backward.

    forward : of the column's side: arrays -> (y, backward), or tensors -> y;  arrays : what is differentiated, all of it
    """
    if column.side == "numpy":
        y = forward(*arrays)[0]
        dy = _cotangent(y.shape)
        told: dict[str, Any] = dict(flops=flops, bytes=2 * sum(map(nbytes, [y, *arrays])), unit=unit, units=units)

        def run() -> Any:
            y, backward = forward(*arrays)
            return y, *_several(backward(dy))

        return Work(run, numbers=lambda: _labelled(run()), **told)
    import torch

    leaves = [leaf.requires_grad_(True) for leaf in given(column, list(arrays))]
    with torch.no_grad():
        y = forward(*leaves)
        cotangent = given(column, _cotangent(tuple(y.shape)))
        told = dict(flops=flops, bytes=2 * sum(map(nbytes, [y, *leaves])), unit=unit, units=units)
    called = column.compile(forward)

    def run_torch() -> Any:
        y = called(*leaves)
        return y, *torch.autograd.grad(y, leaves, cotangent)

    return Work(run_torch, _transferred(column, run_torch, leaves), lambda: _labelled(run_torch()), **told)


def computed(
    column: Column, function: Callable[..., Any], arrays: Sequence[NDArray], *, numbers: Callable[[Any], Mapping[str, Any]] | None = None,
    flops: float | None = None, dtype: str = "float32",
) -> Work:
    """A forward without a backward; `numbers` makes of its result what is compared, by default the result itself."""
    here = given(column, list(arrays), dtype)
    said = numbers or (lambda y: {"y": y})

    def run() -> Any:
        with _no_graph(column):
            return function(*here)

    moved = sum(map(nbytes, [*here, *_several(run())]))
    return Work(run, _transferred(column, run, here), lambda: shown(**said(run())), flops=flops, bytes=moved)


def _no_graph(column: Column) -> Any:
    if column.side == "numpy":
        return contextlib.nullcontext()
    import torch

    return torch.inference_mode()


def _cotangent(shape: tuple[int, ...]) -> NDArray:
    """Of a loss 1, as in training; else normals."""
    return normals(shape, seed=1)[0] if shape else np.ones((), np.float32)


def _several(value: Any) -> tuple[Any, ...]:
    """What a call returned, one or several; what has no gradient (an optional argument that was left out) is None there."""
    return tuple(v for v in value if v is not None) if isinstance(value, tuple) else (value,)


def _labelled(results: Sequence[Any]) -> dict[str, NDArray]:
    return shown(y=results[0], **{f"gradient {i}": gradient for i, gradient in enumerate(results[1:])})


def _transferred(column: Column, run: Callable[[], Any], inputs: Sequence[Any]) -> Callable[[], Any] | None:
    """`run` from arrays of the host to results there."""
    if column.device == "cpu":
        return None
    import torch

    hosts = [tensor.detach().cpu().pin_memory() for tensor in inputs]       # pragma: no cuda

    def whole() -> Any:  # pragma: no cuda
        with torch.no_grad():
            for tensor, host in zip(inputs, hosts, strict=True):
                tensor.copy_(host, non_blocking=True)
        return [result.cpu() for result in _several(run())]

    return whole


# Models


def built(
    column: Column, config: Any, *, change: Callable[[str, Any], Any] | None = None, dtype: str = "float32", plain: Any = None
) -> Any:
    """The model of a config on the column's side, with the weights of seed 0.

    change : what makes of a model another one, in place: (side, model) -> None
    plain : the NumPy model without the change, where it is there already
    """
    ours = plain or model_class(config, "numpy_impl")(config, rng=np.random.default_rng(0))
    if change is not None:
        change("numpy", ours)
    if column.side == "numpy":
        return ours
    import torch

    model = model_class(config, "torch_impl")
    with torch.device("meta") if change is None else contextlib.nullcontext():         # its values come from the NumPy model
        theirs = model(config)
    if change is not None:
        change("torch", theirs)
    theirs.load_state_dict({name: torch.tensor(np.asarray(array)) for name, array in ours.state_dict().items()}, assign=True)
    return theirs.to(column.device, getattr(torch, dtype))


def training(
    column: Column, model: Any, ids: NDArray, *, trained: float, frozen: float = 0.0, fused: bool = True, dtype: str = "float32"
) -> Work:
    """One update of a causal language model of the column's side: loss, backward, AdamW on what is trained; torch's fused, or its default.

    ids (B, T + 1);  trained, frozen : the weights that a token is multiplied with
    """
    batch, length = ids.shape[0], ids.shape[1] - 1
    attention = 7 * length * model.config.n_layers * model.config.d_model           # 2 products forward, 5 backward, of each one half
    told: dict[str, Any] = dict(flops=batch * length * (6 * trained + 4 * frozen + attention), unit="tokens", units=batch * length)
    if column.side == "numpy":
        from numpy_impl.layers.module import flatten
        from numpy_impl.optim.adamw import AdamW

        params = model.parameters()
        optimizer = AdamW(params, lr=1e-3)

        def run() -> Any:
            loss, backward = model.loss(ids[:, :-1], ids[:, 1:])
            grads = flatten(backward())
            optimizer.step(grads)
            return loss, grads

        return Work(run, numbers=lambda: _first_steps(run), bytes=_traffic(model.state_dict(), params), **told)
    import torch

    leaves = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adamw = torch.optim.AdamW(leaves.values(), lr=1e-3, fused=fused or None)
    here, loss_of = given(column, ids), column.compile(model.loss)

    def run_torch() -> Any:
        loss = loss_of(here[:, :-1], here[:, 1:])
        loss.backward()
        adamw.step()
        gradients = {name: p.grad for name, p in leaves.items()}
        adamw.zero_grad(set_to_none=True)                                # not held from one step to the next: a step's peak has them all
        return loss, gradients

    numbers = (lambda: _first_steps(run_torch)) if dtype == "float32" else None   # bfloat16 rounds otherwise in every kernel
    work = Work(run_torch, numbers=numbers, bytes=_traffic(model.state_dict(), leaves), **told)
    if column.device != "cpu":
        host = torch.from_numpy(ids).pin_memory()                            # pragma: no cuda

        def whole() -> float:  # pragma: no cuda
            here.copy_(host, non_blocking=True)
            return run_torch()[0].item()

        work.with_transfers = whole
    return work


def _first_steps(run: Callable[[], Any]) -> dict[str, NDArray]:
    """The loss, the gradients of the matrices (those of some biases are zero but for rounding), and the loss after the update."""
    loss, grads = run()
    found = shown(loss=loss, **{name: grad for name, grad in grads.items() if grad.ndim > 1})
    return found | shown(**{"loss after the update": run()[0]})


def _traffic(state: Mapping[str, Any], trained: Mapping[str, Any]) -> float:
    """Bytes: every weight read forward and backward; of what is trained, gradients written and read, weights and both moments read and
    written."""
    return 2 * sum(map(nbytes, state.values())) + 8 * sum(map(nbytes, trained.values()))


def nbytes(array: Any) -> int:
    """Of an array or a tensor."""
    return int(array.nbytes) if isinstance(array, np.ndarray) else array.numel() * array.element_size()


def multiplied(config: Any) -> int:
    """The weights that each token is multiplied with: all that are active but the tables that are only looked up."""
    active = getattr(config, "active_parameters", config.parameters)
    looked_up = config.max_length if not hasattr(config, "tied") else 0 if config.tied else config.vocabulary
    return active - looked_up * config.d_model
