"""What sentence-transformers writes beside a model's weights: how texts become its input, and its output one vector a text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from byhand.checks import at_least, choice, demand, fail
from byhand.hugging_face.files import file_in, read_json

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")      # in the order in which several are joined
_FLAGS = {f"pooling_mode_{end}": name for end, name in (          # in files older than `pooling_mode`
    ("cls_token", "cls"), ("max_tokens", "max"), ("mean_tokens", "mean"), ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("weightedmean_tokens", "weightedmean"), ("lasttoken", "lasttoken"))}
_MODULES = ("Transformer", "Pooling", "Normalize")
_WHO = "embed"


class SentenceRecipe(NamedTuple):
    """folder : of config.json, the weights and the tokenizer; max_length : tokens of a text, those that mark its ends included, or None:
    what the model has positions for; lower : whether texts are read in lower case; poolings : whose results are joined; normalize : whether
    vectors have length 1; prompts : what is put before a text of the kinds "query", "document" and "" (any); stated : whether
    sentence-transformers wrote it, or it is what that assumes."""

    folder: Path
    max_length: int | None
    lower: bool
    poolings: tuple[str, ...]
    normalize: bool
    prompts: dict[str, str]
    stated: bool


def read_recipe(path: Path) -> SentenceRecipe:
    """The recipe in a directory, from modules.json and the files that it names; where there is none, the mean of BERT's output as it is.

    Raises
    ------
    ValueError   if a file is damaged, or asks for what is not built here: a dense layer behind the pooling, say
    """
    try:
        demand(_WHO, path.is_dir(), "the directory of a model", path=str(path))
        (path / "modules.json").exists()
    except OSError as error:                                                    # too long a name, or no leave to look
        raise ValueError(f"{_WHO} needs the directory of a model; {str(path)[:80]}: {error.strerror}") from error
    parts = _modules(path) if (path / "modules.json").is_file() else {"Transformer": path}
    folder = parts["Transformer"]
    limits = _json(folder / "sentence_bert_config.json")
    told = limits.get("max_seq_length")
    demand(_WHO, told is None or type(told) is int, f"max_length >= 1 in {folder / 'sentence_bert_config.json'}", max_seq_length=told)
    max_length = told or _json(folder / "tokenizer_config.json").get("model_max_length")
    if max_length is not None:
        at_least(_WHO, 1, max_length=max_length)
        max_length = int(max_length)                                            # "there is no limit" is written as 1e30
    poolings, with_prompt = _pooling(parts["Pooling"] / "config.json") if "Pooling" in parts else (("mean",), True)
    prompts = _prompts(path / "config_sentence_transformers.json")
    demand(_WHO, with_prompt or not any(prompts.values()), "a model that pools over its prompts too", include_prompt=with_prompt)
    return SentenceRecipe(folder, max_length, bool(limits.get("do_lower_case")), poolings, "Normalize" in parts, prompts,
                          (path / "modules.json").is_file())


def tokenizer_options(folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json says of how a BERT's texts are read, under the names of the tokenizers library; what it leaves out is as
    transformers' classes for BERT have it. They set tokenizer.json aside, unless tokenizer_class names another.

    Raises
    ------
    ValueError   if a value is none of those that it can have, or texts are padded on the left, where BERT's positions begin
    """
    file = folder / "tokenizer_config.json"
    values = _json(file)
    allowed: dict[str, tuple[str, tuple[Any, ...]]] = {
        "do_lower_case": ("lowercase", (True, False)), "strip_accents": ("strip_accents", (True, False)),
        "tokenize_chinese_chars": ("handle_chinese_chars", (True, False)), "truncation_side": ("truncation_side", ("right", "left")),
        "padding_side": ("padding_side", ("right",)),
    }
    told = {name: values[name] for name in allowed if values.get(name) is not None}
    for name, value in told.items():
        choice(_WHO, allowed[name][1], **{f"{file}, {name}": value})
    told.pop("padding_side", None)
    options = {allowed[name][0]: value for name, value in told.items()}
    if str(values.get("tokenizer_class", "BertTokenizer")).removesuffix("Fast") not in ("BertTokenizer", "DistilBertTokenizer"):
        return {name: value for name, value in options.items() if name == "truncation_side"}    # another class looks at no more
    return {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True} | options


def _modules(path: Path) -> dict[str, Path]:
    """kind -> its folder: a Transformer, a Pooling and perhaps a Normalize, in this order."""
    file = path / "modules.json"
    try:
        entries = json.loads(file_in(_WHO, path, file.name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{_WHO} needs JSON in {file}; {error}") from error
    demand(_WHO, isinstance(entries, list), f"a list in {file}", content=entries)
    found: dict[str, Path] = {}
    for entry in entries:
        told = isinstance(entry, dict) and isinstance(entry.get("type"), str) and isinstance(entry.get("path"), str)
        demand(_WHO, told, f"a type and a path for every module in {file}", module=entry)
        kind = entry["type"].rpartition(".")[2]
        choice(_WHO, _MODULES, **{f"{file} with modules": kind})
        folder = (path / entry["path"]).resolve()
        demand(_WHO, folder.is_relative_to(path.resolve()), f"paths in {file} that stay in the directory", path=entry["path"])
        demand(_WHO, kind not in found, f"one {kind} in {file}", modules=[e["type"] for e in entries])
        found[kind] = folder
    if list(found) not in (list(_MODULES[:2]), list(_MODULES)):
        fail(_WHO, f"a Transformer, a Pooling and perhaps a Normalize, in this order, in {file}", ", ".join(found) or "nothing")
    return found


def _pooling(file: Path) -> tuple[tuple[str, ...], bool]:
    """(the poolings, whether they take in the tokens of a prompt)."""
    values = read_json(_WHO, file_in(_WHO, file.parent, file.name))
    modes = values.get("pooling_mode") or [name for flag, name in _FLAGS.items() if values.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    demand(_WHO, isinstance(modes, list), f"a pooling_mode or several in {file}", pooling_mode=modes)
    for mode in modes:
        choice(_WHO, POOLINGS, **{f"{file}, pooling_mode": mode})
    return tuple(modes), bool(values.get("include_prompt", True))


def _prompts(file: Path) -> dict[str, str]:
    """What is put before a query, before a text that queries are compared with, and before a text of which neither is known."""
    values = _json(file)
    named, default = values.get("prompts") or {}, values.get("default_prompt_name")
    told = isinstance(named, Mapping) and all(isinstance(text, (str, type(None))) for text in named.values())
    demand(_WHO, told, f"prompts by name in {file}", prompts=named)
    if default is not None:
        choice(_WHO, sorted(named), **{f"{file}, default_prompt_name": default})
    return {"query": named.get("query") or "", "document": named.get("document") or "", "": named.get(default) or ""}


def _json(file: Path) -> dict[str, Any]:
    """What a file holds that may be missing."""
    return read_json(_WHO, file_in(_WHO, file.parent, file.name)) if file.exists() else {}
