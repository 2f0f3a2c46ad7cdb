"""The two implementations behind one face, for the multi-task experiment: train a base, adapt it, let it answer, watch its routers.

Both start from the weights that NumPy draws, and call their modules by the same names.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from byhand.configs.lora import LoRAConfig
from byhand.configs.mixlora import MixLoRAConfig
from byhand.corpus import Batch
from byhand.routing_metrics import LayerRouting, RoutingWatch
from byhand.tasks.multi_task import PADDING
from byhand.torch_device import torch_on

if TYPE_CHECKING:
    from byhand.experiments.multi_task import MultiTask

Batches = Callable[[int], list[Batch]]
Adapters = Sequence[LoRAConfig | MixLoRAConfig]     # put on one after the other


class Learner(Protocol):
    """A model in one of the implementations; what goes in and comes out is NumPy."""

    @property
    def parameters(self) -> int:
        """How many numbers train."""

    def fit(self, batches: Batches, steps: int, lr: float, weight_decay: float) -> Iterator[float]:
        """The loss of every update, as it is made."""

    def next_logits(self, ids: NDArray) -> NDArray:
        """(B, T) -> (B, V), of the token that follows."""

    def routing(self, batches: Sequence[Batch]) -> list[LayerRouting]:
        """How the routers use their experts on these, layer by layer; empty without routers."""

    def state(self) -> dict[str, NDArray]:
        """All weights by name."""


def learner(options: "MultiTask", weights: Mapping[str, NDArray] | None = None, adapters: Adapters = (), *, seed: int) -> Learner:
    """The model with fresh weights or these, and with adapters, which alone train then.

    Raises
    ------
    ValueError   if PyTorch or its device is missing
    """
    return (_Torch if options.backend == "torch" else _Numpy)(options, _by_hand(options, weights, adapters, seed), adapters)


def _by_hand(options: "MultiTask", weights: Mapping[str, NDArray] | None, adapters: Adapters, seed: int) -> Any:
    from numpy_impl.finetune.apply_mixlora import apply_mixlora
    from numpy_impl.finetune.manager import apply_lora
    from numpy_impl.models.llama import Llama

    rng = np.random.default_rng(seed)
    model = Llama(options.model, rng=rng)
    if weights is not None:
        model.load_state_dict(weights)
    for config in adapters:
        if isinstance(config, MixLoRAConfig):
            apply_mixlora(model, config, rng=rng)
        else:
            apply_lora(model, config, rng=rng)
    return model


class _Numpy:
    def __init__(self, options: "MultiTask", model: Any, adapters: Adapters):
        self.options, self.model = options, model
        _leave_padding_out(model)

    @property
    def parameters(self) -> int:
        return sum(array.size for array in self.model.parameters().values())

    def fit(self, batches: Batches, steps: int, lr: float, weight_decay: float) -> Iterator[float]:
        from numpy_impl.optim.adamw import AdamW
        from numpy_impl.optim.warmup_schedules import warmup_cosine
        from numpy_impl.train.loop import fit

        parameters = self.model.parameters()
        optimizer = AdamW(parameters, **_adamw(lr, weight_decay, parameters))
        schedule = _schedule(self.options, lr, steps, warmup_cosine)
        for progress in fit(self.model, optimizer, batches, steps=steps, schedule=schedule, max_norm=self.options.max_norm):
            yield _loss(progress)

    def next_logits(self, ids: NDArray) -> NDArray:
        return self.model(ids)[:, -1]

    def routing(self, batches: Sequence[Batch]) -> list[LayerRouting]:
        watch = RoutingWatch(self.model)
        for ids, targets in batches:
            self.model.loss(ids, targets, run="keep")
        return watch.take()

    def state(self) -> dict[str, NDArray]:
        return self.model.state_dict()


class _Torch:
    def __init__(self, options: "MultiTask", by_hand: Any, adapters: Adapters):
        torch = torch_on("multi_task", options.device)
        from torch_impl.finetune.apply_mixlora import apply_mixlora
        from torch_impl.finetune.manager import apply_lora
        from torch_impl.models.llama import Llama

        self.options, self.torch, self.model = options, torch, Llama(options.model)
        for config in adapters:
            if isinstance(config, MixLoRAConfig):
                apply_mixlora(self.model, config)
            else:
                apply_lora(self.model, config)
        self.model.load_state_dict({name: torch.from_numpy(array) for name, array in by_hand.state_dict().items()}, strict=True)
        self.model.to(options.device)
        _leave_padding_out(self.model)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._trained().values())

    def fit(self, batches: Batches, steps: int, lr: float, weight_decay: float) -> Iterator[float]:
        from torch_impl.optim.adamw import AdamW
        from torch_impl.optim.warmup_schedules import warmup_cosine
        from torch_impl.train.loop import fit

        parameters = self._trained()
        optimizer = AdamW(parameters, **_adamw(lr, weight_decay, parameters))
        schedule = _schedule(self.options, lr, steps, warmup_cosine)

        def tensors(step: int) -> list[tuple[Any, ...]]:
            return [tuple(map(self._tensor, batch)) for batch in batches(step)]

        for progress in fit(self.model, optimizer, tensors, steps=steps, schedule=schedule, max_norm=self.options.max_norm):
            yield _loss(progress)

    def next_logits(self, ids: NDArray) -> NDArray:
        return self.model(self._tensor(ids), run="inference")[:, -1].cpu().numpy()

    def routing(self, batches: Sequence[Batch]) -> list[LayerRouting]:
        watch = RoutingWatch(self.model)
        with self.torch.no_grad():
            for batch in batches:
                self.model.loss(*map(self._tensor, batch))
        return watch.take()

    def state(self) -> dict[str, NDArray]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.model.state_dict().items()}

    def _trained(self) -> dict[str, Any]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def _tensor(self, array: NDArray) -> Any:
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self.options.device)


def _adamw(lr: float, weight_decay: float, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Matrices decay, vectors (the scales of norms) do not."""
    vectors = [{"pattern": name, "weight_decay": 0.0} for name, array in parameters.items() if array.ndim < 2]
    return dict(lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay, groups=vectors)


def _schedule(options: "MultiTask", lr: float, steps: int, warmup_cosine: Callable[..., float]) -> Callable[[int], float]:
    """A warm-up of at most a twentieth of the steps, then a cosine; the first of its rates, 0, is left out."""
    warmup = min(options.warmup, max(steps // 20, 1))
    return lambda step: warmup_cosine(step + 1, lr=lr, min_lr=lr * options.final_lr, warmup_steps=warmup, total_steps=steps + 1)


def _leave_padding_out(model: Any) -> None:
    """Let the loss that balances the experts know which tokens are padding."""
    plain = model.loss
    model.loss = lambda ids, targets, **options: plain(ids, targets, real=ids != PADDING, **options)


def _loss(progress: Any) -> float:
    return progress.metrics.loss
