"""The two implementations behind one face, for the architecture experiments: train a Decoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.configs.decoder import DecoderConfig
from byhand.corpus import Batch
from byhand.torch_device import torch_on

if TYPE_CHECKING:
    from byhand.experiments.architecture import Architecture

Batches = Callable[[int], list[Batch]]


class Training(NamedTuple):
    """A training that runs as its steps are taken.

    parameters   how many numbers are learned
    steps        yields a Progress after every update
    state        the weights by name, as they are now
    """

    parameters: int
    steps: Iterator[Any]
    state: Callable[[], dict[str, NDArray]]


def train(options: "Architecture", config: DecoderConfig, seed: int, batches: Batches, validation: Sequence[Batch]) -> Training:
    """A model of this config in training; both implementations start from the weights that NumPy draws for the seed.

    Raises
    ------
    ValueError   if PyTorch or its device is missing
    """
    return (_in_torch if options.backend == "torch" else _in_numpy)(options, config, seed, batches, validation)


def _in_numpy(options: "Architecture", config: DecoderConfig, seed: int, batches: Batches, validation: Sequence[Batch]) -> Training:
    from numpy_impl.models.decoder import Decoder
    from numpy_impl.optim.adamw import AdamW
    from numpy_impl.optim.warmup_schedules import warmup_cosine
    from numpy_impl.train.loop import fit

    model = Decoder(config, rng=np.random.default_rng(seed))
    parameters = model.parameters()
    steps = fit(model, AdamW(parameters, **_adamw(options, parameters)), batches, validation=validation,
                **_loop(options, warmup_cosine))
    return Training(sum(array.size for array in parameters.values()), steps, model.state_dict)


def _in_torch(options: "Architecture", config: DecoderConfig, seed: int, batches: Batches, validation: Sequence[Batch]) -> Training:
    torch = torch_on("experiment", options.device)
    from numpy_impl.models.decoder import Decoder as ByHand
    from torch_impl.models.decoder import Decoder
    from torch_impl.optim.adamw import AdamW
    from torch_impl.optim.warmup_schedules import warmup_cosine
    from torch_impl.train.loop import fit

    start = ByHand(config, rng=np.random.default_rng(seed)).state_dict()
    model = Decoder(config).to(options.device)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()}, strict=True)
    parameters = dict(model.named_parameters())

    def tensors(pairs: Sequence[Batch]) -> list[tuple[Any, ...]]:
        return [tuple(torch.from_numpy(array).to(options.device) for array in pair) for pair in pairs]

    steps = fit(model, AdamW(parameters, **_adamw(options, parameters)), lambda step: tensors(batches(step)),
                validation=tensors(validation), **_loop(options, warmup_cosine))
    return Training(
        sum(parameter.numel() for parameter in parameters.values()), steps,
        lambda: {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()},
    )


def _adamw(options: "Architecture", parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Matrices decay, vectors (biases and the scales of norms) do not."""
    vectors = [{"pattern": name, "weight_decay": 0.0} for name, array in parameters.items() if array.ndim < 2]
    return dict(lr=options.lr, betas=(0.9, 0.95), weight_decay=options.weight_decay, groups=vectors)


def _loop(options: "Architecture", warmup_cosine: Callable[..., float]) -> dict[str, Any]:
    """A step later than the schedule counts, whose first learning rate is 0."""
    shape = dict(lr=options.lr, min_lr=options.lr * options.final_lr, warmup_steps=min(options.warmup, options.steps),
                 total_steps=options.steps)
    return dict(steps=options.steps, schedule=lambda step: warmup_cosine(step + 1, **shape), max_norm=options.max_norm,
                validate_every=options.validate_every)
