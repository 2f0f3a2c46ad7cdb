"""The options of `byhand finetune`."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

from byhand.checks import demand, fail, in_range, positive, size
from byhand.configs.lora import LoRAConfig
from byhand.configs.mixlora import MixLoRAConfig
from byhand.run_config import RunConfig, option, read, resolve

RESTS = ("pissa", "olora", "loftq")     # starts that leave the base only what the adapter does not hold


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Every option of `byhand finetune`; `byhand.run_config.resolve` makes one from a file and the command line.

    Raises
    ------
    ValueError   if an option is out of its range, or two do not go together
    """

    base: str | None = option(None, "What is fine-tuned: the directory of a `byhand train` or `byhand quantize`, a directory as Hugging "
                              "Face's hub holds a model, or a preset with random weights.")
    method: Literal["lora", "mixlora", "ia3", "prefix", "prompt", "bottleneck", "full"] = option(
        "lora", "What is trained; mixlora: experts of the feed-forward layers, each a LoRA; full: every weight.")
    targets: tuple[str, ...] | None = option(None, "LoRA, IA³, bottlenecks: the layers that get an adapter, by name or shell pattern; LoRA "
                                             "takes all-linear for all. By default LoRA's are q_proj and v_proj, the others' those of "
                                             "their papers. MixLoRA: layers of attention that get one beside the experts; by default none.")
    exclude: tuple[str, ...] = option((), "Layers that get none.")
    r: int = option(8, "LoRA: the rank of an adapter; MixLoRA: of an expert.")
    alpha: float = option(16.0, "LoRA, MixLoRA: its output is scaled by alpha / r.")
    rslora: bool = option(False, "LoRA, MixLoRA: scale by alpha / √r.")
    dora: bool = option(False, "LoRA: learn each row's length apart from its direction (DoRA).")
    adapter_dropout: float = option(0.0, "LoRA, MixLoRA: the share of an adapter's inputs that is dropped.")
    experts: int = option(8, "MixLoRA: experts of each feed-forward layer.")
    top_k: int = option(2, "MixLoRA: experts that compute a token.")
    balance: float = option(0.01, "MixLoRA: weight of the loss that keeps the experts equally busy.")
    adapter_dtype: Literal["float32", "bfloat16"] = option("float32", "bfloat16: adapters are kept and saved in bfloat16.")
    bias: Literal["none", "all", "lora_only"] = option("none", "LoRA: which biases train besides.")
    start: Literal["kaiming", "gaussian", "pissa", "olora", "loftq"] = option("kaiming", "LoRA: how adapters begin.")
    lora_plus: float | None = option(None, "LoRA+: the learning rate of B over that of A.")
    rank_pattern: dict[str, int] | None = option(None, "LoRA: other ranks, by a regular expression for names.")
    alpha_pattern: dict[str, float] | None = option(None, "LoRA: other alphas, likewise.")
    layers: tuple[int, ...] | None = option(None, "LoRA: only blocks of these numbers.")
    budget: str | None = option(None, "LoRA: choose the ranks: 20000 parameters, 2MB, or 5% of all parameters.")
    virtual_tokens: int = option(8, "Prefix and prompt tuning: learned positions.")
    bottleneck: int = option(16, "Bottleneck adapters: their width.")
    quantize: Literal["none", "nf4", "fp4"] = option("none", "QLoRA: the base in 4 bits, quantized block by block as it is read.")
    block: int = option(64, "Numbers that share a scale in the quantized base.")
    double: bool = option(False, "Quantize those scales too.")
    paged: bool = option(False, "Keep the optimizer's moments in files, paged in as they are needed.")
    save_every: int = option(25, "Steps between two checkpoints.")
    keep: int = option(2, "Checkpoints that are kept.")
    resume: str | None = option(None, "The directory of a run to go on with, in place of all other options.")

    # what differs from `byhand train`
    text: str | None = option("topics", "What to train on: a file, a directory, or library (the standard library's own source), topics "
                              "(English, Python's help topics), list-operations.")
    lr: float = option(1e-3, "The highest learning rate.")
    warmup: int = option(5, "Steps in which the learning rate rises, at most all of them.")
    weight_decay: float = option(0.0, "AdamW's decay of the matrices; vectors are not decayed.")
    dropout: float = option(0.0, "The share of the base's activations that is dropped.")
    name: str = option("finetune", "The run directory is runs/NAME-TIMESTAMP.")

    def __post_init__(self) -> None:
        if isinstance(self.budget, int) and not isinstance(self.budget, bool):
            object.__setattr__(self, "budget", str(self.budget))     # of parameters
        super().__post_init__()
        who = "finetune"
        if self.targets is None and self.method == "lora":
            object.__setattr__(self, "targets", ("q_proj", "v_proj"))
        for name in ("targets", "exclude"):
            value = getattr(self, name)
            if value is not None:                                    # "q_proj,v_proj" are two
                several = tuple(value) if isinstance(value, (list, tuple)) else (value,)
                parts = [part.split(",") if isinstance(part, str) else [part] for part in several]
                object.__setattr__(self, name, tuple(part.strip() if isinstance(part, str) else part for each in parts for part in each))
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers) if isinstance(self.layers, (list, tuple)) else (self.layers,))
        if self.resume is None and self.base is None:
            fail(who, "--base: the directory of a `byhand train`, a model as Hugging Face's hub holds it, or a preset", "none")
        size(who, block=self.block, virtual_tokens=self.virtual_tokens, bottleneck=self.bottleneck)
        size(who, save_every=self.save_every, keep=self.keep)
        in_range(who, 0, 1, adapter_dropout=self.adapter_dropout)
        if self.lora_plus is not None:
            positive(who, lora_plus=self.lora_plus)
        demand(who, self.method != "full" or self.quantize == "none", "quantize 'none' for method 'full': 4-bit weights do not train",
               quantize=self.quantize)
        demand(who, self.method == "lora" or self.budget is None, "method 'lora' for a budget of ranks", method=self.method)
        if self.adapter_dtype == "bfloat16":
            demand(who, self.method == "lora", "method 'lora' for adapters in bfloat16", method=self.method)
            demand(who, self.start not in RESTS, f"adapter_dtype 'float32' for start {self.start!r}: rounded, its factors would not make "
                   "up for what they took from the base", adapter_dtype=self.adapter_dtype)
        if self.start == "loftq":
            demand(who, self.quantize == "none", "quantize 'none' for start 'loftq', which quantizes the layers itself (NF4, blocks of 64)",
                   quantize=self.quantize)
        if self.method == "lora":
            _ = self.lora                      # made to be checked
        if self.method == "mixlora":
            _ = self.mixlora
            demand(who, self.targets != ("all-linear",), "targets by name for method 'mixlora': layers of attention, beside the experts",
                   targets=self.targets)
            for name in ("exclude", "dora", "bias", "start", "rank_pattern", "alpha_pattern", "layers"):
                value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
                demand(who, value == default, f"{name} {default!r} for method 'mixlora', whose experts are all alike", **{name: value})

    @classmethod
    def command(cls) -> str:
        return "finetune"

    @property
    def lora(self) -> LoRAConfig:
        """What these options say of LoRA's adapters."""
        options: dict[str, Any] = dict(
            r=self.r, alpha=self.alpha, exclude=self.exclude, rslora=self.rslora, dora=self.dora, dropout=self.adapter_dropout,
            bias=self.bias, start=self.start, lora_plus=self.lora_plus, rank_pattern=self.rank_pattern or {},
            alpha_pattern=self.alpha_pattern or {}, layers=self.layers,
        )
        targets: Any = "all-linear" if self.targets == ("all-linear",) else self.targets
        return LoRAConfig(targets=targets, **options)

    @property
    def mixlora(self) -> MixLoRAConfig:
        """What these options say of MixLoRA's experts."""
        return MixLoRAConfig(n_experts=self.experts, k=self.top_k, r=self.r, alpha=self.alpha, rslora=self.rslora,
                             dropout=self.adapter_dropout, balance=self.balance, attention=self.targets or ())


