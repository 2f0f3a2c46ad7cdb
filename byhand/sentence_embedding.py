"""Sentence embeddings: texts -> tokens -> an encoder's hidden states -> one vector a text, by hand in NumPy or in PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, fail, size
from byhand.configs.bert import BertConfig
from byhand.filling import filled
from byhand.hugging_face.directory import hugging_face_kind, load_hugging_face
from byhand.hugging_face.files import file_in
from byhand.hugging_face.sentence_recipe import read_recipe, tokenizer_options
from byhand.model_source import model_class
from byhand.torch_device import torch_on

_OPS = {"cls": "cls_pool", "max": "max_pool", "mean": "mean_pool", "mean_sqrt_len_tokens": "mean_sqrt_len_pool",
        "weightedmean": "weighted_mean_pool", "lasttoken": "last_token_pool"}
_WHO = "embed"

Run = Callable[[NDArray, NDArray | None], NDArray]      # ids, mask (B, T) -> vectors (B, D)


class Embedded(NamedTuple):
    """vectors : (N, D), one for each text, equal ones for equal texts; tokens : how many were read, those of equal texts once; cut : the
    indices of texts that were too long."""

    vectors: NDArray
    tokens: int
    cut: list[int]


class SentenceEncoder:
    """vector = normalize(pool(Bert(tokens of the text)))  as the model's directory says; nothing is read from anywhere else.

    Parameters
    ----------
    path        the directory of a BERT or DistilBERT as Hugging Face's hub holds it, tokenizer.json included; what sentence-transformers
                writes beside it (modules.json, 1_Pooling/config.json, sentence_bert_config.json …) is obeyed
    backend     "numpy" or "torch"
    dtype       "float32" or "float64"
    device      of PyTorch
    pooling     one of POOLINGS in place of what the directory says; auto: as it says
    normalize   whether vectors are scaled to length 1; None: as the directory says

    Raises
    ------
    ValueError   if a file is missing or damaged, or the model is no encoder
    """

    def __init__(self, path: str | Path, *, backend: str = "numpy", dtype: str = "float32", device: str = "cpu", pooling: str = "auto",
                 normalize: bool | None = None):
        recipe = read_recipe(Path(path))
        self.poolings = recipe.poolings if pooling == "auto" else (pooling,)
        self.normalize = recipe.normalize if normalize is None else normalize
        self.prompts, self.stated = recipe.prompts, recipe.stated
        kind = hugging_face_kind(recipe.folder)
        demand(_WHO, kind.startswith("Bert"), f"an encoder, a BERT; {recipe.folder} holds another model", model=kind)
        config, state = load_hugging_face(recipe.folder, kind="Bert", lazily=True)
        assert isinstance(config, BertConfig)
        self.max_length = min(recipe.max_length or config.max_length, config.max_length)
        tokenizer = _open_tokenizer(recipe.folder, recipe.lower, self.max_length)
        marks = tokenizer.num_special_tokens_to_add(False)
        demand(_WHO, self.max_length > marks, f"room for a token between the {marks} that mark the ends of a text", length=self.max_length)
        self._tokenizer = tokenizer
        demand(_WHO, backend == "torch" or device == "cpu", "the torch backend for a device other than the CPU", device=device)
        make = _numpy if backend == "numpy" else _torch
        self._run = make(config, state, dtype, device, [_OPS[name] for name in self.poolings], self.normalize)

    def embed(self, texts: Sequence[str], *, batch: int = 32, prompt: str = "") -> Embedded:
        """A vector for each text, `prompt` before it; at most `batch` of them are computed at a time. What else is computed at that time
        changes a vector by rounding alone.

        Raises
        ------
        ValueError   if there is no text, one is no Unicode, or weights that are not finite make vectors that are not
        """
        size(_WHO, batch=batch)
        demand(_WHO, len(texts) > 0, "at least one text", texts=len(texts))
        for text in texts:
            demand(_WHO, not any("\ud800" <= letter <= "\udfff" for letter in text), "texts in Unicode", text=text)
        encodings = self._tokenizer.encode_batch([prompt + text for text in texts])
        cut = [i for i, encoding in enumerate(encodings) if encoding.overflowing]
        places: dict[tuple[int, ...], int] = {}                                 # the same tokens once, so that vectors are the same too
        place = [places.setdefault(tuple(encoding.ids), len(places)) for encoding in encodings]
        ids = list(places)
        parts = _shared_out([len(row) for row in ids], batch)
        found = [self._run(*_padded([ids[i] for i in part])) for part in parts]
        vectors = np.concatenate(found)
        demand(_WHO, bool(np.isfinite(vectors).all()), "weights that make finite vectors", vectors=vectors)
        vectors[np.concatenate(parts)] = vectors.copy()                         # back in the order of the texts
        return Embedded(vectors[place], sum(map(len, ids)), cut)


def _shared_out(lengths: Sequence[int], batch: int) -> list[list[int]]:
    """The texts' indices in batches, the longest first (where memory does not suffice, one learns it at once). No text is less than half as
    long as its batch, so that less than half of any batch is padding.

    Examples
    --------
    >>> _shared_out([9, 3, 8, 4, 5], 2)
    [[0, 2], [4, 3], [1]]
    """
    parts: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not parts or len(parts[-1]) == batch or 2 * lengths[i] < lengths[parts[-1][0]]:
            parts.append([])
        parts[-1].append(i)
    return parts


def _padded(rows: Sequence[Sequence[int]]) -> tuple[NDArray, NDArray | None]:
    """(ids, mask), both (B, T): 0 and False behind the end of what is shorter; no mask where nothing is."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = [i for row in rows for i in row]
    return ids, None if mask.all() else mask


