"""The two implementations behind one face, for the long-context experiment: train a Llama, and read texts with it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from byhand.configs.llama import LlamaConfig
from byhand.corpus import Batch
from byhand.torch_device import torch_on

if TYPE_CHECKING:
    from byhand.experiments.long_context import LongContext

Read = Callable[[NDArray, NDArray], NDArray]


class Backend(Protocol):
    """What goes in and comes out is NumPy."""

    def initial(self) -> dict[str, NDArray]:
        """Fresh weights, the same in both."""

    def train(self, weights: Mapping[str, NDArray], config: LlamaConfig, batches: Callable[[int], list[Batch]], steps: int,
              lr: float, done: Callable[[], None]) -> dict[str, NDArray]:
        """The weights after so many steps."""

    def reader(self, weights: Mapping[str, NDArray], config: LlamaConfig) -> Read:
        """(ids, targets), each (B, T), -> the loss of every token, (B, T)."""


def backend_for(options: "LongContext") -> Backend:
    """The implementation that the options name.

    Raises
    ------
    ValueError   if PyTorch or its device is missing
    """
    return (_Torch if options.backend == "torch" else _Numpy)(options)


class _Numpy:
    def __init__(self, options: "LongContext"):
        self.options = options

    def initial(self) -> dict[str, NDArray]:
        from numpy_impl.models.llama import Llama

        return Llama(self.options.model, rng=np.random.default_rng(self.options.seed)).state_dict()

    def train(self, weights: Mapping[str, NDArray], config: LlamaConfig, batches: Callable[[int], list[Batch]], steps: int,
              lr: float, done: Callable[[], None]) -> dict[str, NDArray]:
        from numpy_impl.optim.adamw import AdamW
        from numpy_impl.optim.warmup_schedules import warmup_cosine
        from numpy_impl.train.loop import fit

        model = self._model(weights, config)
        optimizer = AdamW(model.parameters(), **_adamw(self.options, lr, model.parameters()))
        schedule = _schedule(self.options, lr, steps, warmup_cosine)
        for _ in fit(model, optimizer, batches, steps=steps, schedule=schedule, max_norm=self.options.max_norm):
            done()
        return model.state_dict()

    def reader(self, weights: Mapping[str, NDArray], config: LlamaConfig) -> Read:
        from numpy_impl.ops.softmax import log_softmax

        model = self._model(weights, config)

        def read(ids: NDArray, targets: NDArray) -> NDArray:
            return -np.take_along_axis(log_softmax(model(ids))[0], targets[..., None], -1)[..., 0]

        return read

    def _model(self, weights: Mapping[str, NDArray], config: LlamaConfig) -> Any:
        from numpy_impl.models.llama import Llama

        model = Llama(config, rng=np.random.default_rng(0))
        model.load_state_dict(weights)
        return model


class _Torch:
    def __init__(self, options: "LongContext"):
        torch_on("long_context", options.device)
        self.options = options

    def initial(self) -> dict[str, NDArray]:
        return _Numpy(self.options).initial()

    def train(self, weights: Mapping[str, NDArray], config: LlamaConfig, batches: Callable[[int], list[Batch]], steps: int,
              lr: float, done: Callable[[], None]) -> dict[str, NDArray]:
        from torch_impl.optim.adamw import AdamW
        from torch_impl.optim.warmup_schedules import warmup_cosine
        from torch_impl.train.loop import fit

        model = self._model(weights, config)
        parameters = dict(model.named_parameters())
        optimizer = AdamW(parameters, **_adamw(self.options, lr, parameters))
        schedule = _schedule(self.options, lr, steps, warmup_cosine)

        def tensors(step: int) -> list[tuple[Any, ...]]:
            return [tuple(self._tensor(array) for array in batch) for batch in batches(step)]

        for _ in fit(model, optimizer, tensors, steps=steps, schedule=schedule, max_norm=self.options.max_norm):
            done()
        return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}

    def reader(self, weights: Mapping[str, NDArray], config: LlamaConfig) -> Read:
        from torch_impl.ops.softmax import log_softmax

        model = self._model(weights, config)

        def read(ids: NDArray, targets: NDArray) -> NDArray:
            logits = model(self._tensor(ids), run="inference")
            return -log_softmax(logits).gather(-1, self._tensor(targets)[..., None])[..., 0].cpu().numpy()

        return read

    def _model(self, weights: Mapping[str, NDArray], config: LlamaConfig) -> Any:
        import torch

        from torch_impl.models.llama import Llama

        model = Llama(config).to(self.options.device)
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()}, strict=True)
        return model

    def _tensor(self, array: NDArray) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.options.device)


def _adamw(options: "LongContext", lr: float, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Matrices decay, vectors (the scales of norms) do not."""
    vectors = [{"pattern": name, "weight_decay": 0.0} for name, array in parameters.items() if array.ndim < 2]
    return dict(lr=lr, betas=(0.9, 0.95), weight_decay=options.weight_decay, groups=vectors)


def _schedule(options: "LongContext", lr: float, steps: int, warmup_cosine: Callable[..., float]) -> Callable[[int], float]:
    """A warm-up of at most a tenth of the steps, then a cosine; the first of its rates, 0, is left out."""
    warmup = min(options.warmup, max(steps // 10, 1))
    return lambda step: warmup_cosine(step + 1, lr=lr, min_lr=lr * options.final_lr, warmup_steps=warmup, total_steps=steps + 1)
