"""Where LoRA adapters go, how large they are and how they start, as one frozen value."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from byhand.checks import choice, demand, in_range, positive, size
from byhand.configs.reading import from_dict
from byhand.configs.targets import Names, by_key, select

Start = Literal["kaiming", "gaussian", "pissa", "olora", "loftq"]


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """What every adapter of a model has in common, and what differs from module to module.

    Parameters
    ----------
    r : int                  R, rank of an adapter; 0 is an adapter that changes nothing
    alpha : float            α > 0, at most 1e30; the adapter's output is scaled by α / R
    targets                  the modules that get an adapter: names or shell patterns, each for a whole dotted name or for what follows
                             one of its dots; or one string, a regular expression for the whole name; or "all-linear", every Linear but
                             the head
    exclude                  modules that get none, written like targets
    rslora : bool            scale by α / √R (Kalajdzievski 2023, arXiv:2312.03732), so that a high rank learns as fast as a low one
    dropout : float          share of the adapter's inputs that is dropped in training; the frozen path keeps all of them
    dora : bool              learn each row's length apart from its direction (Liu et al. 2024, arXiv:2402.09353)
    bias : str               which biases of the model train besides: "none", "all", or "lora_only", those of the modules with an adapter
    rank_pattern : dict      other ranks, by a regular expression for a name or for what follows one of its dots; the first match counts
    alpha_pattern : dict     other α, likewise
    layers : tuple of int    only blocks of these numbers; None: all
    start : str              how A and B begin: "kaiming" or "gaussian" A and zero B, or from the weights: "pissa", "olora", "loftq"
    lora_plus : float        learning rate of B over that of A (Hayou et al. 2024, arXiv:2402.12354); None: the same

    Lists become tuples, a single layer a tuple of one, patterns are copied, and integers of NumPy's become Python's, as JSON needs them.

    Raises
    ------
    ValueError   if a value is out of its range or of another kind, or a regular expression is none

    Examples
    --------
    >>> config = LoRAConfig(r=4, targets=["q_proj", "v_proj"], rank_pattern={"v_proj": 2})
    >>> config.select({"blocks.0.attn.q_proj": "Linear", "blocks.0.attn.v_proj": "Linear", "head": "Linear"})
    ['blocks.0.attn.q_proj', 'blocks.0.attn.v_proj']
    >>> config.rank("blocks.0.attn.v_proj"), config.options("blocks.0.attn.q_proj")
    (2, {'r': 4, 'alpha': 16, 'rslora': False, 'dropout': 0.0, 'dora': False})
    """

    r: int = 8
    alpha: float = 16
    targets: Names = ("q_proj", "v_proj")
    exclude: Names = ()
    rslora: bool = False
    dropout: float = 0.0
    dora: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    rank_pattern: dict[str, int] = dataclasses.field(default_factory=dict, hash=False)
    alpha_pattern: dict[str, float] = dataclasses.field(default_factory=dict, hash=False)
    layers: tuple[int, ...] | None = None
    start: Start = "kaiming"
    lora_plus: float | None = None

    def __post_init__(self) -> None:
        who = "LoRAConfig"
        for name in ("targets", "exclude", "layers"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
            elif name == "layers" and hasattr(value, "__index__") and not isinstance(value, bool):
                object.__setattr__(self, name, (value,))
        size(who, at_least=0, r=self.r)
        object.__setattr__(self, "r", int(self.r))
        _alpha(who, alpha=self.alpha)
        _names(who, targets=self.targets, exclude=self.exclude)
        demand(who, len(self.targets) > 0, "at least one target", targets=self.targets)
        for name in ("rslora", "dora"):
            demand(who, isinstance(getattr(self, name), bool), f"{name} as True or False", **{name: getattr(self, name)})
        in_range(who, 0, 1, dropout=self.dropout)
        choice(who, ("none", "all", "lora_only"), bias=self.bias)
        choice(who, ("kaiming", "gaussian", "pissa", "olora", "loftq"), start=self.start)
        for name in ("rank_pattern", "alpha_pattern"):
            values = getattr(self, name)
            demand(who, isinstance(values, Mapping), f"{name} as a dict of values by name", **{name: values})
            for key, value in values.items():
                _expression(f"{who}'s {name}", key)
                if name == "rank_pattern":
                    size(who, at_least=0, **{f"{name}[{key!r}]": value})
                else:
                    _alpha(who, **{f"{name}[{key!r}]": value})
            object.__setattr__(self, name, {key: int(value) if name == "rank_pattern" else value for key, value in values.items()})
        if self.layers is not None:
            demand(who, isinstance(self.layers, tuple) and len(self.layers) > 0, "layers as block numbers", layers=self.layers)
            for layer in self.layers:
                size(who, at_least=0, layer=layer)
            object.__setattr__(self, "layers", tuple(int(layer) for layer in self.layers))
        if self.lora_plus is not None:
            positive(who, lora_plus=self.lora_plus)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LoRAConfig":
        """The config that `dataclasses.asdict` turned into `values`; what is left out has its default, an unknown key is named."""
        demand(cls.__name__, isinstance(values, Mapping), "a dict of values by name", values=values)
        return from_dict(cls, {"rank_pattern": {}, "alpha_pattern": {}, **values})

    def select(self, modules: Mapping[str, str], *, function: str = "LoRAConfig") -> list[str]:
        """Which of a model's modules, given as class names by dotted name, get an adapter.

        Raises
        ------
        ValueError   if a target, an exclusion, a layer or a key of a pattern means none of them; near names are listed
        """
        return select(function, modules, targets=self.targets, exclude=self.exclude, layers=self.layers,
                      keys=[*self.rank_pattern, *self.alpha_pattern])

    def rank(self, name: str) -> int:
        """R of the adapter on the module of this name."""
        return by_key(self.rank_pattern, name, self.r)

    def options(self, name: str) -> dict[str, Any]:
        """What the adapter on the module of this name is made with."""
        return dict(r=self.rank(name), alpha=by_key(self.alpha_pattern, name, self.alpha), rslora=self.rslora, dropout=self.dropout,
                    dora=self.dora)


def lora_plus_groups(names: Iterable[str], ratio: float | None) -> list[dict[str, Any]]:
    """The groups an optimizer needs for lr(B) = ratio · lr(A) (LoRA+; Hayou et al. 2024, arXiv:2402.12354).

    In a wide layer A's entries see inputs whose sum grows with the width, B's see R hidden values only: with one rate for both, B
    stands almost still at the rate that A can bear.

    names : iterable of str   the parameters that train;  ratio : float, usually 2 to 32; None: no groups

    Raises
    ------
    ValueError   if ratio is not positive and finite, or no parameter is called lora_B

    Examples
    --------
    >>> lora_plus_groups(["q_proj.adapters.default.lora_A", "q_proj.adapters.default.lora_B"], 16.0)
    [{'pattern': '*lora_B', 'lr_scale': 16.0}]
    """
    if ratio is None:
        return []
    positive("lora_plus_groups", ratio=ratio)
    names = list(names)
    demand("lora_plus_groups", any(name.endswith("lora_B") for name in names), "a parameter called lora_B", names=names)
    return [{"pattern": "*lora_B", "lr_scale": float(ratio)}]


def _names(who: str, **values: Any) -> None:
    """Every value is a tuple of names, or a regular expression."""
    for name, value in values.items():
        if isinstance(value, str):
            _expression(f"{who}'s {name}", value)
        else:
            several = isinstance(value, tuple) and all(isinstance(v, str) and v for v in value)
            demand(who, several, f"{name} as a list of names or a regular expression", **{name: value})


def _alpha(who: str, **values: Any) -> None:
    """Every value is above 0, and no more than `lora_scaling` takes: what an adapter refuses must not wait until half of them are on."""
    positive(who, **values)
    in_range(who, 0, 1e30, **values)


def _expression(who: str, value: Any) -> None:
    demand(who, isinstance(value, str) and bool(value), "a regular expression", value=value)
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{who} needs a regular expression; got {value!r}: {error}") from error
