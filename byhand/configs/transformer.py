"""The sizes of an encoder–decoder transformer, as one frozen value, and those that people know by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byhand.checks import choice, demand, in_range, positive, size
from byhand.configs.deepnorm import DeepNorm, deepnorm_pair
from byhand.configs.reading import from_dict


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The sizes of a Transformer (Vaswani et al. 2017, arXiv:1706.03762), which reads a source and writes a target.

    Parameters
    ----------
    vocabulary : int          V, how many different tokens there are
    d_model : int             D, width of the hidden states
    n_heads : int             H, attention heads a block; a divisor of D
    encoder_layers : int      blocks that read the source
    decoder_layers : int      blocks that write the target
    d_hidden : int            F, width inside the feed-forward layers; None becomes 4 · D
    order : str               "post": each sum is normalised, as published; "pre": what a branch reads, and at the end of each stack;
                              "deepnorm": post with a skip that counts more (Wang et al. 2022)
    activation : str          of the feed-forward layers
    tied : bool               whether source, target and head share one table; otherwise each has its own
    target_vocabulary : int   of the target, if it is not tied to the source's; None becomes V
    start : int               the id that every target begins with
    padding : int             the id that a decoder reads where a label does not count
    dropout : float           of embeddings, attention probabilities and residual branches, in training
    norm_eps : float          ε of the layer norms

    Raises
    ------
    ValueError   if a size is not a positive integer, H does not divide D, an id is not in the target's vocabulary, tied vocabularies
                 differ, or another option is out of range

    Examples
    --------
    >>> TransformerConfig(vocabulary=256, d_model=16, n_heads=4, encoder_layers=2, decoder_layers=2).d_hidden
    64
    """

    vocabulary: int
    d_model: int
    n_heads: int
    encoder_layers: int
    decoder_layers: int
    d_hidden: int | None = None
    order: str = "post"
    activation: str = "relu"
    tied: bool = True
    target_vocabulary: int | None = None
    start: int = 0
    padding: int = 0
    dropout: float = 0.1
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        who = "TransformerConfig"
        if self.d_hidden is None:
            object.__setattr__(self, "d_hidden", 4 * self.d_model)
        if self.target_vocabulary is None:
            object.__setattr__(self, "target_vocabulary", self.vocabulary)
        size(who, vocabulary=self.vocabulary, d_model=self.d_model, n_heads=self.n_heads, encoder_layers=self.encoder_layers)
        size(who, decoder_layers=self.decoder_layers, d_hidden=self.d_hidden, target_vocabulary=self.target_vocabulary)
        demand(who, self.d_model % self.n_heads == 0, "d_model to be a multiple of n_heads", d_model=self.d_model, n_heads=self.n_heads)
        choice(who, ("post", "pre", "deepnorm"), order=self.order)
        demand(who, isinstance(self.activation, str), "activation by name", activation=self.activation)
        demand(who, isinstance(self.tied, bool), "tied as True or False", tied=self.tied)
        demand(who, not self.tied or self.target_vocabulary == self.vocabulary, "one vocabulary where tables are tied",
               vocabulary=self.vocabulary, target_vocabulary=self.target_vocabulary)
        in_range(who, 0, self.target_vocabulary - 1, start=self.start, padding=self.padding)  # type: ignore[operator]
        size(who, at_least=0, start=self.start, padding=self.padding)
        in_range(who, 0, 1, dropout=self.dropout)
        positive(who, norm_eps=self.norm_eps)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TransformerConfig":
        """The config that `dataclasses.asdict` turned into `values`; a ValueError names unknown and missing keys."""
        return from_dict(cls, values)

    @property
    def deepnorm(self) -> tuple[DeepNorm, DeepNorm]:
        """α and β of the encoder's blocks and of the decoder's."""
        return deepnorm_pair(self.encoder_layers, self.decoder_layers) if self.order == "deepnorm" else (DeepNorm(1.0, 1.0),) * 2

    @property
    def parameters(self) -> int:
        """How many numbers the model learns."""
        d, f = self.d_model, self.d_hidden
        assert f and self.target_vocabulary  # __post_init__ has filled them in
        attention, feed_forward, norm = 4 * (d * d + d), f * d + f + d * f + d, 2 * d
        encoder = self.encoder_layers * (attention + feed_forward + 2 * norm)
        decoder = self.decoder_layers * (2 * attention + feed_forward + 3 * norm)
        tables = self.vocabulary * d + (0 if self.tied else 2 * self.target_vocabulary * d)
        return tables + encoder + decoder + (2 * norm if self.order == "pre" else 0)


def _transformer(d_model: int, layers: int, n_heads: int, *, vocabulary: int, dropout: float) -> TransformerConfig:
    return TransformerConfig(vocabulary=vocabulary, d_model=d_model, n_heads=n_heads, encoder_layers=layers, decoder_layers=layers,
                             dropout=dropout)


TRANSFORMER_PRESETS: dict[str, TransformerConfig] = {
    "transformer-base": _transformer(512, 6, 8, vocabulary=37000, dropout=0.1),      # 63,082,496 parameters, "65 million" in the paper
    "transformer-big": _transformer(1024, 6, 16, vocabulary=37000, dropout=0.3),     # 214,245,376, "213 million"
    # for training on a laptop, bytes as tokens
    "transformer-nano": _transformer(64, 2, 4, vocabulary=256, dropout=0.1),
}