def settled(config: FinetuneConfig) -> FinetuneConfig:
    """The configuration as a run keeps it: files and directories have absolute names, so that it means the same everywhere."""
    from byhand.corpus import NAMES

    base, text = config.base, config.text
    if base is not None and os.path.isdir(base):
        base = os.path.abspath(base)
    if text is not None and text not in NAMES and os.path.exists(text):
        text = os.path.abspath(text)
    return dataclasses.replace(config, base=base, text=text)


def config_of_run(where: str | Path, *, who: str = "finetune") -> FinetuneConfig:
    """The configuration of the run in a directory.

    Raises
    ------
    ValueError   if there is no run of `byhand finetune`, or it was killed before it had written its configuration
    """
    path = Path(where)
    if not path.is_dir():
        fail(who, "the directory of a run", f"{str(where)!r}, which does not exist")
    if not (path / "config.json").is_file() and (path / "metrics.jsonl").is_file():
        fail(who, "a run that has begun", f"{path}, which was stopped before it had written its config.json: remove it, and begin anew")
    if not (path / "config.json").is_file():
        fail(who, "the directory of a run, with its config.json", str(where))
    if not read(who, path / "config.json").keys() >= {"base", "method"}:
        fail(who, "the directory of a `byhand finetune`", f"{str(where)!r}, which is something else")
    return resolve(FinetuneConfig, path / "config.json")
