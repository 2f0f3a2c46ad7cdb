"""Every family of models that is read and written: whose config.json it is, and the maps of its configs and states, each both ways."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from byhand.checks import demand, fail
from byhand.configs.bert import BertConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.configs.t5 import T5Config
from byhand.hugging_face.bert import bert_from_hugging_face, bert_tied, bert_to_hugging_face
from byhand.hugging_face.bert_config import bert_config_from_hugging_face, bert_config_to_hugging_face, bert_kind
from byhand.hugging_face.gpt2 import (
    gpt2_config_from_hugging_face,
    gpt2_config_to_hugging_face,
    gpt2_from_hugging_face,
    gpt2_to_hugging_face,
)
from byhand.hugging_face.llama import (
    LLAMA_TYPES,
    llama_config_from_hugging_face,
    llama_config_to_hugging_face,
    llama_from_hugging_face,
    llama_to_hugging_face,
)
from byhand.hugging_face.mixtral import mixtral_from_hugging_face, mixtral_to_hugging_face
from byhand.hugging_face.mixtral_config import MIXTRAL_TYPES, mixtral_config_from_hugging_face, mixtral_config_to_hugging_face
from byhand.hugging_face.t5 import (
    t5_config_from_hugging_face,
    t5_config_to_hugging_face,
    t5_copies,
    t5_from_hugging_face,
    t5_to_hugging_face,
)


class Family(NamedTuple):
    """The maps of one family of models: of its configs and of its states, each both ways."""

    kinds: tuple[str, ...]                              # our classes; the first one is saved when none is named
    kind: Callable[[Mapping[str, Any]], str]            # the class that a config.json tells of
    read_config: Callable[[Mapping[str, Any]], Any]
    read_state: Callable[[Mapping[str, Any], Any, str], Mapping[str, Any]]
    write_config: Callable[[Any, str], dict[str, Any]]
    write_state: Callable[[Mapping[str, NDArray], Any, str], dict[str, NDArray]]
    copies: Callable[[Any], Iterable[str]]              # their names for arrays that stand in write_state's result under another name too


_GPT2 = Family(
    ("GPT2",), lambda values: "GPT2",
    gpt2_config_from_hugging_face, lambda state, config, kind: gpt2_from_hugging_face(state, config.n_layers),
    lambda config, kind: gpt2_config_to_hugging_face(config), lambda state, config, kind: gpt2_to_hugging_face(state),
    lambda config: ("lm_head.weight",),
)
_LLAMA = Family(
    ("Llama",), lambda values: "Llama",
    llama_config_from_hugging_face, lambda state, config, kind: llama_from_hugging_face(state, config),
    lambda config, kind: llama_config_to_hugging_face(config), lambda state, config, kind: llama_to_hugging_face(state, config),
    lambda config: ("lm_head.weight",) if config.tied else (),
)
_MIXTRAL = Family(
    ("Mixtral",), lambda values: "Mixtral",
    mixtral_config_from_hugging_face, lambda state, config, kind: mixtral_from_hugging_face(state, config),
    lambda config, kind: mixtral_config_to_hugging_face(config), lambda state, config, kind: mixtral_to_hugging_face(state, config),
    lambda config: ("lm_head.weight",) if config.tied else (),
)
_BERT = Family(
    ("BertMaskedLM", "BertSequenceClassifier", "BertTokenClassifier", "Bert"), bert_kind,
    bert_config_from_hugging_face, bert_from_hugging_face, bert_config_to_hugging_face, bert_to_hugging_face, bert_tied,
)
_T5 = Family(
    ("T5",), lambda values: "T5",
    t5_config_from_hugging_face, lambda state, config, kind: t5_from_hugging_face(state, config),
    lambda config, kind: t5_config_to_hugging_face(config), lambda state, config, kind: t5_to_hugging_face(state, config),
    t5_copies,
)
_BY_MODEL_TYPE = {"gpt2": _GPT2, "bert": _BERT, "distilbert": _BERT, "t5": _T5} | dict.fromkeys(LLAMA_TYPES, _LLAMA) | dict.fromkeys(
    MIXTRAL_TYPES, _MIXTRAL)
_BY_CONFIG: dict[type, Family] = {GPT2Config: _GPT2, LlamaConfig: _LLAMA, MixtralConfig: _MIXTRAL, BertConfig: _BERT, T5Config: _T5}


def family_told(who: str, path: Path, values: Mapping[str, Any]) -> Family:
    """The family of a directory's config.json.

    Raises
    ------
    ValueError   if it tells of a model of another family, or of weights in a form of their own
    """
    told = values.get("model_type")
    if not isinstance(told, str) or told not in _BY_MODEL_TYPE:
        near = difflib.get_close_matches(str(told), _BY_MODEL_TYPE, n=1, cutoff=0.75)
        fail(who, f"a model_type from {', '.join(map(repr, sorted(_BY_MODEL_TYPE)))} in {path / 'config.json'}",
             f"{told!r}" + (f" (did you mean {near[0]!r}?)" if near else "") + f", architectures {values.get('architectures')}")
    quantized = values.get("quantization_config")
    demand(who, not quantized, f"weights in floats in {path}", quantization_config=quantized)
    return _BY_MODEL_TYPE[str(told)]


def family_of(who: str, config: Any) -> Family:
    """The family of one of our configs.

    Raises
    ------
    ValueError   if transformers has no such models
    """
    demand(who, type(config) in _BY_CONFIG, "the config of a GPT-2, Llama, Mixtral, BERT or T5", config=config)
    return _BY_CONFIG[type(config)]
