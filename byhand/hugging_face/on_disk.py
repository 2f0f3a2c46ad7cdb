"""Arrays of a safetensors file, read all at once or when they are wanted, one at a time: a checkpoint may be larger than memory."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from byhand.checks import choice, fail

NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
               "BOOL": "?"}
_LARGEST_HEADER = 100_000_000  # the format's own limit


class OnDisk:
    """One array of a file. What takes arrays takes it: `target[...] = on_disk` reads it, and bfloat16 becomes float32 on the way.
    `on_disk[3]` and `on_disk[3:5]`, along the first axis, are still on disk.

    Examples
    --------
    >>> import tempfile, safetensors.numpy
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = safetensors.numpy.save_file({"w": np.arange(3.0)}, folder + "/model.safetensors")
    ...     w = open_arrays(Path(folder, "model.safetensors"))["w"]
    ...     w.shape, np.asarray(w)
    ((3,), array([0., 1., 2.]))
    """

    def __init__(self, file: Path, kind: str, shape: tuple[int, ...], offset: int):
        self.shape, self.dtype = shape, np.dtype("<f4" if kind == "BF16" else NUMPY_TYPES[kind])
        self._file, self._kind, self._offset = file, kind, offset

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        count = math.prod(self.shape)
        array = np.fromfile(self._file, NUMPY_TYPES[self._kind], count, offset=self._offset).reshape(self.shape)
        array = _widened(array, self._kind)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __getitem__(self, rows: int | slice) -> "OnDisk":
        chosen = range(self.shape[0])[rows]                                 # an IndexError where there is no such row
        each = math.prod(self.shape[1:]) * np.dtype(NUMPY_TYPES[self._kind]).itemsize
        if isinstance(chosen, int):
            return OnDisk(self._file, self._kind, self.shape[1:], self._offset + chosen * each)
        if chosen.step != 1:
            raise IndexError(f"OnDisk needs rows that follow each other; got {rows}")
        return OnDisk(self._file, self._kind, (len(chosen), *self.shape[1:]), self._offset + chosen.start * each)


class Stacked:
    """Arrays of one shape, on disk or not, as one with an axis in front: `stacked[e]` is one of them, and `target[...] = stacked` reads one
    after the other.

    Examples
    --------
    >>> stacked = Stacked([np.zeros(3), np.ones(3)])
    >>> stacked.shape, stacked[1], np.asarray(stacked).sum()
    ((2, 3), array([1., 1., 1.]), np.float64(3.0))
    """

    def __init__(self, parts: Sequence[Any]):
        self.shape, self.dtype = (len(parts), *parts[0].shape), np.result_type(*(part.dtype for part in parts))
        self._parts = tuple(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        array = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for e, part in enumerate(self._parts):
            array[e] = part
        return array

    def __getitem__(self, e: int) -> Any:
        return self._parts[e]


def arrays_in(content: bytes, *, who: str, file: Path) -> dict[str, NDArray]:
    """The arrays of a safetensors file's content by name, bfloat16 as float32; `who` reads it, and speaks of `file` where it is damaged.

    Raises
    ------
    ValueError   if the content is cut short, no safetensors file's, or of a dtype that NumPy lacks

    Examples
    --------
    >>> import safetensors.numpy
    >>> arrays_in(safetensors.numpy.save({"w": np.arange(3.0)}), who="read", file=Path("w.safetensors"))
    {'w': array([0., 1., 2.])}
    """
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{who} needs a complete safetensors file; {file}: {error}") from error
    arrays = {}
    for name, entry in entries:
        choice(who, NUMPY_TYPES, **{f"{file}, {name} with a dtype": entry["dtype"]})
        array = np.frombuffer(entry["data"], NUMPY_TYPES[entry["dtype"]]).reshape(entry["shape"])
        arrays[name] = _widened(array, entry["dtype"])
    return arrays


def open_arrays(file: Path) -> dict[str, OnDisk]:
    """The arrays of a safetensors file by name, none of them read yet.

    Raises
    ------
    ValueError   if the file cannot be read, is cut short, or is no safetensors file
    """
    who = "load_hugging_face"
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                fail(who, f"a complete safetensors file in {file}", f"{size} bytes")
            entries = json.loads(opened.read(length))
        arrays = {}
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            choice(who, NUMPY_TYPES, **{f"{file}, {name} with a dtype": entry["dtype"]})
            shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                fail(who, f"a safetensors file in {file} whose sizes are integers >= 0", f"{name} of shape {shape} from {begin} to {end}")
            bytes_each = np.dtype(NUMPY_TYPES[entry["dtype"]]).itemsize
            whole = end - begin == bytes_each * math.prod(shape) and 8 + length + end <= size
            if not whole:
                fail(who, f"a complete safetensors file in {file}, which should hold {name} up to byte {8 + length + end}", f"{size} bytes")
            arrays[name] = OnDisk(file, entry["dtype"], shape, 8 + length + begin)
    except OSError as error:
        raise ValueError(f"{who} needs a file it can read; {file}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith(who):
            raise
        raise ValueError(f"{who} needs a safetensors file in {file}; {error}") from error
    return arrays


def _widened(array: NDArray, kind: str) -> NDArray:
    """bfloat16, which is the upper half of a float32, as one; everything else as it is."""
    return (array.astype("<u4") << 16).view("<f4") if kind == "BF16" else array
