"""Fine-tuning in either implementation behind one face: what is trained, what is frozen, and what a checkpoint must hold of both."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from byhand.checks import fail
from byhand.commands.backends import Batches
from byhand.configs.lora import LoRAConfig, lora_plus_groups
from byhand.corpus import Batch
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.base import Base, Quantization, one_by_one, part
from byhand.finetuning.methods import adapt
from byhand.model_source import model_class
from byhand.noise import Noise
from byhand.torch_device import torch_on


class Tuned(Protocol):
    """A model with what is trained of it, its optimizer and its loop; everything that goes in or comes out is NumPy."""

    name: str
    model: Any
    lora: LoRAConfig | None
    optimizer: Any

    def fit(self, batches: Batches, validation: Sequence[Batch], after: tuple[int, float, int] | None) -> Iterator[Any]:
        """Train, yielding a Progress after every update; `after` is (step, lowest, forwards) of the run that this one goes on with."""

    def state(self) -> dict[str, NDArray]:
        """Every array of the model by name."""

    def trained(self) -> dict[str, NDArray]:
        """Those that are trained."""

    def optimizer_state(self) -> dict[str, NDArray]:
        """What the optimizer keeps."""

    def restore(self, trained: Mapping[str, NDArray], optimizer: Mapping[str, NDArray]) -> None:
        """Put both back where an earlier run had them."""

    def logits(self, ids: NDArray) -> NDArray:
        """ids (1, T) -> the logits of what follows the last, (V,)."""


class NumpyTuned:
    """By hand."""

    name = "numpy"

    def __init__(self, config: FinetuneConfig, base: Base):
        from numpy_impl.optim.adamw import AdamW
        from numpy_impl.optim.master_weights import BFloat16Weights
        from numpy_impl.optim.paged_adamw import PagedAdamW

        self.config, self.random = config, _random(base)
        rng = np.random.default_rng(config.seed)
        plain = numpy_base(base, quantization(config, base), dtype=config.dtype, dropout=config.dropout, rng=rng)
        self.base_digest = digest(plain.state_dict(), {})
        self.model, self.lora = adapt("numpy", plain, config, rng)
        self.optimizer = _optimizer(config, self.model.parameters(), PagedAdamW if config.paged else AdamW, BFloat16Weights)

    def fit(self, batches: Batches, validation: Sequence[Batch], after: tuple[int, float, int] | None) -> Iterator[Any]:
        from numpy_impl.optim.warmup_schedules import warmup_cosine
        from numpy_impl.train.loop import Progress, fit

        return fit(self.model, self.optimizer, batches, validation=validation, schedule=_schedule(self.config, warmup_cosine),
                   after=_progress(Progress, after), **_loop(self.config, self.random))

    def state(self) -> dict[str, NDArray]:
        return self.model.state_dict()

    def trained(self) -> dict[str, NDArray]:
        return self.model.parameters()

    def optimizer_state(self) -> dict[str, NDArray]:
        return self.optimizer.state_dict()

    def restore(self, trained: Mapping[str, NDArray], optimizer: Mapping[str, NDArray]) -> None:
        for name, array in self.model.parameters().items():
            array[...] = trained[name]
        self.optimizer.load_state_dict(optimizer)

    def logits(self, ids: NDArray) -> NDArray:
        return self.model(ids, run="inference")[0, -1]


class TorchTuned:
    """In PyTorch, starting from the given arrays, so that a seed is one run in either."""

    name = "torch"

    def __init__(self, config: FinetuneConfig, base: Base, state: Mapping[str, NDArray]):
        torch = torch_on("finetune", config.device)
        from torch_impl.optim.adamw import AdamW
        from torch_impl.optim.master_weights import BFloat16Weights
        from torch_impl.optim.paged_adamw import PagedAdamW

        self.config, self.random = config, _random(base)
        self.model, self.lora = adapt("torch", torch_base(config, base), config, torch.Generator())
        self.model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=True)
        self.model.to(config.device)
        self.optimizer = _optimizer(config, self._params(), PagedAdamW if config.paged else AdamW, BFloat16Weights)

    def fit(self, batches: Batches, validation: Sequence[Batch], after: tuple[int, float, int] | None) -> Iterator[Any]:
        from torch_impl.optim.warmup_schedules import warmup_cosine
        from torch_impl.train.loop import Progress, fit

        return fit(self.model, self.optimizer, lambda step: self._tensors(batches(step)), validation=self._tensors(validation),
                   schedule=_schedule(self.config, warmup_cosine), after=_progress(Progress, after), **_loop(self.config, self.random))

    def state(self) -> dict[str, NDArray]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.model.state_dict().items()}

    def trained(self) -> dict[str, NDArray]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self._params().items()}

    def optimizer_state(self) -> dict[str, NDArray]:
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.optimizer.state_dict().items()}

    def restore(self, trained: Mapping[str, NDArray], optimizer: Mapping[str, NDArray]) -> None:
        import torch

        with torch.no_grad():
            for name, tensor in self._params().items():
                tensor.copy_(torch.from_numpy(np.asarray(trained[name])))
        self.optimizer.load_state_dict({name: torch.from_numpy(np.asarray(array)) for name, array in optimizer.items()})

    def logits(self, ids: NDArray) -> NDArray:
        (tensors,) = self._tensors([(ids,)])
        return self.model(*tensors, run="inference")[0, -1].detach().cpu().numpy()

    def _params(self) -> dict[str, Any]:
        return {name: tensor for name, tensor in self.model.named_parameters() if tensor.requires_grad}

    def _tensors(self, batches: Sequence[tuple[NDArray, ...]]) -> list[tuple[Any, ...]]:
        import torch

        return [tuple(torch.from_numpy(array).to(self.config.device) for array in batch) for batch in batches]


def quantization(config: FinetuneConfig, base: Base) -> Quantization | None:
    """How the base is to be kept: as the options say, or as it is already.

    Raises
    ------
    ValueError   if the options want another quantization than the base has
    """
    wanted = None if config.quantize == "none" else Quantization(config.quantize, config.block, config.double)
    if base.quantized is None or wanted is None:
        return wanted or base.quantized
    if wanted != base.quantized:
        fail("finetune", f"the quantization that the base has, {base.quantized}, or none named", str(wanted))
    return wanted


def numpy_base(base: Base, quantized: Quantization | None, *, dtype: str = "float32", dropout: float = 0.0,
               rng: np.random.Generator | None = None) -> Any:
    """The base on the NumPy side, every block quantized, if that is wished, before the next one is made."""
    from numpy_impl.quantize.quantize_linears import quantize_linears

    make = model_class(base.config, "numpy_impl")
    prepare = one_by_one(base, _quantizer(quantized, quantize_linears), lambda block, state: block.load_state_dict(state))
    model = make(dataclasses.replace(base.config, dropout=dropout), dtype=np.dtype(dtype), rng=rng, prepare=prepare)
    if base.state is not None:
        for name, child in model.children():
            if name != "blocks":
                child.load_state_dict(part(base.state, f"{name}."))
    return model


def torch_base(config: FinetuneConfig, base: Base) -> Any:
    """The base on the torch side, of the same structure; its values come later."""
    import torch

    from torch_impl.quantize.quantize_linears import quantize_linears

    make = model_class(base.config, "torch_impl")
    return make(dataclasses.replace(base.config, dropout=config.dropout), dtype=getattr(torch, config.dtype),
                prepare=_quantizer(quantization(config, base), quantize_linears))


def digest(state: Mapping[str, NDArray], without: Mapping[str, NDArray]) -> str:
    """SHA-256 of all arrays that are not trained: the frozen part of a model, which no step may change by one bit."""
    found = hashlib.sha256()
    for name in sorted(state.keys() - without.keys()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(state[name]).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _random(base: Base) -> bool:
    """Whether its routers shake their inputs or their logits in training."""
    return bool(getattr(base.config, "jitter", 0) or getattr(base.config, "noisy", False))


def _quantizer(quantized: Quantization | None, quantize_linears: Callable[..., Any]) -> Callable[[Any], Any]:
    def quantize(block: Any) -> Any:
        if quantized is not None:
            quantize_linears(block, **dataclasses.asdict(quantized))
        return block

    return quantize


def _optimizer(config: FinetuneConfig, params: Mapping[str, Any], adamw: Any, half: Any) -> Any:
    """AdamW of one side, in memory or in pages; where adapters are kept in bfloat16, of their masters."""
    options = _adamw(config, params)
    return half(params, make=adamw, **options) if config.adapter_dtype == "bfloat16" else adamw(params, **options)


def _adamw(config: FinetuneConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Matrices decay, vectors do not; B of LoRA+ has a learning rate of its own."""
    vectors = [{"pattern": name, "weight_decay": 0.0} for name, array in params.items() if array.ndim < 2]
    plus = lora_plus_groups(params, config.lora_plus) if config.method in ("lora", "mixlora") else []
    return dict(lr=config.lr, betas=(0.9, 0.999), weight_decay=config.weight_decay, groups=vectors + plus)


def _schedule(config: FinetuneConfig, warmup_cosine: Callable[..., float]) -> Callable[[int], float]:
    shape = dict(lr=config.lr, min_lr=config.lr * config.final_lr, warmup_steps=min(config.warmup, config.steps), total_steps=config.steps)
    return lambda step: warmup_cosine(step + 1, **shape)


def _progress(make: Any, after: tuple[int, float, int] | None) -> Any:
    if after is None:
        return None
    step, lowest, forwards = after
    return make(step, None, None, False, lowest, forwards)


def _loop(config: FinetuneConfig, random: bool) -> dict[str, Any]:
    """`random`: whether the base itself draws random numbers in training."""
    drops = random or config.dropout or (config.method in ("lora", "mixlora") and config.adapter_dropout)
    return dict(
        steps=config.steps, max_norm=config.max_norm, noise=Noise(config.seed) if drops else None,
        run="recompute" if config.recompute else "keep", validate_every=config.validate_every, loss_scale=config.loss_scale,
    )
