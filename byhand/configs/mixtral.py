"""The sizes and options of Llamas with mixtures of experts, Mixtral, Qwen-MoE and DeepSeek-MoE, as one frozen value."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byhand.checks import choice as one_of
from byhand.checks import demand, in_range, positive, size
from byhand.configs.llama import LlamaConfig
from byhand.configs.reading import from_dict
from byhand.configs.rope import RopeConfig
from byhand.configs.routing import RoutingLoss

CHOICES = ("token", "expert", "sinkhorn")
SCORES = ("softmax", "sigmoid")
DROPPED = ("zero", "residual")


@dataclasses.dataclass(frozen=True)
class MixtralConfig(LlamaConfig):
    """A LlamaConfig, and what stands in the feed-forward layers' place (Jiang et al. 2024, arXiv:2401.04088; Dai et al. 2024,
    arXiv:2401.06066).

    Parameters
    ----------
    n_experts : int         E, experts a layer
    k : int                 experts a token goes to
    d_expert : int          F of an expert; None becomes d_hidden
    d_shared : int          F of the expert that every token goes to (several shared experts are one, as wide as all of them); None: none
    shared_gate : bool      whether a sigmoid of its own weighs the shared expert's output (Qwen)
    dense : tuple of int    blocks, from 0, that keep a plain feed-forward layer of d_hidden (DeepSeek's first); mlp_bias is for these alone
    score : str             what makes scores of the router's logits: "softmax" or "sigmoid"
    before : bool           whether the softmax is over all experts, before the choice; else over the chosen ones
    renormalise : bool      whether the chosen scores are divided by their sum
    scale : float           what the weights are multiplied by in the end
    groups : int            groups of neighbouring experts, of which a token sees only the `top_groups` best; 1: no groups
    top_groups : int        None: all
    group_score : str       "max": a group is as good as its best expert; "top2": as the sum of its two best
    correction : bool       whether each router has a buffer that is added to the scores to choose by, and moved after every update towards
                            an even load, in place of a loss (Wang et al. 2024, arXiv:2408.15664)
    choice : str            "token": a token takes its k best experts; "expert": an expert takes its k · N / E best tokens, later ones too,
                            so that a model that writes left to right is trained on what it will not have; "sinkhorn": as "token", but in
                            training by scores that have been scaled to an even load
    capacity_factor : float the most that an expert computes, over an even share of all choices; None: whatever comes
    min_capacity : int      but never fewer than this many
    drop_order : str        who gets the places: "choice", all first choices before the second ones; "token", the earlier token; "weight"
    dropped : str           what a choice without a place gives: "zero", or "residual", the token itself
    jitter : float          ε: the router's input is multiplied by uniform numbers in 1 ± ε in training
    noisy : bool            whether normal noise of a learned spread is added to the logits in training (Shazeer et al. 2017)
    balance : float         weight of the load-balance loss;  z : float, of the router's z-loss
    jointly : bool          whether these losses take all layers as one;  per_sequence : bool, whether each sequence by itself

    Raises
    ------
    ValueError   as LlamaConfig does, and if k is above E, groups do not divide E, too few groups stay to choose k from, or choices are
                 unknown or do not go together

    Examples
    --------
    >>> config = MIXTRAL_PRESETS["mixtral-8x7b"]
    >>> config.parameters, config.active_parameters
    (46702792704, 12879925248)
    """

    n_experts: int = 8
    k: int = 2
    d_expert: int | None = None
    d_shared: int | None = None
    shared_gate: bool = False
    dense: tuple[int, ...] = ()
    score: str = "softmax"
    before: bool = True
    renormalise: bool = True
    scale: float = 1.0
    groups: int = 1
    top_groups: int | None = None
    group_score: str = "max"
    correction: bool = False
    choice: str = "token"
    capacity_factor: float | None = None
    min_capacity: int = 1
    drop_order: str = "choice"
    dropped: str = "zero"
    jitter: float = 0.0
    noisy: bool = False
    balance: float = 0.0
    z: float = 0.0
    jointly: bool = False
    per_sequence: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        who = "MixtralConfig"
        if self.d_expert is None:
            object.__setattr__(self, "d_expert", self.d_hidden)
        demand(who, isinstance(self.dense, (tuple, list)), "dense as a tuple of blocks", dense=self.dense)
        object.__setattr__(self, "dense", tuple(self.dense))
        size(who, d_expert=self.d_expert)
        if self.d_shared is not None:
            size(who, d_shared=self.d_shared)
        demand(who, not self.shared_gate or self.d_shared is not None, "d_shared for a shared_gate", d_shared=self.d_shared)
        for i in self.dense:
            size(who, at_least=0, dense=i)
            demand(who, i < self.n_layers, f"dense as blocks below n_layers={self.n_layers}", dense=self.dense)
        routing_options(
            who, n_experts=self.n_experts, k=self.k, score=self.score, before=self.before, renormalise=self.renormalise, scale=self.scale,
            groups=self.groups, top_groups=self.top_groups, group_score=self.group_score, correction=self.correction, choice=self.choice,
            capacity_factor=self.capacity_factor, min_capacity=self.min_capacity, drop_order=self.drop_order, jitter=self.jitter,
            noisy=self.noisy,
        )
        one_of(who, DROPPED, dropped=self.dropped)
        demand(who, isinstance(self.shared_gate, bool), "shared_gate as True or False", shared_gate=self.shared_gate)
        self.routing_loss  # noqa: B018 (what it refuses is refused here)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MixtralConfig":
        """The config that `dataclasses.asdict` turned into `values`; a ValueError names unknown and missing keys."""
        rope = values.get("rope")
        return from_dict(cls, {**values, "rope": RopeConfig.from_dict(rope)} if isinstance(rope, Mapping) else values)

    @property
    def routing_loss(self) -> RoutingLoss | None:
        """What the training loss adds; None where both weights are 0."""
        loss = RoutingLoss(balance=self.balance, z=self.z, jointly=self.jointly, per_sequence=self.per_sequence, score=self.score)
        return loss if self.balance or self.z else None

    @property
    def mixture(self) -> dict[str, Any]:
        """The options of each `layers.MoE`, by name."""
        names = ("activation", "d_shared", "shared_gate", "dropped", "choice", "score", "before", "renormalise", "scale", "groups",
                 "top_groups", "group_score", "correction", "capacity_factor", "min_capacity", "drop_order", "jitter", "noisy")
        return {name: getattr(self, name) for name in names}

    @property
    def parameters(self) -> int:
        return self._count(self.n_experts)

    @property
    def active_parameters(self) -> int:
        """How many of them compute one token: those of k experts, and everything else."""
        return self._count(self.k)

    def _count(self, experts: int) -> int:
        """How many numbers the model learns, with so many experts a layer."""
        d, f, e = self.d_model, self.d_hidden, self.d_expert
        assert f and e  # __post_init__ has filled them in
        bias = 2 * f + d if self.mlp_bias else 0
        router = self.n_experts * d * (2 if self.noisy else 1)
        mixture = 3 * d * (e * experts + (self.d_shared or 0)) + router + (d if self.shared_gate else 0)        # without biases
        sparse = self.n_layers - len(set(self.dense))
        return super().parameters + sparse * (mixture - 3 * f * d - bias)


def routing_options(who: str, *, n_experts: int, k: int, score: str, before: bool, renormalise: bool, scale: float, groups: int,
                    top_groups: int | None, group_score: str, correction: bool, choice: str, capacity_factor: float | None,
                    min_capacity: int, drop_order: str, jitter: float, noisy: bool) -> None:
    """Refuse what does not go together, in the config and in the layer alike."""
    size(who, n_experts=n_experts, k=k)
    demand(who, k <= n_experts, "k no larger than n_experts", k=k, n_experts=n_experts)
    one_of(who, SCORES, score=score)
    positive(who, scale=scale)
    size(who, groups=groups)
    demand(who, n_experts % groups == 0, "n_experts to be a multiple of groups", n_experts=n_experts, groups=groups)
    if top_groups is not None:
        size(who, top_groups=top_groups)
        demand(who, top_groups <= groups, "top_groups no larger than groups", top_groups=top_groups, groups=groups)
        fits = k <= top_groups * (n_experts // groups)
        demand(who, fits, "enough experts in top_groups groups to choose k from", k=k, top_groups=top_groups, groups=groups)
    one_of(who, ("max", "top2"), group_score=group_score)
    one_of(who, CHOICES, choice=choice)
    if capacity_factor is not None:
        positive(who, capacity_factor=capacity_factor)
        demand(who, choice != "expert", "no capacity_factor with choice='expert', whose experts are even", capacity_factor=capacity_factor)
    size(who, min_capacity=min_capacity)
    one_of(who, ("choice", "token", "weight"), drop_order=drop_order)
    in_range(who, 0, 1, jitter=jitter)
    for name, value in dict(before=before, renormalise=renormalise, correction=correction, noisy=noisy).items():
        demand(who, isinstance(value, bool), f"{name} as True or False", **{name: value})
    plain = before and not renormalise and scale == 1 and groups == 1 and not correction
    demand(who, plain or choice != "expert", "before=True, renormalise=False, scale=1, groups=1 and correction=False with choice='expert'",
           before=before, renormalise=renormalise, scale=scale, groups=groups, correction=correction)


def _mixtral(d_model: int, n_layers: int, n_heads: int, n_kv_heads: int, d_hidden: int, *, vocabulary: int, max_length: int,
             base: float = 10000.0, **options: Any) -> MixtralConfig:
    return MixtralConfig(
        vocabulary=vocabulary, max_length=max_length, d_model=d_model, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads,
        d_hidden=d_hidden, rope=RopeConfig(width=d_model // n_heads, base=base), **options,
    )


_BYTES: dict[str, Any] = dict(vocabulary=256, tied=True, balance=0.01, z=0.001)

MIXTRAL_PRESETS: dict[str, MixtralConfig] = {
    # 46,702,792,704 parameters, of which 12,879,925,248 compute a token
    "mixtral-8x7b": _mixtral(4096, 32, 32, 8, 14336, vocabulary=32000, max_length=32768, base=1e6, balance=0.02, jointly=True),
    # 140,630,071,296 and 39,161,468,928
    "mixtral-8x22b": _mixtral(6144, 56, 48, 8, 16384, vocabulary=32768, max_length=65536, base=1e6, balance=0.001, jointly=True),
    # 14,315,784,192 and 2,689,173,504
    "qwen1.5-moe-a2.7b": _mixtral(
        2048, 24, 16, 16, 5632, vocabulary=151936, max_length=8192, base=1e6, attention_bias="qkv", norm_eps=1e-6, n_experts=60, k=4,
        d_expert=1408, d_shared=5632, shared_gate=True, renormalise=False, balance=0.001, jointly=True,
    ),
    # 16,375,728,128 and 2,828,650,496; DeepSeek's f is the k-th part of ours: 0.001 there is 0.001 / k here
    "deepseek-moe-16b": _mixtral(
        2048, 28, 16, 16, 10944, vocabulary=102400, max_length=4096, norm_eps=1e-6, n_experts=64, k=6, d_expert=1408, d_shared=2816,
        dense=(0,), renormalise=False, balance=0.001 / 6, per_sequence=True,
    ),
    # for training on a laptop, bytes as tokens: a few wide experts, and many narrow ones beside a shared one, of equal active parameters
    "mixtral-nano": _mixtral(64, 2, 4, 2, 96, max_length=128, **_BYTES),
    "mixtral-1m": _mixtral(128, 4, 4, 2, 192, max_length=256, **_BYTES),
    "deepseek-nano": _mixtral(
        64, 2, 4, 2, 192, max_length=128, n_experts=16, k=3, d_expert=48, d_shared=48, dense=(0,), score="sigmoid", correction=True,
        vocabulary=256, tied=True,
    ),
}
