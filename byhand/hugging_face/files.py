"""What a model's directory holds, looked at before any weight is read: JSON, whole safetensors files, and nothing that lies elsewhere.

Weights are only ever read from safetensors. A pickle (pytorch_model.bin, *.pt …) runs whatever code is in it when it is loaded: it is
refused, with how to convert it.
"""

import json
import os
from pathlib import Path
from typing import Any

from byhand.checks import demand, fail
from byhand.hugging_face.on_disk import OnDisk, open_arrays

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
CARRIED = (                                     # what belongs to a model beside its config and its weights
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt",
    "tokenizer.model", "spiece.model", "chat_template.jinja", "generation_config.json",
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
)
POOLING = "1_Pooling"                           # the directory in which sentence-transformers keeps a config of its own


def file_in(who: str, directory: Path, name: str) -> Path:
    """The path of a directory's file, which must lie there by its real path: no name and no link leads elsewhere. One kind of link is
    followed: those by which the cache of Hugging Face's hub shares its blobs, from models--X/snapshots/Y/ to models--X/blobs/.

    Raises
    ------
    ValueError   if it lies elsewhere
    """
    try:
        own = directory.resolve()
        real = (own / name).resolve()
        real.exists()
    except (OSError, RuntimeError, ValueError) as error:                # too long, a zero in it, no Unicode, links in a circle
        raise ValueError(f"{who} needs names of files in {directory}; got {name[:80]!r}: {error}") from error
    blobs = next((above.parent / "blobs" for above in own.parents if above.name == "snapshots"), own)
    if real.parent not in (own, blobs) or os.path.basename(name) != name:
        fail(who, f"files beside each other in {directory}, or in the blobs of a hub cache", f"{name!r}, which is {real}")
    return directory / name


def read_json(who: str, file: Path) -> dict[str, Any]:
    """The names and values in a JSON file.

    Raises
    ------
    ValueError   if it cannot be read, is no JSON, or something else than names and values
    """
    demand(who, file.is_file() or file.is_dir() or not file.exists(), "a file on a disk, no pipe or device", file=str(file))
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{who} needs a file it can read; {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{who} needs JSON in {file}; {error}") from error
    demand(who, isinstance(values, dict), f"names and values in {file}", content=values)
    return values


def arrays_of(who: str, directory: Path) -> dict[str, OnDisk]:
    """All arrays of a model's directory by their names, none of them read yet: from the one file, or from those that the index lists.

    Raises
    ------
    ValueError   if there are only pickles, a shard or an array is missing, a name leaves the directory, or a file is no whole safetensors
    """
    if (directory / WEIGHTS).exists():
        return dict(open_arrays(file_in(who, directory, WEIGHTS)))
    if not (directory / INDEX).exists():
        _no_weights(who, directory)
    index = file_in(who, directory, INDEX)
    places: Any = read_json(who, index).get("weight_map")
    sound = isinstance(places, dict) and all(isinstance(file, str) for file in places.values())
    demand(who, sound and bool(places), f"a weight_map in {index}, of arrays' names and files", weight_map=places)
    names = sorted(set(places.values()))
    for name in names:
        if name.endswith(PICKLED):
            refuse_pickle(who, directory / name)
        demand(who, name.endswith(".safetensors"), f"safetensors files in {index}", file=name)
    files = {name: file_in(who, directory, name) for name in names}
    gone = [name for name, file in files.items() if not file.is_file()]
    if gone:
        fail(who, f"every shard that {index} lists, {len(files)} files", f"a directory without {', '.join(gone)}")
    opened = {name: open_arrays(file) for name, file in files.items()}
    lost = sorted(f"{array} in {file}" for array, file in places.items() if array not in opened[file])
    if lost:
        fail(who, f"every array that {index} lists in its file", f"no {', no '.join(lost[:8])}" + " …" * (len(lost) > 8))
    arrays: dict[str, OnDisk] = {}
    for file, found in opened.items():
        again = sorted(arrays.keys() & found.keys())
        if again:
            fail(who, f"every array in one of the files that {index} lists", f"{again[0]} in {arrays[again[0]].file.name} and in {file}")
        arrays |= found
    return arrays


def refuse_pickle(who: str, file: Path) -> None:
    """Say that a pickle is not read, and how it becomes what is.

    Raises
    ------
    ValueError   always
    """
    directory = file.parent
    model = "AutoModel"
    if (directory / "config.json").is_file():
        architectures = read_json(who, directory / "config.json").get("architectures")
        if isinstance(architectures, list) and architectures and str(architectures[0]).isidentifier():
            model = str(architectures[0])
        how = f'    import transformers\n    transformers.{model}.from_pretrained("{directory}").save_pretrained("{directory}-safetensors")'
    else:
        how = ('    import torch, safetensors.torch\n'
               f'    safetensors.torch.save_file(torch.load("{file}", weights_only=True), "{file.with_suffix(".safetensors")}")')
    raise ValueError(f"{who} needs weights in safetensors files; {file} is a pickle, which is never read, since loading one runs whatever "
                     f"code is in it. Where you trust it, convert it in Python:\n{how}")


def _no_weights(who: str, directory: Path) -> None:
    pickles = sorted(file for file in directory.iterdir() if file.name.endswith((*PICKLED, ".bin.index.json")))
    if pickles:
        refuse_pickle(who, pickles[0])
    others = sorted(file.name for file in directory.glob("*.safetensors"))
    beside = f", only {', '.join(others[:4])}" if others else ""
    fail(who, f"{WEIGHTS}, or shards with {INDEX}, in {directory}", f"neither{beside}")
