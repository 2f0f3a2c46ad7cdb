"""Writing a model's arrays as safetensors: cast on the way, one array at a time, in one file or in shards with an index."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand, fail
from byhand.hugging_face.combined import stored_as
from byhand.hugging_face.files import INDEX, WEIGHTS
from byhand.run_directory import write_whole

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}       # ours -> the format's
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}
_PIECE = 1 << 20                                                                           # numbers cast at once


def write_arrays(directory: Path, arrays: Mapping[str, Any], *, dtype: str | None = None, max_shard: int | None = None) -> str:
    """Write model.safetensors, or where that would be larger than `max_shard`, model-00001-of-00003.safetensors … and their index, and
    remove what the directory held under such names before. Beside the arrays themselves, one of them is in memory at a time.

    Parameters
    ----------
    directory     it is there already
    arrays        of floats by name, in memory or on disk
    dtype         of the files: float32, float16, bfloat16 or float64; None: the one that all arrays have
    max_shard     bytes of arrays in one file at most; an array that is larger has a file of its own. None: one file

    Returns
    -------
    the dtype that was written

    Raises
    ------
    ValueError   if no dtype is given and the arrays have several, or a number is too large for the dtype
    """
    who = "save_hugging_face"
    kept = {stored_as(array) for array in arrays.values()}
    if dtype is None:
        demand(who, len(kept) == 1, "arrays of one dtype, or a dtype to write", dtypes=sorted(kept))
        dtype = kept.pop()
    choice(who, DTYPES, dtype=dtype)
    if max_shard is not None:
        demand(who, isinstance(max_shard, int) and max_shard > 0, "max_shard as a number of bytes", max_shard=max_shard)
    shards = _shards(arrays, _BYTES[dtype], max_shard)
    names = [WEIGHTS] if len(shards) == 1 else [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    parts = [directory / f".{name}.part" for name in names]
    try:
        for part, shard in zip(parts, shards, strict=True):
            with part.open("wb") as file:
                _write(file, {name: arrays[name] for name in shard}, dtype)
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        for part in parts:
            part.unlink(missing_ok=True)
        raise
    old = [WEIGHTS, INDEX, *(file.name for file in directory.glob("model-?????-of-?????.safetensors"))]
    for part, name in zip(parts, names, strict=True):
        os.replace(part, directory / name)
    if len(shards) > 1:
        count = sum(math.prod(array.shape) for array in arrays.values())
        index = {"metadata": {"total_parameters": count, "total_size": count * _BYTES[dtype]},
                 "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard}}
        write_whole(directory / INDEX, (json.dumps(index, indent=2, sort_keys=True) + "\n").encode())
        names.append(INDEX)
    for name in set(old) - set(names):
        (directory / name).unlink(missing_ok=True)
    return dtype


def _shards(arrays: Mapping[str, Any], each: int, most: int | None) -> list[list[str]]:
    """Which arrays share a file, in their order: a new one begins where the next array would make it too large."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, array in arrays.items():
        size = each * math.prod(array.shape)
        if most is not None and shards[-1] and filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write(file: BinaryIO, arrays: Mapping[str, Any], dtype: str) -> None:
    """The format: the length of the header, the header (JSON, padded with spaces), the arrays' bytes in its order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + _BYTES[dtype] * math.prod(array.shape)
        header[name] = {"dtype": DTYPES[dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)                                                        # so that every array lies at a multiple of 8
    file.write(len(text).to_bytes(8, "little") + text)
    for name, array in arrays.items():
        for piece in _pieces(np.asarray(array)):
            file.write(_cast(name, piece, dtype).tobytes())


def _pieces(array: NDArray) -> Iterator[NDArray]:
    """The numbers in C's order, some rows at a time."""
    if array.ndim < 2:
        array = array.reshape(1, -1) if array.size <= _PIECE else array
    rows = max(1, _PIECE // max(1, math.prod(array.shape[1:])))
    for start in range(0, array.shape[0], rows):
        yield np.ascontiguousarray(array[start : start + rows])


def _cast(name: str, piece: NDArray, dtype: str) -> NDArray:
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            cast = piece.astype(np.dtype(dtype).newbyteorder("<"), copy=False)
        _all_fit(name, piece, cast, dtype)
        return cast
    # The upper half of a float32, rounded to nearest, ties to even: adding 0x7FFF, and 1 where the last bit that stays is set, carries
    # into that half exactly where it must. A NaN would be carried too far: it keeps its upper half, and a bit that makes it a NaN still.
    full = piece.astype(np.float32, copy=False)
    bits = full.view(np.uint32)
    half = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    nan = np.isnan(full)
    half[nan] = (bits[nan] >> 16) | 0x40
    infinite = (half & 0x7FFF) == 0x7F80
    if (infinite & np.isfinite(full)).any():
        fail("save_hugging_face", f"numbers that {dtype} can hold in {name}", f"{np.abs(full[infinite]).max():.3g}")
    return half


def _all_fit(name: str, piece: NDArray, cast: NDArray, dtype: str) -> None:
    """What is finite stays finite."""
    if cast.dtype.itemsize < piece.dtype.itemsize:
        lost = np.isinf(cast) & np.isfinite(piece)
        if lost.any():
            fail("save_hugging_face", f"numbers that {dtype} can hold in {name}, at most {np.finfo(dtype).max:.5g}",
                 f"{np.abs(piece[lost]).max():.5g}")
