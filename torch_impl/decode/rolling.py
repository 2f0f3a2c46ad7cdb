"""The cache of a model whose queries see a window: what has left the window is forgotten (Jiang et al. 2023, Mistral, arXiv:2310.06825)."""

import torch
from torch import Tensor

from byhand.checks import continues, demand, follows, size
from torch_impl.decode.cache import Held, Places


class RollingStore:
    """Of each row the last  window − 1 + spare  keys and values; `append` of T tokens returns the last  window − 1 + T.

    Rows end at the same column, whatever their lengths, and there is room for as many tokens again as are kept: one token more for every
    row is one column more, and what is returned is a view.
    """

    def __init__(self, *, window: int, spare: int = 32):
        size("RollingStore", window=window)
        size("RollingStore", at_least=0, spare=spare)
        self.window, self.kept = int(window), int(window) - 1 + int(spare)
        self.key: Tensor | None = None  # (B, K, room, E)
        self.value: Tensor | None = None  # (B, K, room, W)
        self.end = 0  # the column behind every row's newest token
        self.lengths: Tensor  # (B,) how many tokens were read; on the CPU
        self.oldest: Tensor  # (B,) the position of the first that is kept; on the CPU

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def append(self, key: Tensor, value: Tensor, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of the window before them, and theirs."""
        if self.key is None:
            self.key, self.value = (torch.empty_like(new[:, :, :0]) for new in (key, value))
            self.lengths = self.oldest = places.starts
        follows("RollingStore", starts=places.starts, held=self.lengths)
        continues("RollingStore", key=(key, self.key), value=(value, self.value))
        t, end = key.shape[2], self.end
        if places.real is None and end + t <= self.key.shape[2]:
            self.end = end + t
            self.key[:, :, end : self.end], self.value[:, :, end : self.end] = key, value
            key, value = self.key[:, :, : self.end], self.value[:, :, : self.end]
        else:
            before = slice(max(end - self.kept, 0), end)
            key = torch.cat([self.key[:, :, before], key], 2)
            value = torch.cat([self.value[:, :, before], value], 2)
            if places.real is not None:
                held = self._positions()[:, before] >= self.oldest[:, None]
                key, value = _to_the_right(torch.cat([held.to(key.device), places.real], 1), key, value)
            self.end = min(key.shape[2], self.kept)
            self.key, self.value = _with_room(key, self.end), _with_room(value, self.end)
            self.oldest = torch.maximum(self.oldest, places.lengths - self.end)
        self.lengths = places.lengths
        seen = min(places.longest, self.window - 1 + t)  # S
        newest = slice(key.shape[2] - seen, None)
        return Held(key[:, :, newest], value[:, :, newest], None if places.start is not None else places.lengths - seen)

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was."""
        if self.key is not None:
            here = rows.to(self.key.device)
            self.key, self.value = self.key[here], self.value[here]
            self.lengths, self.oldest = self.lengths[rows], self.oldest[rows]

    def crop(self, lengths: Tensor) -> None:
        """Forget what stands at position lengths[b] of row b, and behind it."""
        if self.key is None:
            return
        demand("RollingStore.crop", bool((self.oldest <= (lengths - (self.window - 1)).clamp(min=0)).all()),
               f"the {self.window - 1} tokens before each new end still kept; a larger spare keeps more", lengths=lengths.tolist(),
               kept_from=self.oldest.tolist())
        fewer = self.lengths - lengths
        if bool((fewer == fewer[:1]).all()):
            self.end -= int(fewer[0]) if len(fewer) else 0
        else:
            stays = (self._positions() < lengths[:, None]).to(self.key.device)
            now = slice(self.end)
            self.key[:, :, now], self.value[:, :, now] = _to_the_right(stays, self.key[:, :, now], self.value[:, :, now])
        self.lengths = lengths

    def _positions(self) -> Tensor:
        return torch.arange(self.end) + (self.lengths - self.end)[:, None]


def _to_the_right(kept: Tensor, *arrays: Tensor) -> list[Tensor]:
    """Each (B, K, C, E) with its columns that are kept (B, C) at the end, in their order, and zeros before them."""
    order = kept.byte().argsort(dim=1, stable=True)
    hidden = ~kept.take_along_dim(order, 1)[:, None, :, None]
    return [array.take_along_dim(order[:, None, :, None], 2).masked_fill(hidden, 0) for array in arrays]


def _with_room(array: Tensor, count: int) -> Tensor:
    """The last `count` columns of (B, K, C, E), and room for as many."""
    b, k, c, e = array.shape
    grown = array.new_zeros(b, k, 2 * count, e)
    grown[:, :, :count] = array[:, :, c - count :]
    return grown
