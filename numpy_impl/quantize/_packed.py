"""Blocks of 4-bit codes, two to a byte: what NF4 and FP4 share. Both differ only in their sixteen levels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import choice, demand, floats, given, of_dtype, same_shape, size

_CHUNK = 32768                        # pairs of values worked on together: they stay in the processor's cache
_MAGNITUDE = np.uint32(0x7FFFFFFF)    # all bits of a float32 but its sign
_TINY = np.float32(1e-38)             # what a block is divided by at least: 1 / 1e-38 is still finite


class FourBit(NamedTuple):
    """N numbers in blocks.

    codes : (⌈N/2⌉,) uint8          two 4-bit codes a byte, the first in the high half; an odd N ends with the code of 0
    absmax : (⌈N/block⌉,) float32   the largest magnitude of each block
    """

    codes: NDArray
    absmax: NDArray


def pack(who: str, x: NDArray, *, block: int, levels: NDArray, codes_of: NDArray | None = None) -> FourBit:
    """rank[i] = the number of midpoints below x[i] / absmax: that of the nearest of the ascending `levels`, the lower one at a tie.

    The ranks are the codes, unless `codes_of` (256,) holds a byte of two codes for each byte of two ranks.
    """
    given(who, x=x)
    floats(who, x=x)
    size(who, block=block)
    with np.errstate(over="ignore"):                  # what is too large for float32 becomes infinite, and is refused as such
        flat = x.astype(np.float32, copy=False).ravel()
    midpoints = (levels[:-1] + levels[1:]) / 2
    codes = np.empty(-(-flat.size // 2), dtype=np.uint8)
    absmax = np.empty(-(-flat.size // block), dtype=np.float32)
    step = _step(block)
    for start in range(0, flat.size, step):
        part = flat[start:start + step]
        largest = _absmax(part, block)
        demand(who, bool(np.isfinite(largest).all()), "x finite in float32", x=x)
        scaled = _scale(part, largest, block)
        absmax[start // block:][:largest.size] = largest
        ranks = _pairs_of_ranks(scaled, midpoints)
        codes[start // 2:][:ranks.size] = ranks if codes_of is None else codes_of.take(ranks)
    return FourBit(codes, absmax)


def _step(block: int) -> int:
    """How many values make a chunk: whole blocks and, because their number is even, whole bytes."""
    return 2 * block * -(-_CHUNK // block)


def _absmax(x: NDArray, block: int) -> NDArray:
    """(⌈N/block⌉,): max|x| of each block. That of a ragged block at the end is never below 1e-38: so bitsandbytes stores it."""
    whole = x.size // block * block
    largest = _largest(x[:whole].reshape(-1, block))
    return np.append(largest, np.maximum(_largest(x[None, whole:]), _TINY)) if whole < x.size else largest


def _largest(rows: NDArray) -> NDArray:
    """max|row| of every row: magnitudes are ordered as their bits are, NaN above all, and NumPy compares integers three times as fast."""
    return (rows.view(np.uint32) & _MAGNITUDE).max(1).view(np.float32)


def _scale(x: NDArray, absmax: NDArray, block: int) -> NDArray:
    """x / absmax, with a zero behind an odd number of values.

    Full blocks are multiplied by the reciprocal of absmax, which rounds twice, and a ragged one is divided, which rounds once: this
    decides a code now and then, and is what bitsandbytes does.
    """
    scaled = np.zeros(x.size + x.size % 2, dtype=np.float32)
    blocks = x.size // block
    whole = blocks * block
    reciprocal = 1 / np.maximum(absmax[:blocks, None], _TINY)
    np.multiply(x[:whole].reshape(-1, block), reciprocal, out=scaled[:whole].reshape(-1, block))
    np.divide(x[whole:], absmax[blocks:], out=scaled[whole:x.size])
    return scaled


def _pairs_of_ranks(scaled: NDArray, midpoints: NDArray) -> NDArray:
    """16 · rank[2i] + rank[2i + 1], a rank being the number of midpoints below a value.

    Fifteen comparisons that only ever touch the cache are several times faster than a binary search for every value.
    """
    ranks, above = np.zeros(scaled.size, dtype=np.uint8), np.empty(scaled.size, dtype=bool)
    for midpoint in midpoints:
        np.greater(scaled, midpoint, out=above)
        ranks += above.view(np.uint8)
    pairs = ranks.view("<u2")                         # rank[2i] + 256 · rank[2i + 1]
    return (pairs << 4 | pairs >> 8).astype(np.uint8)  # which keeps the lower eight bits


def both_halves(levels: NDArray) -> NDArray:
    """(256,) complex64: for each byte the two levels it stands for, as the halves of one 8-byte item, so that one look-up finds both."""
    return np.stack([np.repeat(levels, 16), np.tile(levels, 16)], axis=1).view(np.complex64)[:, 0]


def unpack(who: str, codes: NDArray, *, absmax: NDArray, shape: Sequence[int], block: int, dtype: DTypeLike, pairs: NDArray) -> NDArray:
    """x[i] = absmax of i's block · level of code[i], computed in float32."""
    size(who, block=block)
    demand(who, isinstance(shape, (tuple, list)), "shape as a tuple of sizes", shape=shape)
    for n in shape:
        size(who, at_least=0, shape=n)
    choice(who, ("float32", "float64"), dtype=np.dtype(dtype).name)
    count = math.prod(shape)
    given(who, codes=codes, absmax=absmax)
    floats(who, absmax=absmax)
    of_dtype(who, "uint8", codes=codes)
    same_shape(who, (-(-count // 2),), codes=codes)
    same_shape(who, (-(-count // block),), absmax=absmax)

    scales = absmax.astype(np.float32, copy=False)
    x = np.empty(count + count % 2, dtype=np.float32)
    step = _step(block)
    for start in range(0, count, step):
        part = x[start:start + step]
        pairs.take(codes[start // 2:][:part.size // 2], out=part.view(np.complex64), mode="clip")
        mine = scales[start // block:]
        part = x[start:min(start + step, count)]
        whole = part.size // block * block
        full = part[:whole].reshape(-1, block)
        full *= mine[:len(full), None]
        part[whole:] *= mine[len(full):][:1]
    return x[:count].reshape(shape).astype(dtype, copy=False)
