"""The model that `byhand generate` writes with: from wherever it lies, with its adapter, on the side that is asked for."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from byhand.checks import demand, fail
from byhand.commands.adapters import _experts_of, _model, _run_of, with_adapter
from byhand.commands.finetune_backends import numpy_base, quantization, torch_base
from byhand.configs.generation import GenerationConfig
from byhand.finetune_config import FinetuneConfig
from byhand.finetuning.base import Base, open_base
from byhand.finetuning.methods import adapt
from byhand.generate_options import GenerateOptions
from byhand.hugging_face.adapter import load_adapter
from byhand.hugging_face.directory import generation_config_in
from byhand.hugging_face.files import read_json
from byhand.model_source import Weights, build, model_class, open_weights
from byhand.torch_device import torch_on


class Side:
    """What of generation is computed: in NumPy or in PyTorch, on a device."""

    def __init__(self, name: str, device: str):
        self.name, self.device = name, device
        self._torch = torch_on("generate", device) if name == "torch" else None
        self.generate = importlib.import_module(f"{name}_impl.decode.generate").generate
        self.beam_search = importlib.import_module(f"{name}_impl.decode.beam_search").beam_search

    def array(self, ids: list[list[int]]) -> Any:
        """ids as this side's integers."""
        return np.array(ids, np.int64) if self._torch is None else self._torch.tensor(ids, device=self.device)


class Opened:
    """A model whose weights are not read yet.

    config, title, tokenize, path   as in Weights
    adapter, dtype, side            as the options say
    encodes                         whether the prompt is what an encoder reads
    """

    def __init__(self, found: Weights | Base, options: GenerateOptions, tuning: FinetuneConfig | None):
        self.config: Any = found.config
        self.title, self.tokenize, self.path = found.title, found.tokenize, found.path
        self.adapter, self.seed, self._found, self._tuning = options.adapter, options.seed, found, tuning
        self._experts = _experts_of("generate", options.adapter, options.expert_memory)
        own = "float32" if tuning is None else tuning.dtype
        self.dtype, self.side = options.dtype or own, Side(options.backend, options.device)
        self._mirrored = self.side.name == "torch" or self.dtype != own
        demand("generate", self._experts is None or not self._mirrored, f"--backend numpy in {own} for an adapter of MixLoRA",
               backend=self.side.name, dtype=self.dtype)
        made = model_class(found.config, "numpy_impl", getattr(found, "kind", None))
        self.encodes = hasattr(made, "encode")
        demand("generate", hasattr(made, "extend"), "a model that writes text, not an encoder alone", model=made.__name__)

    def defaults(self, length: int, count: int | None) -> GenerationConfig:
        """How the model's directory says that it writes, behind a prompt of `length` tokens; `count` goes before its lengths."""
        if self.path is None or not (self.path / "config.json").is_file():
            return GenerationConfig()
        if not read_json("generate", self.path / "config.json").keys() & {"model_type", "architectures"}:
            return GenerationConfig()                             # the directory of a run of ours
        try:
            return generation_config_in(self.path, prompt_length=length, max_new_tokens=count)
        except ValueError as error:
            raise ValueError(f"{error}, in the model's directory, for a prompt of {length} tokens") from error

    def start(self) -> int:
        """The token that an encoder–decoder's answer begins behind: generation_config.json goes before config.json."""
        file = None if self.path is None else self.path / "generation_config.json"
        said = None if file is None or not file.is_file() else read_json("generate", file).get("decoder_start_token_id")
        if said is None:
            return self.config.start
        vocabulary = getattr(self.config, "target_vocabulary", self.config.vocabulary)
        in_vocabulary = isinstance(said, int) and not isinstance(said, bool) and 0 <= said < vocabulary
        demand("generate", in_vocabulary, f"decoder_start_token_id as an integer in [0, {vocabulary - 1}], in {file}", got=said)
        return said

    def build(self, *, adapted: bool) -> Any:
        """The model, with its adapter or without."""
        if isinstance(self._found, Weights):
            return build(self._found, seed=self.seed, side=self.side.name, dtype=self.dtype, device=self.side.device)
        base, adapted = self._found, adapted and self.adapter is not None
        model = _model(base, self._tuning, self.seed)
        if adapted:
            assert self.adapter is not None
            model = with_adapter("generate", model, base, self.adapter, self._tuning, self._experts)
        return self._mirror(base, model.state_dict(), adapted) if self._mirrored else model

    def notes(self) -> list[str]:
        """What is to be said of the experts."""
        if self._experts is None:
            return []
        every = len(self._experts.layers) * self._experts.config.n_experts
        return [f"{self._experts.loads} reads of {every} files of experts; {self._experts.peak:,} bytes of them at once, at most"]

    def _mirror(self, base: Base, state: dict[str, Any], adapted: bool) -> Any:
        """A model of the same structure on this side in this dtype, with the same arrays."""
        name, tuning = self.side.name, self._tuning
        settings = dataclasses.replace(tuning or FinetuneConfig(base="given"), dtype=self.dtype, dropout=0.0)
        rng: Any = np.random.default_rng(0)
        if name == "numpy":
            model = numpy_base(base, quantization(settings, base), dtype=self.dtype)
        else:
            import torch

            model, rng = torch_base(settings, base), torch.Generator()
        if adapted and tuning is not None:
            model, _ = adapt(name, model, tuning, rng)
        elif adapted:
            assert self.adapter is not None
            lora, _ = load_adapter(self.adapter, base.config)
            importlib.import_module(f"{name}_impl.finetune.manager").apply_lora(model, lora)
        if name == "numpy":
            model.load_state_dict(state)
            return model
        model.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()}, strict=True)
        return model.to(self.side.device)


def open_for(where: str | None, options: GenerateOptions) -> Opened:
    """The model that `where` names, or the base of the run that is the adapter.

    Raises
    ------
    ValueError   if there is none, or it writes no text
    """
    tuning = _run_of("generate", options.adapter)
    where = where or (None if tuning is None else tuning.base)
    if where is None:
        fail("generate", "a model, or the directory of a `byhand finetune` as the adapter", "neither")
    assert where is not None
    path = Path(where)
    quantized = path.is_dir() and any(path.glob("step-*"))
    return Opened(open_base(where) if quantized or options.adapter is not None else open_weights(where), options, tuning)
