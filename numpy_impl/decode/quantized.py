"""A cache in eight or four bits a number, the most recent tokens in full (after Liu et al. 2024, KIVI, arXiv:2402.02750)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, continues, follows, size
from numpy_impl.decode.cache import Held, Places
from numpy_impl.quantize.int8 import dequantize_int8_absmax, quantize_int8_absmax
from numpy_impl.quantize.nf4 import dequantize_nf4, quantize_nf4

_LEAST = 64  # tokens that there is room for at first

Where = tuple[NDArray, NDArray]  # (N,) rows and (N,) positions


class QuantizedStore:
    """x ≈ codes · absmax / 127 (int8), or absmax · level[code] (NF4), of keys and values older than a row's last `recent` tokens.

    Parameters
    ----------
    kind : str     "int8" or "nf4"
    recent : int   how many of a row's last tokens are held in full
    block : int    how many neighbours in a head's width share one absmax, at most: a width is cut into blocks of one even size.
                   None: a head's width is one block

    A number that is held in full is exact. One in codes is off by at most

        absmax / 254 (int8),        absmax · (1 − 0.6962) / 2 = 0.152 · absmax (NF4: half the largest gap between two levels),

    and by float32's rounding, where absmax is the largest magnitude of its block, so of one token and head. (An absmax below 4e-37 counts
    as 0 in int8.) If no number of the keys is off by more than ε, no score of a query q is by more than δ = ε · Σ|q|, times their
    scale, and no attention weight leaves its place between e^(−2δ) and e^(2δ) times what it was.

    A token is quantized by itself, once it has become old: how a text was cut into calls changes which tokens were old already at a call,
    and nothing else. When tokens are taken back, those in codes stay in codes. Every call brings all codes of its layer back to floats,
    for as long as it lasts: what is saved is memory, not time.

    Raises
    ------
    ValueError   if kind is none of the two, recent or block is no positive integer, a number that becomes old is not finite in float32, or
                 new tokens do not follow those that are held

    Examples
    --------
    >>> store, key = QuantizedStore(kind="int8", recent=2), np.array([[[[1.0, 0.3]], [[2.0, 0.3]]]]).reshape(1, 1, 2, 2)
    >>> for n in range(2):                                           # two tokens a time
    ...     held = store.append(key, key, Places(np.array([2 * n]), 2, None))
    >>> held.key[0, 0].round(4).tolist()                             # all are recent before the call, or new
    [[1.0, 0.3], [2.0, 0.3], [1.0, 0.3], [2.0, 0.3]]
    >>> store.append(key[:, :, :1], key[:, :, :1], Places(np.array([4]), 1, None)).key[0, 0].round(4).tolist()
    [[1.0, 0.2992], [2.0, 0.2992], [1.0, 0.3], [2.0, 0.3], [1.0, 0.3]]
    """

    def __init__(self, *, kind: Literal["int8", "nf4"], recent: int = 128, block: int | None = None):
        choice("QuantizedStore", ("int8", "nf4"), kind=kind)
        size("QuantizedStore", recent=recent)
        if block is not None:
            size("QuantizedStore", block=block)
        self.kind, self.recent, self.block = kind, int(recent), None if block is None else int(block)
        self.key: _Part | None = None
        self.value: _Part | None = None
        self.lengths: NDArray                                           # (B,)
        self.old: NDArray                                               # (B,) how many of each row's tokens are in codes

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def append(self, key: NDArray, value: NDArray, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of all, the old ones as their codes tell them."""
        if self.key is None:
            self.key, self.value = (_Part(new, self.kind, self.recent, self.block) for new in (key, value))
            self.lengths = self.old = places.starts
        follows("QuantizedStore", starts=places.starts, held=self.lengths)
        continues("QuantizedStore", key=(key, self.key.full), value=(value, self.value.full))
        old = np.maximum(self.old, places.lengths - self.recent)
        at = np.arange(places.longest)
        recalled, aging, staying = (                                    # row and position of each such token
            np.nonzero((at >= begin[:, None]) & (at < end[:, None]))
            for begin, end in ((self.old, places.starts), (self.old, old), (np.maximum(places.starts, old), places.lengths))
        )
        of, token = np.nonzero(np.ones(places.positions.shape, bool) if places.real is None else places.real)
        held = []
        for part, new in ((self.key, key), (self.value, value)):
            x = part.recall(places.longest, recalled)
            x[of, :, places.positions[of, token]] = new[of, :, token]
            part.age(x, aging)
            part.stay(x, staying)
            held.append(x)
        self.old, self.lengths = old, places.lengths
        return Held(held[0], held[1], None if places.start is not None else np.zeros(len(key), np.int64))

    def reorder(self, rows: NDArray) -> None:
        """Row n becomes what row rows[n] was."""
        if self.key is not None:
            self.key.reorder(rows)
            self.value.reorder(rows)
            self.old, self.lengths = self.old[rows], self.lengths[rows]

    def crop(self, lengths: NDArray) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it."""
        if self.key is not None:
            self.old, self.lengths = np.minimum(self.old, lengths), lengths


class _Part:
    """The keys, or the values: codes of the old tokens by position, and the full numbers of the last ones at position mod `recent`, where a
    new token takes the place of the one that has just become old."""

    def __init__(self, new: NDArray, kind: str, recent: int, block: int | None):
        b, k, _, e = new.shape
        self.kind, self.width = kind, e
        # The fewest blocks of at most `block` numbers, all of one size, which is even, as two codes of four bits share a byte.
        e = max(e, 1)
        blocks = -(-e // min(block or e, e))
        self.block = 2 * -(-e // (2 * blocks))
        self.padded = -(-self.width // self.block) * self.block
        self.full = np.zeros((b, k, recent, self.width), new.dtype)
        self.codes = np.zeros((b, k, 0, self.padded), np.int8) if kind == "int8" else np.zeros((b, k, 0, self.padded // 2), np.uint8)
        self.absmax = np.zeros((b, k, 0, self.padded // self.block), np.float32)

    @property
    def nbytes(self) -> int:
        return self.full.nbytes + self.codes.nbytes + self.absmax.nbytes

    def recall(self, longest: int, full: Where) -> NDArray:
        """(B, K, longest, E): what the codes say, and over it the full numbers of `full`."""
        self.codes, self.absmax = _room(self.codes, longest), _room(self.absmax, longest)
        codes, absmax = self.codes[:, :, :longest], self.absmax[:, :, :longest]
        blocks = (*absmax.shape, self.block)
        if self.kind == "int8":
            x = dequantize_int8_absmax(codes.reshape(blocks), absmax=absmax, dtype=self.full.dtype)
        else:
            x = dequantize_nf4(codes.ravel(), absmax=absmax.ravel(), shape=blocks, block=self.block, dtype=self.full.dtype)
        x = x.reshape(*absmax.shape[:3], self.padded)[..., : self.width]
        rows, at = full
        x[rows, :, at] = self.full[rows, :, at % self.full.shape[2]]
        return x

    def age(self, x: NDArray, where: Where) -> None:
        """Put the tokens there in codes."""
        rows, at = where
        tokens = np.zeros((len(rows), x.shape[1], self.padded), x.dtype)
        tokens[..., : self.width] = x[rows, :, at]                      # zeros in a block do not change its absmax
        if self.kind == "int8":
            codes, absmax = quantize_int8_absmax(tokens.reshape(*tokens.shape[:2], self.absmax.shape[-1], self.block))
        else:
            codes, absmax = quantize_nf4(tokens, block=self.block)
        self.codes[rows, :, at] = codes.reshape(*tokens.shape[:2], self.codes.shape[-1])
        self.absmax[rows, :, at] = absmax.reshape(*tokens.shape[:2], self.absmax.shape[-1])

    def stay(self, x: NDArray, where: Where) -> None:
        """Keep the tokens there in full."""
        rows, at = where
        self.full[rows, :, at % self.full.shape[2]] = x[rows, :, at]

    def reorder(self, rows: NDArray) -> None:
        self.codes, self.absmax, self.full = self.codes[rows], self.absmax[rows], self.full[rows]


def _room(array: NDArray, least: int) -> NDArray:
    """(B, K, room, C) with room for at least that many tokens: where there is less, for twice as many as before."""
    b, k, room, c = array.shape
    if room >= least:
        return array
    grown = np.zeros((b, k, max(least, 2 * room, _LEAST), c), array.dtype)
    grown[:, :, :room] = array
    return grown
