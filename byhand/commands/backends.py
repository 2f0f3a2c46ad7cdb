"""The two implementations behind one face, for the commands that train or compare them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from byhand.commands.balanced import Balanced
from byhand.corpus import Batch
from byhand.model_source import model_class
from byhand.noise import Noise
from byhand.routing_metrics import RoutingWatch
from byhand.torch_device import torch_on
from byhand.training_config import TrainingConfig

Batches = Callable[[int], Sequence[Batch]]


class Backend(Protocol):
    """A model, its optimizer and its training loop; everything that goes in or comes out is NumPy."""

    name: str
    watch: RoutingWatch

    def fit(self, batches: Batches, validation: Sequence[Batch]) -> Iterator[Any]:
        """Train, yielding a Progress after every update."""

    def state(self) -> dict[str, NDArray]:
        """The weights by name, as they are now."""

    def logits(self, ids: NDArray) -> NDArray:
        """ids (1, T) -> the logits of what follows the last, (V,)."""


class NumpyBackend:
    """By hand."""

    name = "numpy"

    def __init__(self, config: TrainingConfig):
        from numpy_impl.optim.adamw import AdamW

        self.config = config
        make = model_class(config.model, "numpy_impl")
        self.model = make(config.model, dtype=np.dtype(config.dtype), rng=np.random.default_rng(config.seed))
        self.watch = RoutingWatch(self.model)
        adamw = AdamW(self.model.parameters(), **_adamw(config, self.model.parameters()))
        self.optimizer = Balanced(adamw, self.watch, config.balance_rate)

    def fit(self, batches: Batches, validation: Sequence[Batch]) -> Iterator[Any]:
        from numpy_impl.optim.warmup_schedules import warmup_cosine
        from numpy_impl.train.loop import fit

        return fit(self.model, self.optimizer, batches, validation=validation, schedule=_schedule(self.config, warmup_cosine),
                   **_loop(self.config))

    def state(self) -> dict[str, NDArray]:
        return self.model.state_dict()

    def logits(self, ids: NDArray) -> NDArray:
        return self.model(ids, run="inference")[0, -1]


class TorchBackend:
    """In PyTorch, starting from the given weights."""

    name = "torch"

    def __init__(self, config: TrainingConfig, state: dict[str, NDArray]):
        torch = torch_on("train", config.device)
        from torch_impl.optim.adamw import AdamW

        self.config = config
        make = model_class(config.model, "torch_impl")
        self.model = make(config.model, dtype=getattr(torch, config.dtype)).to(config.device)
        self.model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=True)
        parameters = dict(self.model.named_parameters())
        self.watch = RoutingWatch(self.model)
        self.optimizer = Balanced(AdamW(parameters, **_adamw(config, parameters)), self.watch, config.balance_rate)

    def fit(self, batches: Batches, validation: Sequence[Batch]) -> Iterator[Any]:
        from torch_impl.optim.warmup_schedules import warmup_cosine
        from torch_impl.train.loop import fit

        return fit(self.model, self.optimizer, lambda step: self._tensors(batches(step)), validation=self._tensors(validation),
                   schedule=_schedule(self.config, warmup_cosine), **_loop(self.config))

    def state(self) -> dict[str, NDArray]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.model.state_dict().items()}

    def logits(self, ids: NDArray) -> NDArray:
        (tensors,) = self._tensors([(ids,)])
        return self.model(*tensors, run="inference")[0, -1].detach().cpu().numpy()

    def _tensors(self, batches: Sequence[tuple[NDArray, ...]]) -> list[tuple[Any, ...]]:
        import torch

        return [tuple(torch.from_numpy(array).to(self.config.device) for array in batch) for batch in batches]


def _adamw(config: TrainingConfig, parameters: dict[str, Any]) -> dict[str, Any]:
    """Matrices decay, vectors (biases and the scales of norms) do not."""
    vectors = [{"pattern": name, "weight_decay": 0.0} for name, array in parameters.items() if array.ndim < 2]
    return dict(lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay, groups=vectors)


def _schedule(config: TrainingConfig, warmup_cosine: Callable[..., float]) -> Callable[[int], float]:
    """A step later than the schedule counts: its first learning rate is 0, which would waste an update, and its last is never reached."""
    shape = dict(lr=config.lr, min_lr=config.lr * config.final_lr, warmup_steps=min(config.warmup, config.steps), total_steps=config.steps)
    return lambda step: warmup_cosine(step + 1, **shape)


def _loop(config: TrainingConfig) -> dict[str, Any]:
    random = config.dropout or getattr(config.model, "jitter", 0) or getattr(config.model, "noisy", False)
    return dict(
        steps=config.steps,
        max_norm=config.max_norm,
        noise=Noise(config.seed) if random else None,
        run="recompute" if config.recompute else "keep",
        validate_every=config.validate_every,
        loss_scale=config.loss_scale,
    )
