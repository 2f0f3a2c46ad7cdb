"""The sizes of GPT-2, as one frozen value, and those that people know by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byhand.checks import demand, in_range, positive, size
from byhand.configs.reading import from_dict


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """The sizes of a GPT-2 (Radford et al. 2019). Its head is its token embedding, used a second time.

    Parameters
    ----------
    vocabulary : int   V, how many different tokens there are
    max_length : int   T, the longest sequence there are positions for
    d_model : int      D, width of the hidden states
    n_layers : int     blocks
    n_heads : int      H, attention heads a block; a divisor of D
    d_hidden : int     F, width inside the feed-forward layers; None becomes 4 · D
    dropout : float    of embeddings, attention probabilities and residual branches, in training
    norm_eps : float   ε of the layer norms
    activation : str   of the feed-forward layers

    Raises
    ------
    ValueError   if a size is not a positive integer, H does not divide D, or dropout or norm_eps is out of range

    Examples
    --------
    >>> GPT2Config(vocabulary=256, max_length=32, d_model=16, n_layers=2, n_heads=4).d_hidden
    64
    >>> GPT2Config.from_dict(dict(vocabulary=256, max_length=32, d_modle=16, n_layers=2, n_heads=4))
    Traceback (most recent call last):
        ...
    ValueError: GPT2Config needs known keys; got 'd_modle' (did you mean 'd_model'?)
    """

    vocabulary: int
    max_length: int
    d_model: int
    n_layers: int
    n_heads: int
    d_hidden: int | None = None
    dropout: float = 0.1
    norm_eps: float = 1e-5
    activation: str = "gelu_tanh"

    def __post_init__(self) -> None:
        who = "GPT2Config"
        size(who, vocabulary=self.vocabulary, max_length=self.max_length)
        size(who, d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads)
        demand(who, self.d_model % self.n_heads == 0, "d_model to be a multiple of n_heads", d_model=self.d_model, n_heads=self.n_heads)
        if self.d_hidden is None:
            object.__setattr__(self, "d_hidden", 4 * self.d_model)
        size(who, d_hidden=self.d_hidden)
        in_range(who, 0, 1, dropout=self.dropout)
        positive(who, norm_eps=self.norm_eps)
        demand(who, isinstance(self.activation, str), "activation by name", activation=self.activation)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GPT2Config":
        """The config that `dataclasses.asdict` turned into `values`; a ValueError names unknown and missing keys."""
        return from_dict(cls, values)

    @property
    def parameters(self) -> int:
        """How many numbers the model learns."""
        d, f = self.d_model, self.d_hidden or 4 * self.d_model
        block = 4 * (d * d + d) + (f * d + f) + (d * f + d) + 2 * 2 * d  # four projections, up, down, two norms
        return (self.vocabulary + self.max_length) * d + self.n_layers * block + 2 * d


def _gpt2(d_model: int, n_layers: int, n_heads: int, *, vocabulary: int = 50257, max_length: int = 1024) -> GPT2Config:
    return GPT2Config(vocabulary=vocabulary, max_length=max_length, d_model=d_model, n_layers=n_layers, n_heads=n_heads)


GPT2_PRESETS: dict[str, GPT2Config] = {
    "gpt2": _gpt2(768, 12, 12),            # 124,439,808 parameters
    "gpt2-medium": _gpt2(1024, 24, 16),    # 354,823,168
    "gpt2-large": _gpt2(1280, 36, 20),     # 774,030,080
    "gpt2-xl": _gpt2(1600, 48, 25),        # 1,557,611,200
    # for training on a laptop, bytes as tokens
    "gpt2-nano": _gpt2(64, 2, 4, vocabulary=256, max_length=128),
    "gpt2-1m": _gpt2(128, 5, 4, vocabulary=256, max_length=256),
    "gpt2-5m": _gpt2(256, 6, 8, vocabulary=256, max_length=512),
    "gpt2-10m": _gpt2(384, 6, 6, vocabulary=256, max_length=512),
}
