"""The options of `byhand train`."""

import dataclasses

from byhand.checks import choice, demand
from byhand.configs.gpt2 import GPT2_PRESETS, GPT2Config
from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig
from byhand.configs.mixtral import MIXTRAL_PRESETS
from byhand.run_config import RunConfig, option

PRESETS: dict[str, GPT2Config | LlamaConfig] = {**GPT2_PRESETS, **LLAMA_PRESETS, **MIXTRAL_PRESETS}


@dataclasses.dataclass(frozen=True)
class TrainingConfig(RunConfig):
    """Every option of `byhand train`; `byhand.run_config.resolve` makes one from a file and the command line.

    Raises
    ------
    ValueError   if an option is out of its range
    """

    preset: str = option("gpt2-1m", "The model and its sizes: gpt2-nano, gpt2-1m, llama-nano, llama-1m, mixtral-nano …")

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("train", PRESETS, preset=self.preset)
        longest = PRESETS[self.preset].max_length
        demand("train", self.length <= longest, f"length <= {longest}, the longest sequence of {self.preset}", length=self.length)

    @classmethod
    def command(cls) -> str:
        return "train"

    @property
    def model(self) -> GPT2Config | LlamaConfig:
        """The preset's sizes with this run's dropout."""
        return dataclasses.replace(PRESETS[self.preset], dropout=self.dropout)
