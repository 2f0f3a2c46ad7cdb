"""The sizes and choices of a decoder whose architecture is the experiment, as one frozen value."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byhand.checks import choice, demand, fail, in_range, positive, size
from byhand.configs.reading import from_dict

POSITIONS = ("learned", "sinusoidal", "rotary", "alibi", "relative", "none")
NORMS = ("pre", "post", "none")
NORM_TYPES = ("layer", "rms")
ATTENTIONS = ("full", "window", "strided", "linear")
DROPPING = ("full", "window")  # the kinds of attention that can drop probabilities


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A causal language model in which every part of the architecture is a choice. Its head is its token embedding, used a second time.

    Parameters
    ----------
    vocabulary : int     V, how many different tokens there are
    max_length : int     rows of the table of learned positions; the other positions have no last one
    d_model : int        D, width of the hidden states
    n_layers : int       blocks
    n_heads : int        H, attention heads a block; a divisor of D
    d_hidden : int       F, width inside the feed-forward layers; None becomes 4 · D
    positions : str      how a token knows where it stands. Added to the embeddings: "learned", "sinusoidal"; inside attention: "rotary"
                         turns queries and keys, "alibi" and "relative" (T5's buckets) add to the scores; "none": from the causal mask alone
    norm : str           "pre": each branch reads normalised states; "post": each sum is normalised; "none"
    norm_type : str      "layer" or "rms"
    attention : str      which of the earlier keys a query sees: "full", all of them; "window", the nearest; "strided", the nearest and
                         every so many beyond; "linear", all of them, through a state of fixed size in place of a softmax
    window : int         "window": how many keys a query sees, its own among them
    stride : int         "strided": steps between the keys that a query sees far away
    local : int          "strided": how many of the nearest keys it sees, its own among them; None becomes stride
    activation : str     of the feed-forward layers; one of GatedFeedForward's (swiglu, geglu …) makes them gated
    bias : bool          whether projections and layer norms have a bias
    rope_base : float    of "rotary": how many times slower than the first pair the last one nearly turns
    buckets : int        of "relative": how many distances are told apart
    max_distance : int   of "relative": from where on all distances are one
    dropout : float      of embeddings, residual branches and, with "full" and "window", attention probabilities, in training
    norm_eps : float     ε of the norms

    Raises
    ------
    ValueError   if a size is not a positive integer, H does not divide D, or choices are unknown, incomplete or contradict each other

    Examples
    --------
    >>> DecoderConfig(vocabulary=256, max_length=32, d_model=16, n_layers=2, n_heads=4, attention="strided", stride=8).local
    8
    >>> DecoderConfig(vocabulary=256, max_length=32, d_model=16, n_layers=2, n_heads=4, attention="linear", positions="alibi")
    Traceback (most recent call last):
        ...
    ValueError: DecoderConfig needs attention='full' with positions that add to its scores; got positions='alibi', attention='linear'
    """

    vocabulary: int
    max_length: int
    d_model: int
    n_layers: int
    n_heads: int
    d_hidden: int | None = None
    positions: str = "learned"
    norm: str = "pre"
    norm_type: str = "layer"
    attention: str = "full"
    window: int | None = None
    stride: int | None = None
    local: int | None = None
    activation: str = "gelu"
    bias: bool = False
    rope_base: float = 10000.0
    buckets: int = 32
    max_distance: int = 128
    dropout: float = 0.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        who = "DecoderConfig"
        size(who, vocabulary=self.vocabulary, max_length=self.max_length)
        size(who, d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads)
        if self.d_hidden is None:
            object.__setattr__(self, "d_hidden", 4 * self.d_model)
        size(who, d_hidden=self.d_hidden)
        choice(who, NORMS, norm=self.norm)
        choice(who, NORM_TYPES, norm_type=self.norm_type)
        demand(who, isinstance(self.activation, str), "activation by name", activation=self.activation)
        demand(who, isinstance(self.bias, bool), "bias as True or False", bias=self.bias)
        in_range(who, 0, 1, dropout=self.dropout)
        positive(who, rope_base=self.rope_base, norm_eps=self.norm_eps)
        size(who, buckets=self.buckets, max_distance=self.max_distance)
        local = attention_options(
            who, d_model=self.d_model, n_heads=self.n_heads, attention=self.attention, positions=self.positions, window=self.window,
            stride=self.stride, local=self.local,
        )
        object.__setattr__(self, "local", local)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DecoderConfig":
        """The config that `dataclasses.asdict` turned into `values`; a ValueError names unknown and missing keys."""
        return from_dict(cls, values)


def attention_options(who: str, *, d_model: int, n_heads: int, attention: str, positions: str, window: int | None, stride: int | None,
                      local: int | None) -> int | None:
    """Refuse what does not go together, in the config and in the layer alike; return `local`, by default `stride`."""
    demand(who, d_model % n_heads == 0, "d_model to be a multiple of n_heads", d_model=d_model, n_heads=n_heads)
    choice(who, ATTENTIONS, attention=attention)
    choice(who, POSITIONS, positions=positions)
    local = stride if local is None else local
    sizes_of: dict[str, dict[str, Any]] = {"window": dict(window=window), "strided": dict(stride=stride, local=local)}
    for kind, sizes in sizes_of.items():
        if attention == kind:
            size(who, **sizes)
        for name, value in sizes.items():
            if attention != kind and value is not None:
                fail(who, f"attention={kind!r} with {name}", f"attention={attention!r}, {name}={value!r}")
    if positions in ("alibi", "relative") and attention != "full":
        fail(who, "attention='full' with positions that add to its scores", f"positions={positions!r}, attention={attention!r}")
    if positions == "rotary":
        demand(who, d_model // n_heads % 2 == 0, "heads of an even width with positions='rotary'", d_model=d_model, n_heads=n_heads)
    return local
