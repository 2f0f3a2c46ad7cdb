"""Keys and values side by side in one tensor that grows: the plain cache."""

import torch
from torch import Tensor

from byhand.checks import continues, demand
from torch_impl.decode.cache import Held, Places

_LEAST = 64  # tokens that there is room for at first


class ContiguousStore:
    """Row b's token number n lies at [b, :, n]. Where there is no more room, room is doubled."""

    def __init__(self) -> None:
        self.key: Tensor | None = None  # (B, K, room, E)
        self.value: Tensor | None = None  # (B, K, room, W)

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        return 0 if self.key is None else self.key.nbytes + self.value.nbytes

    def append(self, key: Tensor, value: Tensor, places: Places) -> Held:
        """key (B, K, T, E) and value (B, K, T, W) of the new tokens -> those of all."""
        longest = places.longest
        if self.key is None:
            self.key, self.value = (torch.empty_like(new[:, :, :0]) for new in (key, value))
        held = f"the {len(self.key)} rows that it holds (after a call that broke off, a new cache)"
        demand("ContiguousStore", len(self.key) == len(key), held, key=key)
        continues("ContiguousStore", key=(key, self.key), value=(value, self.value))
        self.key, self.value = _room(self.key, longest), _room(self.value, longest)
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
        if self.key is not None and not torch.equal(rows, torch.arange(len(self.key), device=rows.device)):
            rows = rows.to(self.key.device)
            self.key, self.value = self.key[rows], self.value[rows]

    def crop(self, lengths: Tensor) -> None:
        """Nothing is to be done: what stands behind a row's length is overwritten, and until then no one looks at it."""


def _room(held: Tensor, longest: int) -> Tensor:
    """What is held, with room for `longest` tokens at least."""
    b, k, room, e = held.shape
    if room >= longest:
        return held
    grown = held.new_zeros(b, k, max(longest, 2 * room, _LEAST), e)  # zeros: what is hidden is to be finite
    grown[:, :, :room] = held
    return grown
