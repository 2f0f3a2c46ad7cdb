"""The sizes and options of the Llama family, as one frozen value, and those that people know by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from byhand.checks import choice, demand, in_range, positive, size
from byhand.configs.reading import from_dict
from byhand.configs.rope import RopeConfig


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a Llama (Touvron et al. 2023, arXiv:2302.13971) and of its relatives, Mistral, SmolLM2 and Qwen.

    Parameters
    ----------
    vocabulary : int        V, how many different tokens there are
    max_length : int        the longest sequence it is trained on; rotary positions go on beyond it
    d_model : int           D, width of the hidden states
    n_layers : int          blocks
    n_heads : int           H, query heads a block
    n_kv_heads : int        K, key and value heads a block, a divisor of H; None becomes H
    d_hidden : int          F, width inside the feed-forward layers; None becomes 8/3 · D, rounded up to a multiple of 256
    head_width : int        E, width of a head; None becomes D / H
    rope : RopeConfig       how positions turn queries and keys; None becomes the unscaled turn of whole heads with base 10,000
    window : int            how many keys a query sees, its own included (Mistral); None: all before it
    attention_bias          False: none of the four projections of attention has a bias; True: all; "qkv": all but o_proj (Qwen2)
    mlp_bias : bool         whether the projections of the feed-forward layers have one
    qk_norm : bool          whether each head's queries and keys are normalised (Qwen3)
    tied : bool             whether the head is the token embedding, used a second time
    dropout : float         of embeddings, attention probabilities and residual branches, in training
    norm_eps : float        ε of the norms
    activation : str        of the feed-forward layers

    Raises
    ------
    ValueError   if a size is not a positive integer, K does not divide H, H does not divide D and no head_width is given, or an option
                 is out of range

    Examples
    --------
    >>> config = LlamaConfig(vocabulary=256, max_length=32, d_model=96, n_layers=2, n_heads=4, n_kv_heads=2)
    >>> config.d_hidden, config.head_width, config.rope.base
    (256, 24, 10000.0)
    """

    vocabulary: int
    max_length: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None
    d_hidden: int | None = None
    head_width: int | None = None
    rope: RopeConfig | None = None
    window: int | None = None
    attention_bias: bool | Literal["qkv"] = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    dropout: float = 0.0
    norm_eps: float = 1e-5
    activation: str = "swiglu"

    def __post_init__(self) -> None:
        who = "LlamaConfig"
        size(who, vocabulary=self.vocabulary, max_length=self.max_length)
        size(who, d_model=self.d_model, n_layers=self.n_layers, n_heads=self.n_heads)
        if self.head_width is None:
            fits = self.d_model % self.n_heads == 0
            demand(who, fits, "d_model to be a multiple of n_heads, or a head_width", d_model=self.d_model, n_heads=self.n_heads)
        n_kv_heads = self.n_heads if self.n_kv_heads is None else self.n_kv_heads
        d_hidden = -(-8 * self.d_model // (3 * 256)) * 256 if self.d_hidden is None else self.d_hidden
        head_width = self.d_model // self.n_heads if self.head_width is None else self.head_width
        size(who, n_kv_heads=n_kv_heads, d_hidden=d_hidden, head_width=head_width)
        demand(who, self.n_heads % n_kv_heads == 0, "n_heads to be a multiple of n_kv_heads", n_heads=self.n_heads, n_kv_heads=n_kv_heads)
        rope = RopeConfig(width=head_width) if self.rope is None else self.rope
        demand(who, isinstance(rope, RopeConfig), "rope as a RopeConfig", rope=rope)
        demand(who, rope.head_width == head_width, "a rope for this width of heads", rope=rope.head_width, head_width=head_width)
        for name, value in dict(n_kv_heads=n_kv_heads, d_hidden=d_hidden, head_width=head_width, rope=rope).items():
            object.__setattr__(self, name, value)
        if self.window is not None:
            size(who, window=self.window)
        choice(who, (False, True, "qkv"), attention_bias=self.attention_bias)
        for name in ("mlp_bias", "qk_norm", "tied"):
            demand(who, isinstance(getattr(self, name), bool), f"{name} as True or False", **{name: getattr(self, name)})
        in_range(who, 0, 1, dropout=self.dropout)
        positive(who, norm_eps=self.norm_eps)
        demand(who, isinstance(self.activation, str), "activation by name", activation=self.activation)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LlamaConfig":
        """The config that `dataclasses.asdict` turned into `values`; a ValueError names unknown and missing keys."""
        rope = values.get("rope")
        return from_dict(cls, {**values, "rope": RopeConfig.from_dict(rope)} if isinstance(rope, Mapping) else values)

    @property
    def parameters(self) -> int:
        """How many numbers the model learns."""
        d, h, k, e, f = self.d_model, self.n_heads, self.n_kv_heads, self.head_width, self.d_hidden
        assert k and e and f  # __post_init__ has filled them in
        attention = 2 * h * e * d + 2 * k * e * d                                       # q_proj and o_proj, k_proj and v_proj
        biases = (h * e + 2 * k * e if self.attention_bias else 0) + (d if self.attention_bias is True else 0)
        feed_forward = 3 * f * d + (2 * f + d if self.mlp_bias else 0)                  # gate_proj, up_proj, down_proj
        norms = 2 * d + (2 * e if self.qk_norm else 0)
        tables = self.vocabulary * d * (1 if self.tied else 2)
        return tables + self.n_layers * (attention + biases + feed_forward + norms) + d


def _llama(d_model: int, n_layers: int, n_heads: int, n_kv_heads: int, d_hidden: int, *, vocabulary: int, max_length: int,
           base: float = 10000.0, tied: bool = False, window: int | None = None) -> LlamaConfig:
    return LlamaConfig(
        vocabulary=vocabulary, max_length=max_length, d_model=d_model, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads,
        d_hidden=d_hidden, rope=RopeConfig(width=d_model // n_heads, base=base), tied=tied, window=window,
    )


LLAMA_PRESETS: dict[str, LlamaConfig] = {
    # 134,515,008 parameters
    "smollm2-135m": _llama(576, 30, 9, 3, 1536, vocabulary=49152, max_length=8192, base=100_000.0, tied=True),
    # 1,100,048,384
    "tinyllama-1.1b": _llama(2048, 22, 32, 4, 5632, vocabulary=32000, max_length=2048),
    # 6,738,415,616
    "llama-2-7b": _llama(4096, 32, 32, 32, 11008, vocabulary=32000, max_length=4096),
    # 8,030,261,248
    "llama-3-8b": _llama(4096, 32, 32, 8, 14336, vocabulary=128256, max_length=8192, base=500_000.0),
    # 7,241,732,096, version 0.1, the one with the window
    "mistral-7b": _llama(4096, 32, 32, 8, 14336, vocabulary=32000, max_length=32768, window=4096),
    # for training on a laptop, bytes as tokens
    "llama-nano": _llama(64, 2, 4, 2, 192, vocabulary=256, max_length=128, tied=True),
    "llama-1m": _llama(128, 5, 4, 2, 384, vocabulary=256, max_length=256, tied=True),
}
