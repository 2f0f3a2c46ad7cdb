"""What prefix tuning learns (Li & Liang 2021, arXiv:2101.00190): the keys and values of a few tokens that are not there."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from byhand.checks import demand, size
from torch_impl.layers.linear import Linear


class PrefixEntries(NamedTuple):
    """What a prefix holds: key (K, N, E) and value (K, N, E)."""

    key: Tensor
    value: Tensor


class Prefix(nn.Module):
    """key ‖ value = rows,  or with hidden  up(tanh(down(embedding))):  N learned keys and values (K, N, E) for each of K heads.

    rows (N, 2 · K · E) start as normals of deviation 0.02; embedding (N, K · E) as unit normals, before an MLP of width hidden.
    """

    rows: nn.Parameter | None
    embedding: nn.Parameter | None

    def __init__(self, n: int, n_heads: int, head_width: int, *, hidden: int | None = None, dtype: torch.dtype = torch.float32,
                 device: torch.device | str | None = None, rng: torch.Generator | None = None):
        super().__init__()
        size("Prefix", at_least=0, n=n)
        size("Prefix", n_heads=n_heads, head_width=head_width)
        width = n_heads * head_width
        self.n, self.n_heads = n, n_heads
        here: dict[str, Any] = dict(dtype=dtype, device=device)
        self.rows = self.embedding = self.down = self.up = None
        if hidden is None:
            self.rows = nn.Parameter(torch.empty(n, 2 * width, **here).normal_(std=0.02, generator=rng))
        else:
            self.embedding = nn.Parameter(torch.empty(n, width, **here).normal_(generator=rng))
            self.down = Linear(width, hidden, rng=rng, **here)
            self.up = Linear(hidden, 2 * width, rng=rng, **here)

    def forward(self) -> PrefixEntries:
        key, value = self._rows().unflatten(-1, (2, self.n_heads, -1)).permute(1, 2, 0, 3)
        return PrefixEntries(key, value)

    @torch.no_grad()
    def materialize(self) -> None:
        """Learn the rows themselves from now on, beginning with those that the MLP gives; the MLP is forgotten."""
        demand("Prefix.materialize", self.rows is None, "a prefix with an MLP", hidden=None)
        rows = self._rows()
        self.embedding = self.down = self.up = None
        self.rows = nn.Parameter(rows)

    def _rows(self) -> Tensor:
        """(N, 2 · K · E)."""
        return self.up(torch.tanh(self.down(self.embedding))) if self.rows is None else self.rows
