"""Checkpoints: what a run needs to go on as if it had never stopped, in directories that are whole or not there.

A checkpoint is written under another name, forced to the disk, and then renamed, which is a single step: whenever a run is killed, the
directories with final names are whole, and the newest of them is the last one finished. Each holds a manifest with the SHA-256 of its
files, so that what a disk or a copy has spoilt since is refused, never loaded.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from byhand.checks import demand, fail, size
from byhand.manifest import digest, nothing_else, read_manifest, verify, write_manifest

_FORMAT = 1
_FINAL = re.compile(r"step-(\d{6}|[1-9]\d{6,})")
_LEFTOVER = re.compile(r"\.step-\d+\.(part|gone)")   # what is being written, what is being removed
_DTYPES = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16", "U32": "uint32", "I32": "int32",
           "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64"}  # the format's names, and NumPy's


class Checkpoint(NamedTuple):
    """A checkpoint read back.

    path : the directory
    step : the step it was saved after
    arrays : {file: {name: array}}, as they were given to `save`
    values : {file: what JSON makes of it}; tuples have become lists
    """

    path: Path
    step: int
    arrays: dict[str, dict[str, NDArray]]
    values: dict[str, Any]


def save(directory: str | os.PathLike, step: int, *, arrays: Mapping[str, Mapping[str, NDArray]], values: Mapping[str, Any] | None = None,
         keep: int = 2) -> Path:
    """Write the checkpoint ``directory/step-000100`` and remove all but the newest `keep`.

    One run at a time may write into `directory`. Arrays are written from where they lie; only those that are not contiguous are copied.

    Parameters
    ----------
    directory   of this run's checkpoints, made if there is none
    step        after which the run stands; above that of every checkpoint in `directory`
    arrays      {"weights": {"blocks.0.…": array}} becomes weights.safetensors; bits of any meaning (bfloat16, codes) go as uint16 or uint8
    values      {"progress": {"seed": 0}} becomes progress.json; anything JSON can hold, NaN and infinity too
    keep        how many checkpoints stay

    Raises
    ------
    ValueError   if a name, a dtype or a value cannot be saved, the step is not the newest, or the disk refuses; then the checkpoints
                 saved before are as they were

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as runs:
    ...     path = save(runs, 100, arrays={"weights": {"w": np.arange(3)}}, values={"progress": {"loss": 2.5}})
    ...     path.name, latest(runs) == path, load(path).arrays["weights"]["w"], load(path).values
    ('step-000100', True, array([0, 1, 2]), {'progress': {'loss': 2.5}})
    """
    who = "checkpoint.save"
    size(who, at_least=0, step=step)
    size(who, keep=keep)
    demand(who, isinstance(arrays, Mapping), "arrays as a dict of dicts by name", arrays=arrays)
    demand(who, isinstance(values or {}, Mapping), "values as a dict by name", values=values)
    for stem in (*arrays, *(values or {})):
        demand(who, isinstance(stem, str) and re.fullmatch(r"[\w-]+", stem) is not None, "names of letters, digits, - and _", name=stem)
    demand(who, "manifest" not in (values or {}), "another name for values: manifest.json tells what the files hold", name="manifest")
    texts = {f"{stem}.json": _text(who, stem, value) for stem, value in (values or {}).items()}
    groups = {f"{stem}.safetensors": _saveable(who, stem, group) for stem, group in arrays.items()}
    directory = Path(directory)
    with _named(who, directory):
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        before = _steps(directory)
        newest = before[-1][0] if before else -1
        demand(who, step > newest, f"a step after {newest}, the newest in {directory}", step=step)

        final = directory / f"step-{step:06d}"
        part = directory / f".{final.name}.part"
        part.mkdir()
        try:
            for name, text in texts.items():
                (part / name).write_bytes(text)
            for name, group in groups.items():
                safetensors.numpy.save_file(group, part / name, {"format": "pt"})  # so that PyTorch's readers take them
            for name in (*texts, *groups):
                _force(part / name)
            write_manifest(part, {name: digest(part / name) for name in (*texts, *groups)}, format=_FORMAT, step=int(step))
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        os.rename(part, final)                       # from here on it counts
        _force(directory)
        for _, old in before[: len(before) + 1 - keep]:
            gone = directory / f".{old.name}.gone"
            os.rename(old, gone)                     # half a directory never has a final name, when it goes neither
            shutil.rmtree(gone)
    return final


def latest(directory: str | os.PathLike) -> Path | None:
    """The newest checkpoint of a run, whole; None if there is none. What an interrupted `save` left is passed over.

    Raises
    ------
    ValueError   naming the file, if the newest checkpoint is damaged: its step was reached, and to go back further is not for a
                 program to decide
    """
    directory = Path(directory)
    with _named("checkpoint.latest", directory):
        steps = _steps(directory) if directory.exists() else []
    if not steps:
        return None
    path = steps[-1][1]
    try:
        _verified("checkpoint.latest", path)
    except ValueError as error:
        if not path.exists():                        # the run has gone on while we looked: there are newer ones
            return latest(directory)
        back = f"to go on from {steps[-2][1].name}" if len(steps) > 1 else "to begin anew"
        raise ValueError(f"{error} (remove {path} {back})") from error
    return path


def load(path: str | os.PathLike) -> Checkpoint:
    """Read the checkpoint in a directory after every file of it has been checked.

    Raises
    ------
    ValueError   naming the file that is missing, cut short, damaged, or none of the checkpoint's
    """
    who, path = "checkpoint.load", Path(path)
    manifest = _verified(who, path)
    arrays: dict[str, dict[str, NDArray]] = {}
    values: dict[str, Any] = {}
    try:
        for name in manifest["files"]:
            stem, _, kind = name.rpartition(".")
            if kind == "json":
                values[stem] = json.loads((path / name).read_bytes())
            else:
                arrays[stem] = _read(path / name)
    except (OSError, ValueError, LookupError) as error:
        raise ValueError(f"{who} needs {path / name} as it was written; {error}") from error
    return Checkpoint(path, manifest["step"], arrays, values)


def _verified(who: str, path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that is what it says."""
    found = _FINAL.fullmatch(path.name)
    manifest = read_manifest(who, path)
    demand(who, manifest.get("format") == _FORMAT, f"{path} in format {_FORMAT}", format=manifest.get("format"))
    same = found is None or manifest.get("step") == int(found[1])
    demand(who, isinstance(manifest.get("step"), int) and same, f"{path} to hold the step of its name", step=manifest.get("step"))
    verify(who, path, manifest["files"])
    nothing_else(who, path, manifest["files"])
    return manifest


