"""The sizes of BERT, as one frozen value, and those that people know by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byhand.checks import choice, demand, in_range, positive, size
from byhand.configs.reading import from_dict


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT (Devlin et al. 2019, arXiv:1810.04805), an encoder whose blocks normalise last.

    Parameters
    ----------
    vocabulary : int   V, how many different tokens there are
    max_length : int   T, the longest sequence there are positions for
    d_model : int      D, width of the hidden states
    n_layers : int     blocks
    n_heads : int      H, attention heads a block; a divisor of D
    d_hidden : int     F, width inside the feed-forward layers; None becomes 4 · D
    segments : int     how many parts of an input (a question and its text, say) are told apart; 0: none, there is no table (DistilBERT)
    padding : int      the id whose embedding starts at 0 and does not learn by being read; None: there is none
    classes : int      how many a classifier tells apart
    dropout : float    of embeddings, attention probabilities, residual branches and what a classifier reads, in training
    norm_eps : float   ε of the layer norms
    activation : str   of the feed-forward layers and of the masked language model's head: gelu, gelu_tanh, relu or silu
    pooler : str       the function behind the sequence classifier's pooler: "tanh", or "relu" (DistilBERT)

    Raises
    ------
    ValueError   if a size is not a positive integer, H does not divide D, padding is not in the vocabulary, or an option is out of range

    Examples
    --------
    >>> BertConfig(vocabulary=256, max_length=32, d_model=16, n_layers=2, n_heads=4).d_hidden
    64
    """

    vocabulary: int
    max_length: int
    d_model: int
    n_layers: int
    n_heads: int
    d_hidden: int | None = None
    segments: int = 2
    padding: int | None = 0
    classes: int = 2
    dropout: float = 0.1
    norm_eps: float = 1e-12
    activation: str = "gelu"
    pooler: str = "tanh"

    def __post_init__(self) -> None:
        who = "BertConfig"
        if self.d_hidden is None:
            object.__setattr__(self, "d_hidden", 4 * self.d_model)
        size(who, vocabulary=self.vocabulary, max_length=self.max_length, d_model=self.d_model, n_layers=self.n_layers)
        size(who, n_heads=self.n_heads, d_hidden=self.d_hidden, classes=self.classes)
        size(who, at_least=0, segments=self.segments)
        demand(who, self.d_model % self.n_heads == 0, "d_model to be a multiple of n_heads", d_model=self.d_model, n_heads=self.n_heads)
        if self.padding is not None:
            size(who, at_least=0, padding=self.padding)
            in_range(who, 0, self.vocabulary - 1, padding=self.padding)
        in_range(who, 0, 1, dropout=self.dropout)
        positive(who, norm_eps=self.norm_eps)
        demand(who, isinstance(self.activation, str), "activation by name", activation=self.activation)
        choice(who, ("tanh", "relu"), pooler=self.pooler)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """The config that `dataclasses.asdict` turned into `values`; a ValueError names unknown and missing keys."""
        return from_dict(cls, values)

    @property
    def parameters(self) -> int:
        """How many numbers the encoder learns, without any head."""
        d, f = self.d_model, self.d_hidden
        assert f  # __post_init__ has filled it in
        block = 4 * (d * d + d) + (f * d + f) + (d * f + d) + 2 * 2 * d  # four projections, up, down, two norms
        return (self.vocabulary + self.max_length + self.segments) * d + 2 * d + self.n_layers * block


def _bert(d_model: int, n_layers: int, n_heads: int, *, vocabulary: int = 30522, max_length: int = 512) -> BertConfig:
    return BertConfig(vocabulary=vocabulary, max_length=max_length, d_model=d_model, n_layers=n_layers, n_heads=n_heads)


BERT_PRESETS: dict[str, BertConfig] = {
    # the uncased ones; with the pooler 109,482,240 and 335,141,888 parameters
    "bert-base": _bert(768, 12, 12),
    "bert-large": _bert(1024, 24, 16),
    # for training on a laptop, bytes as tokens
    "bert-nano": _bert(64, 2, 4, vocabulary=259, max_length=128),
}
