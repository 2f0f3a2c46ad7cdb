"""Arrays of a safetensors file, read all at once or when they are wanted, one at a time: a checkpoint may be larger than memory."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from byhand.checks import choice, demand, fail

NUMPY_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
               "BOOL": "?"}
_LARGEST_HEADER = 100_000_000  # the format's own limit
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x04")  # how torch.save and pickle begin


class OnDisk:
    """One array of a file, or a part of it. What takes arrays takes it: `target[...] = on_disk` reads it, and bfloat16 becomes float32 on
    the way; `read_into` does so without a second copy. `on_disk[3]`, `on_disk[..., 3:5]` and `on_disk.T` are still on disk.

    Each reading maps the file's pages and lets go of them afterwards.

    Examples
    --------
    >>> import tempfile, safetensors.numpy
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = safetensors.numpy.save_file({"w": np.arange(6.0).reshape(2, 3)}, folder + "/model.safetensors")
    ...     w = open_arrays(Path(folder, "model.safetensors"))["w"]
    ...     w.shape, w[1:].T.shape, np.array(w[1:].T)
    ((2, 3), (3, 1), array([[3.],
           [4.],
           [5.]]))
    """

    def __init__(self, file: Path, name: str, kind: str, shape: tuple[int, ...], offset: int, stamp: tuple[int, ...],
                 steps: tuple[Any, ...] = ()):
        self.file, self.name, self.kind, self.whole = file, name, kind, shape
        self._offset, self._stamp, self._steps = offset, stamp, steps
        self.dtype = np.dtype("f4" if kind == "BF16" else NUMPY_TYPES[kind])
        self.shape = self._walked(np.broadcast_to(np.empty((), "?"), shape)).shape       # NumPy says it, of an array of one byte

    def __getitem__(self, index: Any) -> "OnDisk":
        return OnDisk(self.file, self.name, self.kind, self.whole, self._offset, self._stamp, (*self._steps, index))

    @property
    def T(self) -> "OnDisk":
        return OnDisk(self.file, self.name, self.kind, self.whole, self._offset, self._stamp, (*self._steps, None))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        array = self._mapped()                                                           # read-only, and bfloat16's bits as integers
        if self.kind == "BF16":
            array = _widened(array, np.empty(self.shape, "f4"))
        array = array if dtype is None else array.astype(dtype, copy=False)
        return array.copy() if copy is not False and not array.flags.owndata else array   # memory of its own, whatever becomes of the file

    def read_into(self, target: NDArray) -> None:
        """target ← the array, cast, from the file straight into its place."""
        if self.kind == "BF16" and target.dtype == np.float32:
            _widened(self._mapped(), target)
        else:
            target[...] = self.__array__(copy=False)

    def _mapped(self) -> NDArray:
        raw = np.dtype(NUMPY_TYPES[self.kind])
        if not math.prod(self.whole):                                                    # of nothing there is no page to map
            return self._walked(np.empty(self.whole, raw))
        try:
            if _stamp(self.file) != self._stamp:
                raise ValueError("it has been written since")
            pages = np.memmap(self.file, raw, "r", self._offset, self.whole)
        except (OSError, ValueError) as error:
            raise ValueError(f"load_hugging_face needs {self.file} as it was opened, to read {self.name}; {error}") from error
        return self._walked(pages.view(np.ndarray))

    def _walked(self, array: NDArray) -> NDArray:
        for step in self._steps:
            array = array.T if step is None else array[step]
        return np.asarray(array)                                                         # a single number too


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
        arrays[name] = _widened(array, np.empty(array.shape, "f4")) if entry["dtype"] == "BF16" else array
    return arrays


def open_arrays(file: Path) -> dict[str, OnDisk]:
    """The arrays of a safetensors file by name, none of them read yet.

    Raises
    ------
    ValueError   if the file cannot be read, is cut short, or is no safetensors file
    """
    who = "load_hugging_face"
    try:
        stamp = _stamp(file)
        size = stamp[0]
        demand(who, file.is_file() or file.is_dir(), "a file on a disk, no pipe or device", file=str(file))       # opening one waits
        with file.open("rb") as opened:
            first = opened.read(8)
            length = int.from_bytes(first, "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                pickled = "a pickle, which is never read: loading one runs whatever code is in it"
                fail(who, f"a complete safetensors file in {file}", pickled if first.startswith(_PICKLES) else f"{size} bytes")
            entries = json.loads(opened.read(length), object_pairs_hook=_each_once)
        arrays, spans = {}, []
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
            arrays[name] = OnDisk(file, name, entry["dtype"], shape, 8 + length + begin, stamp)
            spans.append((begin, end, name))
        last = 0
        for begin, end, name in [*sorted(spans), (size - 8 - length, size, "the end of the file")]:     # as the format itself demands
            if begin != last:
                fail(who, f"arrays in {file} that lie one behind the other, and nothing else", f"{name} at byte {begin}, not {last}")
            last = end
    except OSError as error:
        raise ValueError(f"{who} needs a file it can read; {file}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        if isinstance(error, ValueError) and str(error).startswith(who):
            raise
        raise ValueError(f"{who} needs a safetensors file in {file}; {error}") from error
    return arrays


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What stands in braces, where no name may stand twice: which of the two arrays was meant?"""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values


def _stamp(file: Path) -> tuple[int, ...]:
    """Its size and what changes when it is written or replaced."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _widened(bits: NDArray, target: NDArray) -> NDArray:
    """target ← bfloat16's bits, the upper half of those of a float32, in their place."""
    np.left_shift(bits, 16, out=target.view(np.uint32), dtype=np.uint32)
    return target
