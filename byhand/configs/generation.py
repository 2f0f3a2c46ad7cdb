"""How text is generated: when it ends, which tokens may come, how one is chosen; as one frozen value."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from byhand.checks import at_least, choice, demand, not_negative, positive, size
from byhand.configs.reading import from_dict


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """The settings of generation. Every default changes nothing: they are those of a greedy search.

    Parameters
    ----------
    max_new_tokens : int         how many tokens are generated at most
    min_new_tokens : int         the end token is excluded until so many have been generated
    temperature : float          T; 0 takes the best token, above it tokens are drawn from softmax(logits / T)
    top_k : int                  draw from the k most probable tokens only
    top_p : float                in (0, 1]: from the fewest tokens whose probabilities sum to p or more
    min_p : float                in [0, 1]: from those at least min_p times as probable as the best
    typical : float              in (0, 1]: from those whose surprise is nearest the entropy, up to this mass
    epsilon : float              in (0, 1): from those of at least this probability
    eta : float                  in (0, 1): the same with a bound that falls as the entropy rises
    repetition_penalty : float   the logits of tokens in the prompt or generated are divided by it where positive, else multiplied
    frequency_penalty : float    is taken off for every time that a token has been generated
    presence_penalty : float     is taken off once if a token has been generated
    no_repeat_ngram : int        no run of so many tokens comes twice; 0 for no such rule
    banned                       words, each a tuple of ids, that never come
    suppressed                   ids that never come
    forced_first : int           the id of the first token that is generated
    forced_last : int            the id of token max_new_tokens
    eos                          ids that end a sequence; a single one may stand for itself
    pad : int                    the id that stands behind the end; None leaves it to the search
    stop                         strings that end the text; a single one may stand for itself
    beams, groups : int          how many beams a search keeps, and in how many groups of one size
    diversity_penalty : float    is taken off for each beam of an earlier group that chose the same token at this step
    length_penalty : float       scores are divided by length ** length_penalty
    early_stopping               True: a search ends with as many finished beams as there are beams; False: when the best running one, at
                                 its present length, can no longer be better; "never": when none can at whatever length
    n_best : int                 how many beams are returned, at most `beams`

    None for an option means that there is no such rule. Lists become tuples.

    Raises
    ------
    ValueError   if a value is out of its range or of another kind, named

    Examples
    --------
    >>> GenerationConfig(temperature=0.7, top_p=0.9, eos=2).eos
    (2,)
    >>> GenerationConfig.from_hugging_face({"do_sample": True, "temperature": 0.6, "eos_token_id": [1, 2]}).top_k
    50
    """

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical: float | None = None
    epsilon: float | None = None
    eta: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram: int = 0
    banned: tuple[tuple[int, ...], ...] = ()
    suppressed: tuple[int, ...] = ()
    forced_first: int | None = None
    forced_last: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    stop: tuple[str, ...] = ()
    beams: int = 1
    groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    n_best: int = 1

    def __post_init__(self) -> None:
        who = "GenerationConfig"
        size(who, at_least=0, max_new_tokens=self.max_new_tokens, min_new_tokens=self.min_new_tokens, no_repeat_ngram=self.no_repeat_ngram)
        demand(who, self.min_new_tokens <= self.max_new_tokens, "min_new_tokens <= max_new_tokens",
               min_new_tokens=self.min_new_tokens, max_new_tokens=self.max_new_tokens)
        not_negative(who, temperature=self.temperature, diversity_penalty=self.diversity_penalty)
        positive(who, repetition_penalty=self.repetition_penalty)
        at_least(who, -1e30, frequency_penalty=self.frequency_penalty, presence_penalty=self.presence_penalty,
                 length_penalty=self.length_penalty)
        if self.top_k is not None:
            size(who, top_k=self.top_k)
        for name, interval in _BETWEEN.items():
            value = getattr(self, name)
            if value is not None:
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                inside = number and 0 <= value <= 1 and (value > 0 or "[" in interval) and (value < 1 or "]" in interval)
                demand(who, inside, f"{name} in {interval}", **{name: value})
        for name in ("forced_first", "forced_last", "pad"):
            if getattr(self, name) is not None:
                size(who, at_least=0, **{name: getattr(self, name)})
        object.__setattr__(self, "eos", _ids("eos", (self.eos,) if hasattr(self.eos, "__index__") else self.eos))
        object.__setattr__(self, "suppressed", _ids("suppressed", self.suppressed))
        demand(who, isinstance(self.banned, (tuple, list)), "banned as a tuple of words, each a tuple of ids", banned=self.banned)
        object.__setattr__(self, "banned", tuple(_ids("banned", word) for word in self.banned))
        demand(who, all(self.banned), "at least one id in every banned word", banned=self.banned)
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        strings = isinstance(stop, (tuple, list)) and all(isinstance(text, str) and text for text in stop)
        demand(who, strings, "stop as a tuple of strings, none of them empty", stop=self.stop)
        object.__setattr__(self, "stop", tuple(stop))
        size(who, beams=self.beams, groups=self.groups, n_best=self.n_best)
        demand(who, self.beams % self.groups == 0, "beams to be a multiple of groups", beams=self.beams, groups=self.groups)
        demand(who, self.groups > 1 or not self.diversity_penalty, "groups > 1 for a diversity_penalty",
               groups=self.groups, diversity_penalty=self.diversity_penalty)
        demand(who, self.n_best <= self.beams, "n_best <= beams", n_best=self.n_best, beams=self.beams)
        choice(who, (False, True, "never"), early_stopping=self.early_stopping)
        demand(who, isinstance(self.early_stopping, (bool, str)), "early_stopping as a flag or 'never'", early_stopping=self.early_stopping)
        for name in _WHOLE:                               # integers of NumPy's become Python's, as JSON needs them
            if getattr(self, name) is not None:
                object.__setattr__(self, name, int(getattr(self, name)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GenerationConfig":
        """The config that `dataclasses.asdict` turned into `values`; what is left out has its default, an unknown key is named."""
        demand(cls.__name__, isinstance(values, Mapping), "a dict of values by name", values=values)
        return from_dict(cls, values)

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any], *, prompt_length: int | None = None,
                          max_new_tokens: int | None = None) -> "GenerationConfig":
        """The config of a generation_config.json, as transformers (version 5) understands it.

        Without do_sample the temperature is 0. A top_k that is not given is 50, and counts once the temperature is above 0. max_length and
        min_length count the prompt: they are used if its length is told (1 for an encoder-decoder's start token) and max_new_tokens and
        min_new_tokens are not given; without it, max_length is passed over, and a min_length above 0 refused. `max_new_tokens` takes the
        place of what the file says, and the least number of tokens is not above it. A banned word that is an end token by itself is
        dropped. forced_bos_token_id becomes forced_first, and counts behind a prompt of one token alone. Keys that change which tokens
        come, and have no counterpart here, are refused; all others are passed over.
        """
        who = f"{cls.__name__}.from_hugging_face"
        demand(who, isinstance(values, Mapping), "a dict of values by name", values=values)
        said = {key: value for key, value in values.items() if value is not None}
        for key, neutral in _UNSUPPORTED.items():
            value = said.get(key, neutral)
            demand(who, value == neutral or not (value or neutral), f"no {key}, which is not supported", **{key: value})
        found = {ours: said[theirs] for theirs, ours in _NAMES.items() if theirs in said}
        found["temperature"] = found.get("temperature", 1.0) if said.get("do_sample") else 0.0
        found.setdefault("top_k", 50)
        for name, off in _OFF.items():
            if name in found and found[name] == off:
                del found[name]
        lengths = {name: said[name] for name in ("max_length", "min_length", "max_new_tokens", "min_new_tokens") if name in said}
        size(who, at_least=0, **lengths, prompt_length=prompt_length or 0)
        if max_new_tokens is not None:
            found["max_new_tokens"] = max_new_tokens
        if prompt_length is not None:
            if "max_length" in said:
                found.setdefault("max_new_tokens", said["max_length"] - prompt_length)
            found.setdefault("min_new_tokens", max(said.get("min_length", 0) - prompt_length, 0))
            if prompt_length != 1:
                found.pop("forced_first", None)
        demand(who, "min_new_tokens" in found or not said.get("min_length"), "a prompt_length, which min_length counts",
               min_length=said.get("min_length"))
        size(who, at_least=0, max_new_tokens=found.get("max_new_tokens", 0))
        found["min_new_tokens"] = min(found.get("min_new_tokens", 0), found.get("max_new_tokens", cls.max_new_tokens))
        last = found.get("forced_last")
        if isinstance(last, list):
            demand(who, len(last) == 1, "one forced_eos_token_id", forced_eos_token_id=last)
            found["forced_last"] = last[0]
        eos = _ids("eos", [found["eos"]] if hasattr(found.get("eos"), "__index__") else found.get("eos", ()))
        if isinstance(found.get("banned"), list):
            found["banned"] = [word for word in found["banned"] if word not in [[token] for token in eos]]
        return cls(**found)


_BETWEEN = {"top_p": "(0, 1]", "min_p": "[0, 1]", "typical": "(0, 1]", "epsilon": "(0, 1)", "eta": "(0, 1)"}
_WHOLE = ("max_new_tokens", "min_new_tokens", "no_repeat_ngram", "top_k", "forced_first", "forced_last", "pad", "beams", "groups", "n_best")
_NAMES = {
    "max_new_tokens": "max_new_tokens", "min_new_tokens": "min_new_tokens", "temperature": "temperature", "top_k": "top_k",
    "top_p": "top_p", "min_p": "min_p", "typical_p": "typical", "epsilon_cutoff": "epsilon", "eta_cutoff": "eta",
    "repetition_penalty": "repetition_penalty", "no_repeat_ngram_size": "no_repeat_ngram", "bad_words_ids": "banned",
    "suppress_tokens": "suppressed", "forced_bos_token_id": "forced_first", "forced_eos_token_id": "forced_last", "eos_token_id": "eos",
    "pad_token_id": "pad", "stop_strings": "stop", "num_beams": "beams", "num_beam_groups": "groups",
    "diversity_penalty": "diversity_penalty", "length_penalty": "length_penalty", "early_stopping": "early_stopping",
    "num_return_sequences": "n_best",
}
_OFF = {"top_k": 0, "top_p": 1.0, "typical": 1.0, "epsilon": 0.0, "eta": 0.0, "pad": -1}  # with which files say: no such rule
_UNSUPPORTED: dict[str, Any] = {                                               # and the value at which each does nothing
    "begin_suppress_tokens": None, "constraints": None, "dola_layers": None, "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0, "exponential_decay_length_penalty": None, "force_words_ids": None, "guidance_scale": 1.0,
    "max_time": None, "penalty_alpha": 0.0, "renormalize_logits": False, "sequence_bias": None, "token_healing": False,
    "top_h": None, "watermarking_config": None,
}


def _ids(name: str, value: Any) -> tuple[int, ...]:
    """A tuple or list of token ids, as a tuple."""
    demand("GenerationConfig", isinstance(value, (tuple, list)), f"{name} as a tuple of ids", **{name: value})
    for token in value:
        size("GenerationConfig", at_least=0, **{name: token})
    return tuple(int(token) for token in value)
