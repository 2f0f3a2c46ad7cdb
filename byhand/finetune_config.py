"""The options of `byhand finetune`."""

import dataclasses
from typing import Any, Literal

from byhand.checks import demand, in_range, positive, size
from byhand.configs.lora import LoRAConfig
from byhand.run_config import RunConfig, option


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """Every option of `byhand finetune`; `byhand.run_config.resolve` makes one from a file and the command line.

    Raises
    ------
    ValueError   if an option is out of its range, or two do not go together
    """

    base: str | None = option(None, "What is fine-tuned: the directory of a `byhand train` or `byhand quantize`, a directory as Hugging "
                              "Face's hub holds a model, or a preset with random weights.")
    method: Literal["lora", "ia3", "prefix", "prompt", "bottleneck", "full"] = option("lora", "What is trained; full: every weight.")
    targets: tuple[str, ...] = option(("q_proj", "v_proj"), "The layers that get an adapter, by name or shell pattern; all-linear: all.")
    exclude: tuple[str, ...] = option((), "Layers that get none.")
    r: int = option(8, "LoRA: the rank of an adapter.")
    alpha: float = option(16.0, "LoRA: its output is scaled by alpha / r.")
    rslora: bool = option(False, "LoRA: scale by alpha / √r.")
    dora: bool = option(False, "LoRA: learn each row's length apart from its direction (DoRA).")
    adapter_dropout: float = option(0.0, "LoRA: the share of an adapter's inputs that is dropped.")
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
        super().__post_init__()
        who = "finetune"
        for name in ("targets", "exclude", "layers"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, (value,) if isinstance(value, (str, int)) else tuple(value))
        if self.resume is None:
            demand(who, self.base is not None, "a base: a run of `byhand train`, a model's directory, or a preset", base=self.base)
        size(who, block=self.block, virtual_tokens=self.virtual_tokens, bottleneck=self.bottleneck)
        size(who, save_every=self.save_every, keep=self.keep)
        in_range(who, 0, 1, adapter_dropout=self.adapter_dropout)
        if self.lora_plus is not None:
            positive(who, lora_plus=self.lora_plus)
        demand(who, self.method != "full" or self.quantize == "none", "quantize 'none' for method 'full': 4-bit weights do not train",
               quantize=self.quantize)
        demand(who, self.method == "lora" or self.budget is None, "method 'lora' for a budget of ranks", method=self.method)
        if self.method == "lora":
            _ = self.lora                      # made to be checked

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
        return LoRAConfig(targets="all-linear" if self.targets == ("all-linear",) else self.targets, **options)
