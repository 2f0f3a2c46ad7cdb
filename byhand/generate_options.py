"""What `byhand generate` can be told, beside the model and the prompt."""

import dataclasses
from typing import Any, Literal

from byhand.checks import demand, size
from byhand.configs.generation import GenerationConfig
from byhand.run_config import option

_OURS = {"count": "max_new_tokens", "min_tokens": "min_new_tokens"}
_DRAWS = ("top_k", "top_p", "min_p", "typical")
_SEARCHES = ("length_penalty", "early_stopping")
_ONE_BEAM: dict[str, Any] = dict(beams=1, groups=1, diversity_penalty=0.0, n_best=1)


@dataclasses.dataclass(frozen=True)
class GenerateOptions:
    """The options of `byhand generate`; None leaves what the model's own generation_config.json says.

    Raises
    ------
    ValueError   if one is out of its range, or two do not go together
    """

    adapter: str | None = option(None, "LoRA's files, peft's or ours, MixLoRA's, or the directory of a `byhand finetune`, which knows its "
                                 "base.")
    backend: Literal["numpy", "torch"] = option("numpy", "By hand in NumPy, or PyTorch.")
    device: Literal["cpu", "cuda"] = option("cpu", "Of PyTorch.")
    dtype: Literal["float32", "float64"] | None = option(None, "Of all computation; in float64 both backends write the same. By default "
                                                         "float32, or that of the run whose adapter it is.")
    cache: Literal["auto", "contiguous", "rolling", "paged", "int8", "nf4"] = option(
        "auto", "How keys and values are kept; auto: rolling where the model has a window, else contiguous.")
    seed: int = option(0, "Of what is drawn, and of random weights.")
    min_tokens: int | None = option(None, "No end of the text before so many tokens.")
    temperature: float | None = option(None, "0 takes the likeliest token; above it tokens are drawn, the more freely the higher.")
    top_k: int | None = option(None, "Draw from so many of the likeliest tokens only.")
    top_p: float | None = option(None, "From the fewest whose probabilities sum to it, in (0, 1].")
    min_p: float | None = option(None, "From those at least so many times as probable as the best, in [0, 1].")
    typical: float | None = option(None, "From those whose surprise is nearest to the expected one, up to this mass, in (0, 1].")
    repetition_penalty: float | None = option(None, "Logits of tokens that have occurred, in the prompt too, are divided by it if "
                                              "positive, else multiplied.")
    frequency_penalty: float | None = option(None, "Taken off a token's logit for every time that it was generated.")
    presence_penalty: float | None = option(None, "Taken off once if it was generated.")
    no_repeat_ngram: int | None = option(None, "No run of so many tokens comes twice.")
    ban: tuple[str, ...] | None = option(None, "Texts that never come, as they are tokenized at the beginning and behind a "
                                         "space.")
    stop: tuple[str, ...] | None = option(None, "Texts that what is written ends before.")
    beams: int | None = option(None, "Search along so many texts at once for the likeliest one.")
    n_best: int | None = option(None, "How many of the beams are told.")
    length_penalty: float | None = option(None, "Scores of beams are divided by their length to this power.")
    early_stopping: Literal["true", "false", "never"] | None = option(
        None, "When the search ends. true: with as many finished beams as there are beams; false: when none that runs is likely to be "
              "better; never: when none can be.")
    compare: bool = option(False, "Write with the base alone and with the adapter, one below the other.")
    json: bool = option(False, "Print one JSON object at the end: texts, tokens, scores, times.")
    expert_memory: str | None = option(None, "MixLoRA: how much of the experts is held in memory, 64MB say; the others are read when "
                                       "tokens need them. By default all that were needed once.")

    def __post_init__(self) -> None:
        size("generate", at_least=0, seed=self.seed)
        demand("generate", self.seed < 2**64, "seed < 2^64", seed=self.seed)
        demand("generate", self.backend == "torch" or self.device == "cpu", "--backend torch for another device than the CPU",
               backend=self.backend, device=self.device)
        demand("generate", not (self.compare and self.json), "--compare or --json, not both", compare=self.compare, json=self.json)
        demand("generate", all(self.ban or ()), "texts to ban that are not empty", ban=self.ban)

    def check(self, count: int | None) -> None:
        """Refuse what is wrong whatever the model's directory says, which may allow for more tokens, and for more beams."""
        room = GenerationConfig(max_new_tokens=max(GenerationConfig.max_new_tokens, self.min_tokens or 0), beams=max(self.n_best or 1, 1))
        self.over(room, count)

    def over(self, config: GenerationConfig, count: int | None) -> GenerationConfig:
        """The config, overruled by what is told here.

        What draws has one beam: a temperature takes the file's beams back, and beams its temperature.
        """
        told: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {"count": count}
        known = {field.name for field in dataclasses.fields(GenerationConfig)}
        given = {_OURS.get(name, name): value for name, value in told.items() if value is not None and _OURS.get(name, name) in known}
        if "early_stopping" in given:
            given["early_stopping"] = {"true": True, "false": False}.get(given["early_stopping"], "never")
        if given.get("beams", 1) > 1:
            given = dict(temperature=0.0, n_best=min(config.n_best, given["beams"])) | given
        elif "beams" in given or given.get("temperature", 0) > 0:
            given = _ONE_BEAM | given
        found = dataclasses.replace(config, **given)
        demand("generate", found.beams == 1 or found.temperature == 0, "temperature 0 with beams: a search draws nothing",
               beams=found.beams, temperature=found.temperature)
        demand("generate", found.beams == 1 or not found.stop, "one beam for texts to stop at", beams=found.beams, stop=found.stop)
        return found

    def idle(self, config: GenerationConfig) -> list[str]:
        """What is to be said of options that change nothing, as the text is chosen by `config`."""
        kinds = [(_DRAWS, config.temperature == 0, "draws, and without a --temperature the likeliest token is taken"),
                 (_SEARCHES, config.beams == 1, "searches, and there is one beam")]
        told = [(name, why) for names, off, why in kinds if off for name in names if getattr(self, name) is not None]
        return [f"--{name.replace('_', '-')} changes nothing: it is for what {why}" for name, why in told]
