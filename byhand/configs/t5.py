"""The sizes and options of T5, as one frozen value, and those that people know by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byhand.checks import demand, in_range, positive, size
from byhand.configs.reading import from_dict


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The sizes of a T5 (Raffel et al. 2020, arXiv:1910.10683), of version 1.0 or 1.1 (Shazeer 2020; Flan-T5).

    Version 1.1 gates its feed-forward layers (activation "geglu_tanh") and has a head of its own (tied False).

    Parameters
    ----------
    vocabulary : int       V, how many different tokens there are
    d_model : int          D, width of the hidden states
    n_heads : int          H, attention heads a block
    encoder_layers : int   blocks that read the source
    decoder_layers : int   blocks that write the target; None becomes as many as the encoder has
    d_hidden : int         F, width inside the feed-forward layers; None becomes 4 · D
    head_width : int       E, width of a head; H · E need not be D
    activation : str       of the feed-forward layers; one of GatedFeedForward's makes them gated
    tied : bool            whether the head is the token embedding, used again on states scaled by 1/√D
    buckets : int          how many distances between tokens are told apart
    max_distance : int     from where on all distances are one
    start : int            the id that every target begins with
    padding : int          the id that the decoder reads where a label does not count
    dropout : float        of embeddings, attention probabilities, hidden activations, residual branches and final states, in training
    norm_eps : float       ε of the norms

    Raises
    ------
    ValueError   if a size is not a positive integer, an id is not in the vocabulary, or another option is out of range

    Examples
    --------
    >>> T5Config(vocabulary=256, d_model=16, n_heads=4, encoder_layers=2).decoder_layers
    2
    """

    vocabulary: int
    d_model: int
    n_heads: int
    encoder_layers: int
    decoder_layers: int | None = None
    d_hidden: int | None = None
    head_width: int = 64
    activation: str = "relu"
    tied: bool = True
    buckets: int = 32
    max_distance: int = 128
    start: int = 0
    padding: int = 0
    dropout: float = 0.1
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        who = "T5Config"
        if self.decoder_layers is None:
            object.__setattr__(self, "decoder_layers", self.encoder_layers)
        if self.d_hidden is None:
            object.__setattr__(self, "d_hidden", 4 * self.d_model)
        size(who, vocabulary=self.vocabulary, d_model=self.d_model, n_heads=self.n_heads, encoder_layers=self.encoder_layers)
        size(who, decoder_layers=self.decoder_layers, d_hidden=self.d_hidden, head_width=self.head_width)
        size(who, at_least=4, buckets=self.buckets)
        size(who, at_least=self.buckets // 2 + 1, max_distance=self.max_distance)
        demand(who, isinstance(self.activation, str), "activation by name", activation=self.activation)
        demand(who, isinstance(self.tied, bool), "tied as True or False", tied=self.tied)
        size(who, at_least=0, start=self.start, padding=self.padding)
        in_range(who, 0, self.vocabulary - 1, start=self.start, padding=self.padding)
        in_range(who, 0, 1, dropout=self.dropout)
        positive(who, norm_eps=self.norm_eps)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "T5Config":
        """The config that `dataclasses.asdict` turned into `values`; a ValueError names unknown and missing keys."""
        return from_dict(cls, values)

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layers have a gate."""
        return "glu" in self.activation or self.activation == "bilinear"

    @property
    def parameters(self) -> int:
        """How many numbers the model learns."""
        d, width = self.d_model, self.n_heads * self.head_width
        assert self.d_hidden and self.decoder_layers  # __post_init__ has filled them in
        attention, feed_forward = 4 * d * width, (3 if self.gated else 2) * d * self.d_hidden
        encoder = self.encoder_layers * (attention + feed_forward + 2 * d) + d
        decoder = self.decoder_layers * (2 * attention + feed_forward + 3 * d) + d
        tables = (1 if self.tied else 2) * self.vocabulary * d + 2 * self.buckets * self.n_heads
        return tables + encoder + decoder


def _t5(d_model: int, layers: int, n_heads: int, d_hidden: int, **options: Any) -> T5Config:
    return T5Config(**{"vocabulary": 32128, **options}, d_model=d_model, encoder_layers=layers, n_heads=n_heads, d_hidden=d_hidden)


_V1_1: dict[str, Any] = dict(activation="geglu_tanh", tied=False)

T5_PRESETS: dict[str, T5Config] = {
    "t5-small": _t5(512, 6, 8, 2048),                   # 60,506,624 parameters
    "t5-base": _t5(768, 12, 12, 3072),                  # 222,903,552
    "t5-large": _t5(1024, 24, 16, 4096),                # 737,668,096
    # version 1.1, whose sizes Flan-T5 has too
    "t5-v1_1-small": _t5(512, 8, 6, 1024, **_V1_1),     # 76,961,152
    "t5-v1_1-base": _t5(768, 12, 12, 2048, **_V1_1),    # 247,577,856
    "flan-t5-small": _t5(512, 8, 6, 1024, **_V1_1),
    "flan-t5-base": _t5(768, 12, 12, 2048, **_V1_1),
    # for training on a laptop, bytes as tokens
    "t5-nano": _t5(64, 2, 4, 256, vocabulary=259, head_width=16),
}
