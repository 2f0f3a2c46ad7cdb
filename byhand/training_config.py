"""The options of `byhand train`."""

import dataclasses
from typing import Any, Literal

from byhand.checks import choice, demand, not_negative
from byhand.configs.gpt2 import GPT2_PRESETS, GPT2Config
from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig
from byhand.configs.mixtral import MIXTRAL_PRESETS, MixtralConfig
from byhand.run_config import RunConfig, option

PRESETS: dict[str, GPT2Config | LlamaConfig] = {**GPT2_PRESETS, **LLAMA_PRESETS, **MIXTRAL_PRESETS}

# what MixtralConfig calls them, and `byhand train`
_OPTIONS = {"n_experts": "experts", "k": "top_k", "choice": "routing", "capacity_factor": "capacity_factor", "balance": "balance",
            "z": "router_z"}


@dataclasses.dataclass(frozen=True)
class TrainingConfig(RunConfig):
    """Every option of `byhand train`; `byhand.run_config.resolve` makes one from a file and the command line.

    Raises
    ------
    ValueError   if an option is out of its range
    """

    preset: str = option("gpt2-1m", "The model and its sizes: gpt2-nano, gpt2-1m, llama-nano, llama-1m, mixtral-nano …")

    experts: int | None = option(None, "Mixtures of experts: how many a layer has. By default, here and below, as the preset says.")
    top_k: int | None = option(None, "Mixtures of experts: how many of them compute a token.")
    routing: Literal["token", "sinkhorn"] | None = option(None, "Mixtures of experts: whether a token takes its best experts, or those "
                                                          "that an even load leaves it.")
    capacity_factor: float | None = option(None, "Mixtures of experts: the most that an expert computes, over an even share; what comes "
                                           "beyond it is dropped.")
    balance: float | None = option(None, "Mixtures of experts: the weight of the loss that keeps them equally busy.")
    router_z: float | None = option(None, "Mixtures of experts: the weight of the loss that keeps the routers' logits small.")
    balance_rate: float | None = option(None, "Mixtures of experts whose routers have a correction (deepseek-nano): how far it moves "
                                        "towards an even load after each update; by default 0.001.")

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("train", PRESETS, preset=self.preset)
        if self.balance_rate is not None:
            not_negative("train", balance_rate=self.balance_rate)
            corrected = getattr(PRESETS[self.preset], "correction", False)
            demand("train", corrected, "a preset whose routers have a correction, such as deepseek-nano, for a balance_rate",
                   preset=self.preset, balance_rate=self.balance_rate)
        mixture = isinstance(PRESETS[self.preset], MixtralConfig)
        demand("train", mixture or not self._mixture, "a preset with experts, such as mixtral-nano, for options of theirs",
               preset=self.preset, **{_OPTIONS[name]: value for name, value in self._mixture.items()})
        _ = self.model                         # made to be checked
        longest = PRESETS[self.preset].max_length
        demand("train", self.length <= longest, f"length <= {longest}, the longest sequence of {self.preset}", length=self.length)

    @classmethod
    def command(cls) -> str:
        return "train"

    @property
    def model(self) -> GPT2Config | LlamaConfig:
        """The preset's sizes with this run's dropout, and what is said of experts."""
        return dataclasses.replace(PRESETS[self.preset], dropout=self.dropout, **self._mixture)

    @property
    def _mixture(self) -> dict[str, Any]:
        """The options of a MixtralConfig that are given."""
        return {name: getattr(self, own) for name, own in _OPTIONS.items() if getattr(self, own) is not None}
