"""Where a run leaves what it made: the configuration, the metrics, the figure, the weights.

Whatever must be whole is written beside its place, forced to the disk and then moved there in one step, so that a run killed at any
moment leaves the last complete file. Metrics are lines that are flushed one by one: only the last can be cut short.
"""

import datetime
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from byhand.checks import demand


class RunDirectory:
    """A new directory for one run: `runs/NAME-TIMESTAMP`, or `out`.

    ``config.json`` the resolved configuration, ``about.json`` what it met (text, model, versions), ``metrics.jsonl`` a line a step,
    ``NAME.safetensors`` weights, and whatever figure is drawn into it.

    Raises
    ------
    ValueError   if `out` already holds a run, or the directory cannot be made
    """

    def __init__(self, name: str, *, out: str | os.PathLike | None = None, root: str | os.PathLike = "runs"):
        try:
            self.path = _fresh(Path(root), name) if out is None else _claimed(Path(out))
            self._metrics = (self.path / "metrics.jsonl").open("x", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"RunDirectory needs a directory it can write to; {error.filename}: {error.strerror}") from error

    @classmethod
    def reopen(cls, path: str | os.PathLike, keep: Callable[[Mapping[str, Any]], bool]) -> "RunDirectory":
        """A directory that holds a run already, to go on with it; of its metrics those lines stay for which `keep` holds.

        Raises
        ------
        ValueError   if it holds none, or cannot be written to
        """
        run = object.__new__(cls)
        run.path = Path(path)
        demand("RunDirectory", (run.path / "metrics.jsonl").is_file(), "a directory with the metrics of a run", path=str(path))
        lines = [json.dumps(record) for record in cls.metrics(run.path) if keep(record)]
        try:
            write_whole(run.path / "metrics.jsonl", "".join(line + "\n" for line in lines).encode())
            run._metrics = (run.path / "metrics.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"RunDirectory needs a directory it can write to; {error.filename}: {error.strerror}") from error
        return run

    @staticmethod
    def metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
        """The records of a run, a line each; a last line that was cut short is passed over."""
        records = []
        for line in (Path(path) / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return records

    @staticmethod
    def read(file: str | os.PathLike) -> dict[str, Any]:
        """What `describe` wrote.

        Raises
        ------
        ValueError   if it cannot be read, or is no JSON
        """
        try:
            return json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"RunDirectory needs JSON that it can read; {file}: {error}") from error

    def describe(self, name: str, content: Mapping[str, Any]) -> None:
        """Write `name`.json."""
        write_whole(self.path / f"{name}.json", (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())

    def log(self, **record: Any) -> None:
        """Append one line of metrics; NaN and infinity, for which JSON has no word, become null."""
        finite = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()}
        self._metrics.write(json.dumps(finite) + "\n")
        self._metrics.flush()

    def force(self) -> None:
        """Wait until all metrics are on the disk, which survive a power cut then."""
        os.fsync(self._metrics.fileno())

    def save(self, name: str, state: Mapping[str, NDArray], **about: Any) -> Path:
        """Write weights as `name`.safetensors; `about` (a step, a loss) goes into its header."""
        return save_weights(self.path / f"{name}.safetensors", state, **about)

    def close(self) -> None:
        """No more metrics."""
        self._metrics.close()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def save_weights(path: str | os.PathLike, state: Mapping[str, NDArray], **about: Any) -> Path:
    """Write arrays by name as safetensors, whole or not at all; `about` goes into the header as text."""
    arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}  # the format writes memory as it lies
    write_whole(Path(path), safetensors.numpy.save(arrays, {name: str(value) for name, value in about.items()}))
    return Path(path)


def load_weights(path: str | os.PathLike) -> dict[str, NDArray]:
    """The arrays of a safetensors file by name.

    Raises
    ------
    ValueError   if there is no such file, or it is cut short or something else
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"load_weights needs a file of weights; {path}: {error.strerror}") from error
    try:
        return safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"load_weights needs a complete safetensors file; {path} {_complaint(content)} ({error})") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at every moment its place holds the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.part")  # in the same directory: a move within one file system is a single step
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())                   # the content must be on the disk before the name points to it
    os.replace(beside, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)                      # and so must the name
        finally:
            os.close(folder)


def _complaint(content: bytes) -> str:
    """How a file that is not whole safetensors falls short: its header says how long it should be."""
    if len(content) < 8:
        return f"is cut short: {len(content)} bytes, fewer than the 8 with which the format begins"
    header = int.from_bytes(content[:8], "little")
    if header > 100_000_000:                      # the format's own limit
        return "is something else"
    if 8 + header > len(content):
        return f"is cut short: its header alone has {header} bytes, the file {len(content)}"
    try:
        entries = json.loads(content[8 : 8 + header])
        length = 8 + header + max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return "is something else"
    return f"is cut short: it should have {length} bytes, and has {len(content)}" if length > len(content) else "is damaged"


def _fresh(root: Path, name: str) -> Path:
    stem = f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    root.mkdir(parents=True, exist_ok=True)
    count = 1
    while True:
        path = root / (stem if count == 1 else f"{stem}-{count}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            count += 1


def _claimed(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if (path / "metrics.jsonl").exists():
        raise ValueError(f"RunDirectory needs a directory without a run; {path} already holds one")
    return path