def _numpy(config: BertConfig, state: Mapping[str, Any], dtype: str, device: str, poolings: list[str], normalize: bool) -> Run:
    from numpy_impl.ops import pooling
    from numpy_impl.ops.l2_normalize import l2_normalize

    model = filled(model_class(config, "numpy_impl", "Bert"), config, state, dtype=dtype)
    pools = [getattr(pooling, name) for name in poolings]

    def run(ids: NDArray, mask: NDArray | None) -> NDArray:
        h = model(ids, mask=mask)                                               # (B, T, D)
        y = np.concatenate([pool(h, mask=mask)[0] for pool in pools], -1)
        return l2_normalize(y)[0] if normalize else y

    return run


def _torch(config: BertConfig, state: Mapping[str, Any], dtype: str, device: str, poolings: list[str], normalize: bool) -> Run:
    torch = torch_on(_WHO, device)
    from torch_impl.ops import pooling
    from torch_impl.ops.l2_normalize import l2_normalize

    model = filled(model_class(config, "torch_impl", "Bert"), config, state, dtype=dtype, device=device)
    pools = [getattr(pooling, name) for name in poolings]

    def run(ids: NDArray, mask: NDArray | None) -> NDArray:
        there = None if mask is None else torch.from_numpy(mask).to(device)
        with torch.no_grad():
            h = model(torch.from_numpy(ids).to(device), mask=there, run="inference")
            y = torch.cat([pool(h, mask=there) for pool in pools], -1)
            return (l2_normalize(y) if normalize else y).cpu().numpy()

    return run


def _open_tokenizer(folder: Path, lower: bool, max_length: int) -> Any:
    file = file_in(_WHO, folder, "tokenizer.json")
    if not file.is_file():
        old = "vocab.txt is there: transformers writes one from it, AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        fail(_WHO, f"a tokenizer.json in {folder}", old if (folder / "vocab.txt").is_file() else "none")
    try:
        from tokenizers import Tokenizer, normalizers
    except ImportError as error:
        raise ValueError(f"{_WHO} needs the tokenizers library: pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except BaseException as error:  # on some malformed files the library panics with what is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(f"{_WHO} needs a whole tokenizer.json; {file}: {error}") from error
    values = tokenizer_options(folder)
    side = values.pop("truncation_side", "right")
    if isinstance(tokenizer.normalizer, normalizers.BertNormalizer):    # which transformers sets as tokenizer_config.json says
        own = {name: getattr(tokenizer.normalizer, name) for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")}
        tokenizer.normalizer = normalizers.BertNormalizer(**own | values)
    tokenizer.no_padding()                              # what the file says of these was of use to whoever wrote it
    tokenizer.enable_truncation(max_length, direction=side)
    if lower:
        before = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])
    return tokenizer