def _steps(directory: Path) -> list[tuple[int, Path]]:
    """(step, path) of every checkpoint, the newest last."""
    found = ((_FINAL.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def _sweep(directory: Path) -> None:
    """Remove what interrupted writes and removals left."""
    for path in directory.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path)


def _saveable(who: str, stem: str, group: Mapping[str, NDArray]) -> dict[str, NDArray]:
    demand(who, isinstance(group, Mapping), f"{stem} as a dict of arrays by name", **{stem: group})
    for name, array in group.items():
        named = isinstance(name, str) and name != "__metadata__" and name.encode(errors="ignore").decode() == name
        demand(who, named, "names that UTF-8 can hold, and not __metadata__, which the format keeps for itself", name=name)
        good = isinstance(array, np.ndarray) and array.dtype.name in _DTYPES.values()
        demand(who, good, f"arrays of {', '.join(_DTYPES.values())}, by name", **{str(name): array})
    return {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in group.items()}  # the file is memory as it lies


def _read(path: Path) -> dict[str, NDArray]:
    """The arrays of a safetensors file that has been checked, each read to its place: mapping the file would hold everything twice."""
    arrays: dict[str, NDArray] = {}
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
        for name, entry in header.items():
            if name != "__metadata__":
                array = np.empty(entry["shape"], np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<"))
                file.seek(start + entry["data_offsets"][0])
                if file.readinto(array.reshape(-1).view("uint8").data) != array.nbytes:
                    raise ValueError(f"{name} is cut short")
                arrays[name] = array
    return arrays


def _text(who: str, stem: str, value: Any) -> bytes:
    try:
        text = json.dumps(value, indent=2)
        same = json.dumps(json.loads(text), indent=2) == text and _keyed_by_text(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{who} needs {stem} as what JSON can hold; {error}") from error
    if not same:
        fail(who, f"{stem} with text for keys, each once", repr(value))
    return (text + "\n").encode()


def _keyed_by_text(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _keyed_by_text(child) for key, child in value.items())
    return not isinstance(value, (list, tuple)) or all(map(_keyed_by_text, value))


def _force(path: Path) -> None:
    """Wait until a file, or a directory's names, are on the disk."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _named(who: str, directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{who} needs a directory it can use; {error.filename or directory}: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        raise ValueError(f"{who} needs a directory it can write to; {directory}: {error}") from error
