"""How many experts MixLoRA has and how large they are, as one frozen value."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byhand.checks import demand, in_range, size
from byhand.configs.lora import LoRAConfig
from byhand.configs.reading import from_dict
from byhand.configs.routing import RoutingLoss
from byhand.configs.targets import Names


@dataclasses.dataclass(frozen=True)
class MixLoRAConfig:
    """What the experts of every layer have in common (MixLoRA; Li et al. 2024, arXiv:2404.15159).

    Parameters
    ----------
    n_experts : int      E, experts of each feed-forward layer
    k : int              how many of them compute a token, at most E
    r : int              R, rank of each low-rank update, at least 1
    alpha : float        α in (0, 1e30]; an update is scaled by α / R
    rslora : bool        or by α / √R
    dropout : float      share of an update's inputs that is dropped in training; the frozen path keeps all of them
    renormalise : bool   whether the weights of the k experts are divided by their sum
    balance : float      weight of the load-balance loss
    attention            the modules outside the feed-forward layers that get one low-rank update each, of the same r, alpha, rslora and
                         dropout: names, patterns or a regular expression, as LoRAConfig's targets; () for none

    Lists become tuples, and integers of NumPy's become Python's, as JSON needs them.

    Raises
    ------
    ValueError   if a value is out of its range or of another kind, or k exceeds n_experts

    Examples
    --------
    >>> MixLoRAConfig(n_experts=4, attention=["q_proj"]).attention
    ('q_proj',)
    >>> MixLoRAConfig().lora is None, MixLoRAConfig().options
    (True, {'n_experts': 8, 'k': 2, 'r': 8, 'alpha': 16, 'rslora': False, 'dropout': 0.0, 'renormalise': True})
    """

    n_experts: int = 8
    k: int = 2
    r: int = 8
    alpha: float = 16
    rslora: bool = False
    dropout: float = 0.0
    renormalise: bool = True
    balance: float = 0.01
    attention: Names = ()

    def __post_init__(self) -> None:
        who = "MixLoRAConfig"
        size(who, n_experts=self.n_experts, k=self.k, r=self.r)
        for name in ("n_experts", "k", "r"):
            object.__setattr__(self, name, int(getattr(self, name)))
        demand(who, self.k <= self.n_experts, "k <= n_experts", k=self.k, n_experts=self.n_experts)
        for name in ("rslora", "renormalise"):
            demand(who, isinstance(getattr(self, name), bool), f"{name} as True or False", **{name: getattr(self, name)})
        in_range(who, 0, 1, dropout=self.dropout)
        if isinstance(self.attention, list):
            object.__setattr__(self, "attention", tuple(self.attention))
        LoRAConfig(r=self.r, alpha=self.alpha, targets=self.attention or ("q_proj",))      # made to be checked
        RoutingLoss(balance=self.balance)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MixLoRAConfig":
        """The config that `dataclasses.asdict` turned into `values`; what is left out has its default, an unknown key is named."""
        demand(cls.__name__, isinstance(values, Mapping), "a dict of values by name", values=values)
        return from_dict(cls, values)

    @property
    def options(self) -> dict[str, Any]:
        """What a MixLoRA layer is made with."""
        return dict(n_experts=self.n_experts, k=self.k, r=self.r, alpha=self.alpha, rslora=self.rslora, dropout=self.dropout,
                    renormalise=self.renormalise)

    @property
    def lora(self) -> LoRAConfig | None:
        """The adapters outside the feed-forward layers; None: there are none."""
        if not self.attention:
            return None
        return LoRAConfig(r=self.r, alpha=self.alpha, targets=self.attention, rslora=self.rslora, dropout=self.dropout)
