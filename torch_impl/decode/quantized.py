"""A cache in eight or four bits a number, the most recent tokens in full (after Liu et al. 2024, KIVI, arXiv:2402.02750)."""

from typing import Literal

import torch
from torch import Tensor

from byhand.checks import choice, continues, follows, size
from torch_impl.decode.cache import Held, Places
from torch_impl.quantize.int8 import dequantize_int8_absmax, quantize_int8_absmax
from torch_impl.quantize.nf4 import dequantize_nf4, quantize_nf4

_LEAST = 64  # tokens that there is room for at first

Where = tuple[Tensor, Tensor]  # (N,) rows and (N,) positions


class QuantizedStore:
    """x ≈ codes · absmax / 127 (int8), or absmax · level[code] (NF4), of keys and values older than a row's last `recent` tokens.

    kind is "int8" or "nf4"; `block` neighbours in a head's width share one absmax (None: all of them). A number in codes is off by at most
    absmax / 254, or 0.152 · absmax, and by the rounding of the dtype of the keys, in bfloat16 as much again; a recent one is exact.
    """

    def __init__(self, *, kind: Literal["int8", "nf4"], recent: int = 128, block: int | None = None):
        choice("QuantizedStore", ("int8", "nf4"), kind=kind)
        size("QuantizedStore", recent=recent)
        if block is not None:
            size("QuantizedStore", block=block)
        self.kind, self.recent, self.block = kind, int(recent), None if block is None else int(block)
        self.key: _Part | None = None
        self.value: _Part | None = None
        self.lengths: Tensor  # (B,) on the CPU
        self.old: Tensor  # (B,) how many of each row's tokens are in codes; on the CPU

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def append(self, key: Tensor, value: Tensor, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of all, the old ones as their codes tell them."""
        if self.key is None:
            self.key, self.value = (_Part(new, self.kind, self.recent, self.block) for new in (key, value))
            self.lengths = self.old = places.starts
        follows("QuantizedStore", starts=places.starts, held=self.lengths)
        continues("QuantizedStore", key=(key, self.key.full), value=(value, self.value.full))
        old = torch.maximum(self.old, places.lengths - self.recent)
        at = torch.arange(places.longest)
        recalled, aging, staying = (
            _there((at >= begin[:, None]) & (at < end[:, None]), key.device)
            for begin, end in ((self.old, places.starts), (self.old, old), (torch.maximum(places.starts, old), places.lengths))
        )
        told = torch.ones(places.positions.shape, dtype=torch.bool, device=key.device) if places.real is None else places.real
        of, token = told.nonzero(as_tuple=True)
        held = []
        for part, new in ((self.key, key), (self.value, value)):
            x = part.recall(places.longest, recalled)
            x[of, :, places.positions[of, token]] = new[of, :, token]
            part.age(x, aging)
            part.stay(x, staying)
            held.append(x)
        self.old, self.lengths = old, places.lengths
        return Held(held[0], held[1], None if places.start is not None else torch.zeros(len(key), dtype=torch.int64))

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was."""
        if self.key is not None:
            self.key.reorder(rows)
            self.value.reorder(rows)
            self.old, self.lengths = self.old[rows], self.lengths[rows]

    def crop(self, lengths: Tensor) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it."""
        if self.key is not None:
            self.old, self.lengths = torch.minimum(self.old, lengths), lengths


class _Part:
    """The keys, or the values: codes of the old tokens by position, and the full numbers of the last ones at position mod `recent`."""

    def __init__(self, new: Tensor, kind: str, recent: int, block: int | None):
        b, k, _, e = new.shape
        self.kind, self.width = kind, e
        e = max(e, 1)
        blocks = -(-e // min(block or e, e))
        self.block = 2 * -(-e // (2 * blocks))  # an even size for all: two codes of four bits share a byte
        self.padded = -(-self.width // self.block) * self.block
        self.full = new.new_zeros(b, k, recent, self.width)
        int8 = kind == "int8"
        self.codes = new.new_zeros(b, k, 0, self.padded if int8 else self.padded // 2, dtype=torch.int8 if int8 else torch.uint8)
        self.absmax = new.new_zeros(b, k, 0, self.padded // self.block, dtype=torch.float32)

    @property
    def nbytes(self) -> int:
        return self.full.nbytes + self.codes.nbytes + self.absmax.nbytes

    def recall(self, longest: int, full: Where) -> Tensor:
        """(B, K, longest, E): what the codes say, and over it the full numbers of `full`."""
        self.codes, self.absmax = _room(self.codes, longest), _room(self.absmax, longest)
        codes, absmax = self.codes[:, :, :longest], self.absmax[:, :, :longest]
        blocks = (*absmax.shape, self.block)
        if self.kind == "int8":
            x = dequantize_int8_absmax(codes.reshape(blocks), absmax=absmax, dtype=self.full.dtype)
        else:
            codes, absmax = codes.reshape(codes.numel()), absmax.reshape(absmax.numel())
            x = dequantize_nf4(codes, absmax=absmax, shape=blocks, block=self.block, dtype=self.full.dtype)
        x = x.reshape(*blocks[:3], self.padded)[..., : self.width]
        rows, at = full
        x[rows, :, at] = self.full[rows, :, at % self.full.shape[2]]
        return x

    def age(self, x: Tensor, where: Where) -> None:
        """Put the tokens there in codes."""
        rows, at = where
        tokens = x.new_zeros(len(rows), x.shape[1], self.padded)
        tokens[..., : self.width] = x[rows, :, at]
        if self.kind == "int8":
            codes, absmax = quantize_int8_absmax(tokens.reshape(*tokens.shape[:2], self.absmax.shape[-1], self.block))
        else:
            codes, absmax = quantize_nf4(tokens, block=self.block)
        self.codes[rows, :, at] = codes.reshape(*tokens.shape[:2], self.codes.shape[-1])
        self.absmax[rows, :, at] = absmax.reshape(*tokens.shape[:2], self.absmax.shape[-1])

    def stay(self, x: Tensor, where: Where) -> None:
        """Keep the tokens there in full."""
        rows, at = where
        self.full[rows, :, at % self.full.shape[2]] = x[rows, :, at]

    def reorder(self, rows: Tensor) -> None:
        rows = rows.to(self.full.device)
        self.codes, self.absmax, self.full = self.codes[rows], self.absmax[rows], self.full[rows]


def _there(which: Tensor, device: torch.device) -> Where:
    rows, at = which.nonzero(as_tuple=True)
    return rows.to(device), at.to(device)


def _room(array: Tensor, least: int) -> Tensor:
    """(B, K, room, C) with room for at least that many tokens: where there is less, for twice as many as before."""
    b, k, room, c = array.shape
    if room >= least:
        return array
    grown = array.new_zeros(b, k, max(least, 2 * room, _LEAST), c)
    grown[:, :, :room] = array
    return grown
