"""Keys and values side by side in one tensor that grows: the plain cache."""

import torch
from torch import Tensor

from torch_impl.decode.cache import Held, Places

_LEAST = 64  # tokens that there is room for at first


class ContiguousStore:
    """Row b's token number n lies at [b, :, n]. Where there is no more room, room is doubled."""

    def __init__(self) -> None:
        self.key: Tensor = torch.zeros(0, 0, 0, 0)  # (B, K, room, E)
        self.value: Tensor = torch.zeros(0, 0, 0, 0)  # (B, K, room, W)

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        return self.key.nbytes + self.value.nbytes

    def append(self, key: Tensor, value: Tensor, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of all."""
        longest = places.longest
        self.key, self.value = _room(self.key, key, longest), _room(self.value, value, longest)
        if places.start is not None:
            self.key[:, :, places.start : longest] = key
            self.value[:, :, places.start : longest] = value
            return Held(self.key[:, :, :longest], self.value[:, :, :longest], None)
        told = torch.ones(places.positions.shape, dtype=torch.bool, device=key.device) if places.real is None else places.real
        rows, new = told.nonzero(as_tuple=True)
        at = places.positions[rows, new]
        self.key[rows, :, at], self.value[rows, :, at] = key[rows, :, new], value[rows, :, new]
        return Held(self.key[:, :, :longest], self.value[:, :, :longest], torch.zeros(len(key), dtype=torch.int64))

    def reorder(self, rows: Tensor) -> None:
        """Row n becomes what row rows[n] was; before the first call there is nothing to move."""
        if len(self.key) and not torch.equal(rows, torch.arange(len(self.key), device=rows.device)):
            rows = rows.to(self.key.device)
            self.key, self.value = self.key[rows], self.value[rows]

    def crop(self, lengths: Tensor) -> None:
        """Nothing is to be done: what stands behind a row's length is overwritten, and until then no one looks at it."""


def _room(held: Tensor, new: Tensor, longest: int) -> Tensor:
    """The tensor that is held, with room for `longest` tokens; where nothing is held yet, one for the rows and heads of the new one."""
    b, k, _, e = new.shape
    room = held.shape[2]
    if held.shape[:2] != (b, k) or room < longest:
        grown = new.new_zeros(b, k, max(longest, 2 * room, _LEAST), e)  # zeros: what is hidden is to be finite
        if held.shape[:2] == (b, k):
            grown[:, :, :room] = held
        return grown
    return held
