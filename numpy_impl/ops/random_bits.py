"""Random bits from a counter: Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC '11)."""

import math

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, inside, size
from byhand.noise import Noise

_MULTIPLIERS = np.array([[0xCD9E8D57], [0xD2511F53]], dtype=np.uint64)  # M1, which makes the new first pair, then M0
_WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], dtype=np.uint64)         # ⌊2³²·(golden ratio − 1)⌋ and ⌊2³²·(√3 − 1)⌋
_ROUNDS = 10
_BLOCKS = 16384  # counters worked on together: what they touch stays in the processor's cache


def random_bits(noise: Noise, shape: tuple[int, ...], *, part: tuple[tuple[int, int], ...] | None = None) -> NDArray:
    """bits[i] = word i mod 4 of Philox(counter = (⌊i / 4⌋, *noise.counter), key = noise.key),  i counting the entries in C order.

    A cipher in place of a state: the counter is encrypted, and every entry can be had without those before it.

    Parameters
    ----------
    noise : Noise                   which stream
    shape : tuple of int            any shape of at most 2³⁴ entries, 4 for each of the 2³² values of the first counter word
    part : tuple of (start, stop)   one an axis: make these entries of the array of `shape` and no others; everything by default

    Returns
    -------
    bits : uint32 of `shape` (or the part's)
        independent and uniform on [0, 2³²); the same bits from the torch twin and on every device

    Raises
    ------
    ValueError   if noise is not a Noise, a size is negative, there are more than 2³⁴ entries, or the part does not lie inside

    Examples
    --------
    >>> random_bits(Noise(seed=0), (4,)).tolist() == [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]
    True
    >>> bool((random_bits(Noise(seed=0), (2, 3)).ravel() == random_bits(Noise(seed=0), (6,))).all())
    True
    >>> whole, part = random_bits(Noise(seed=0), (5, 9)), random_bits(Noise(seed=0), (5, 9), part=((2, 4), (3, 8)))
    >>> bool((part == whole[2:4, 3:8]).all())
    True
    """
    demand("random_bits", isinstance(noise, Noise), "noise as a byhand.noise.Noise", noise=noise)
    demand("random_bits", isinstance(shape, (tuple, list)), "shape as a tuple of sizes", shape=shape)
    for n in shape:
        size("random_bits", at_least=0, shape=n)
    count = math.prod(shape)
    demand("random_bits", count <= 1 << 34, "a shape of at most 2^34 entries", shape=shape)
    inside("random_bits", shape, part=part)

    starts = np.zeros(1, dtype=np.int64)              # where rows begin, all entries being counted through
    if not part:
        return _words(noise, starts, count).reshape(shape)
    *outer, (first, last) = part
    for (start, stop), n in zip(outer, shape[1:], strict=True):
        starts = ((starts[:, None] + np.arange(start, stop)) * n).ravel()
    return _words(noise, starts + first, last - first).reshape([stop - start for start, stop in part])


def _words(noise: Noise, starts: NDArray, length: int) -> NDArray:
    """(N, length): the words of N runs of entries, run r being entries starts[r], starts[r] + 1, …"""
    skipped = starts % 4                              # words of its first counter that are not a run's own
    blocks = (length + 6) // 4                        # counters enough wherever in its first one a run begins
    counters = ((starts // 4).astype(np.uint64)[:, None] + np.arange(blocks, dtype=np.uint64)).ravel()
    c1, c2, c3 = noise.counter
    words = np.empty((len(counters), 4), dtype=np.uint32)
    for start in range(0, len(counters), _BLOCKS):
        out = words[start:start + _BLOCKS]
        pairs = np.empty((2, len(out)), dtype=np.uint64)
        np.left_shift(counters[start:start + _BLOCKS], 32, out=pairs[0])
        pairs[0] |= c1
        pairs[1] = c2 << 32 | c3
        _encrypt(pairs, noise.key)
        out[:, 1], out[:, 3] = pairs                 # uint32 keeps the lower words, c1 and c3
        pairs >>= 32
        out[:, 0], out[:, 2] = pairs                 # the upper ones, c0 and c2
    words = words.reshape(len(starts), 4 * blocks)
    if not skipped.any():
        return words[:, :length]
    bits = np.empty((len(starts), length), dtype=np.uint32)
    for count in range(4):
        runs = skipped == count
        bits[runs] = words[runs, count:count + length]
    return bits


def _encrypt(pairs: NDArray, key: tuple[int, int]) -> None:
    """Ten rounds of Philox in place, on N counters as two rows of 64-bit pairs, c0·2³² + c1 and c2·2³² + c3.

    With hi and lo the halves of a 64-bit product, a round is

        (c0, c1, c2, c3)  ->  (hi(M1·c2) ⊕ c1 ⊕ k0,  lo(M1·c2),  hi(M0·c0) ⊕ c3 ⊕ k1,  lo(M0·c0)).

    Look at the new first pair: it is the whole product M1·c2, only that c1 ⊕ k0 is added (⊕) to its upper half. So a product is never
    taken apart: pair' = product ⊕ ((pair ⊕ k) · 2³²), and the shift drops the old upper word by itself.
    """
    keys = np.array(key, dtype=np.uint64)[:, None]
    products = np.empty_like(pairs)
    for _ in range(_ROUNDS):
        np.right_shift(pairs[::-1], 32, out=products)    # c2 in the first row, c0 in the second
        products *= _MULTIPLIERS
        pairs ^= keys
        pairs <<= 32
        pairs ^= products
        keys = (keys + _WEYL) & 0xFFFFFFFF               # the key moves on by itself, modulo 2³²
