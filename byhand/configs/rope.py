"""How rotary positions are scaled for long contexts, as one frozen value, and the shapes in which Hugging Face's files write it."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from byhand.checks import at_least, choice, demand, fail, in_range, not_negative, positive, size
from byhand.configs.reading import from_dict

# type -> (what it cannot do without, what it may be told)
_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "ntk": (("factor",), ()),
    "dynamic": (("factor", "original_length"), ()),
    "yarn": (("factor", "original_length"), ("beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim")),
    "llama3": (("factor", "original_length", "low_freq_factor", "high_freq_factor"), ()),
    "longrope": (("original_length", "short_factor", "long_factor"), ("factor", "attention_factor")),
}
ROPE_TYPES = tuple(_OPTIONS)

_YARN = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}  # what None becomes
_THEIRS = {"base": "rope_theta", "original_length": "original_max_position_embeddings"}  # the others bear the same names
_OLD_TYPES = {"su": "longrope"}  # Phi-3's first files
_READS_LENGTH = ("dynamic", "longrope")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Which angles rotary positions turn by, and how these are scaled beyond the trained length.

    Parameters
    ----------
    width : int               R, how many numbers of a head are turned; even
    type : str                "default" (unscaled), "linear" (position interpolation), "ntk", "dynamic" (NTK by length), "yarn", "llama3"
                              or "longrope"
    base : float              > 1: pair i turns base^(−2i/R) radians a token
    head_width : int          E ≥ R, the width of a head, of which the first R numbers are turned; None becomes R
    factor : float            s ≥ 1, how many times longer a text may become; every type but "default" ("longrope": see attention_factor)
    original_length : int     T, tokens the model was trained on; "dynamic", "yarn", "llama3", "longrope"
    beta_fast, beta_slow : float   "yarn": turns over T above which pairs are kept, below which interpolated; None become 32 and 1
    truncate : bool           "yarn": whether the ends of its ramp are rounded to whole pairs; None becomes True
    attention_factor : float  "yarn", "longrope": what cosine and sine are multiplied by; None: computed from factor
    mscale, mscale_all_dim : float   "yarn": both or neither, and not with attention_factor, which they serve to compute
    low_freq_factor, high_freq_factor : float   "llama3": turns over T below which pairs are interpolated, above which kept
    short_factor, long_factor : tuple of R/2 floats   "longrope": what each pair is slowed by, in texts up to T and beyond

    `numpy_impl.positions.rope_scaling.rope_frequencies` makes the frequencies of it.

    Raises
    ------
    ValueError   if the type is unknown, an option is missing, out of its range, or belongs to another type

    Examples
    --------
    >>> RopeConfig(width=64, type="yarn", factor=4.0, original_length=4096).beta_fast
    32.0
    >>> RopeConfig(width=64, type="linear", factor=4.0, beta_fast=16.0)
    Traceback (most recent call last):
        ...
    ValueError: RopeConfig needs options of type 'linear', which are factor; got beta_fast=16.0, an option of type 'yarn'
    >>> theirs = {"hidden_size": 4096, "num_attention_heads": 32, "rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}}
    >>> ours = RopeConfig.from_hugging_face(theirs)
    >>> ours.width, ours.base, ours.factor
    (128, 1000000.0, 2.0)
    >>> ours.to_hugging_face()
    {'head_dim': 128, 'rope_parameters': {'rope_type': 'linear', 'rope_theta': 1000000.0, 'factor': 2.0}}
    """

    width: int
    type: str = "default"
    base: float = 10000.0
    head_width: int | None = None
    factor: float | None = None
    original_length: int | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    truncate: bool | None = None
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    short_factor: tuple[float, ...] | None = None
    long_factor: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        who = "RopeConfig"
        choice(who, ROPE_TYPES, type=self.type)
        self._only_own_options()
        for name, value in _YARN.items() if self.type == "yarn" else ():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("short_factor", "long_factor"):
            value = getattr(self, name)
            demand(who, value is None or isinstance(value, (list, tuple)), f"{name} as a list of numbers", **{name: value})
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        self._in_range()

    def _only_own_options(self) -> None:
        required, optional = _OPTIONS[self.type]
        own = (*required, *optional)
        for name in {option for needs, may in _OPTIONS.values() for option in (*needs, *may)}.difference(own):
            if getattr(self, name) is not None:
                others = " and ".join(repr(t) for t, (needs, may) in _OPTIONS.items() if name in (*needs, *may))
                fail("RopeConfig", f"options of type {self.type!r}, which are {', '.join(own) or 'none'}",
                     f"{name}={getattr(self, name)!r}, an option of type {others}")
        missing = [name for name in required if getattr(self, name) is None]
        if missing:
            fail("RopeConfig", f"{', '.join(required)} with type {self.type!r}", f"no {' and no '.join(missing)}")

    def _in_range(self) -> None:
        who = "RopeConfig"
        size(who, at_least=4 if self.type in ("ntk", "dynamic") else 2, width=self.width)
        demand(who, self.width % 2 == 0, "an even width, of whole pairs", width=self.width)
        if self.head_width is None:
            object.__setattr__(self, "head_width", self.width)
        size(who, head_width=self.head_width)
        demand(who, self.width <= self.head_width, "width <= head_width", width=self.width, head_width=self.head_width)  # type: ignore[operator]
        positive(who, base=self.base)
        demand(who, self.base > 1, "base > 1", base=self.base)
        if self.factor is not None:
            at_least(who, 1, factor=self.factor)
        if self.original_length is not None:
            size(who, at_least=2, original_length=self.original_length)
        for name in ("beta_fast", "beta_slow", "attention_factor", "low_freq_factor", "high_freq_factor"):
            if getattr(self, name) is not None:
                positive(who, **{name: getattr(self, name)})
        for name in ("mscale", "mscale_all_dim"):
            if getattr(self, name) is not None:
                not_negative(who, **{name: getattr(self, name)})
        demand(who, self.truncate is None or isinstance(self.truncate, bool), "truncate as true or false", truncate=self.truncate)
        for name in ("short_factor", "long_factor"):
            factors = getattr(self, name)
            if factors is not None:
                pairs = self.width // 2
                demand(who, len(factors) == pairs, f"{name} with a factor for each of {pairs} pairs, half of width {self.width}",
                       **{name: factors})
                for factor in factors:
                    positive(who, **{name: factor})
        self._agree()

    def _agree(self) -> None:
        who = "RopeConfig"
        if self.beta_fast is not None and self.beta_slow is not None:
            demand(who, self.beta_slow <= self.beta_fast, "beta_slow <= beta_fast", beta_slow=self.beta_slow, beta_fast=self.beta_fast)
        if self.low_freq_factor is not None and self.high_freq_factor is not None:
            demand(who, self.low_freq_factor < self.high_freq_factor, "low_freq_factor < high_freq_factor",
                   low_freq_factor=self.low_freq_factor, high_freq_factor=self.high_freq_factor)
        scales = dict(mscale=self.mscale, mscale_all_dim=self.mscale_all_dim)
        demand(who, (self.mscale is None) == (self.mscale_all_dim is None), "mscale and mscale_all_dim, both or neither", **scales)
        demand(who, self.mscale is None or self.attention_factor is None, "attention_factor or mscale, not both",
               attention_factor=self.attention_factor, **scales)
        if self.type == "longrope" and self.factor is None and self.attention_factor is None:
            fail(who, "factor or attention_factor with type 'longrope'", "neither")

    @property
    def reads_length(self) -> bool:
        """Whether the frequencies depend on how long the text is, so that no table of them serves every length."""
        return self.type in _READS_LENGTH

    @property
    def partial_rotary_factor(self) -> float:
        """The share of a head that is turned, such that int(head_width · share), as files are read, is the width again."""
        head_width = self.head_width or self.width
        share = self.width / head_width
        return share if int(head_width * share) == self.width else math.nextafter(share, 1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RopeConfig":
        """The config that `dataclasses.asdict` turned into `values`; a ValueError names unknown and missing keys."""
        return from_dict(cls, values)

    @classmethod
    def from_hugging_face(
        cls, config: Mapping[str, Any], *, head_width: int | None = None, max_length: int | None = None, layer_type: str | None = None
    ) -> "RopeConfig":
        """The rope of a config.json, or of the dictionary of rope parameters in it, as transformers 4 and 5 write them.

        Version 4 has ``rope_theta`` and ``rope_scaling`` (None, or a dictionary with "rope_type", in older files "type"); version 5
        has one ``rope_parameters`` with everything in it. In a whole config other keys are passed over; among the rope parameters an
        unknown one is an error, for it might change the angles.

        Parameters
        ----------
        config             the whole dictionary, or that of the rope parameters alone
        head_width : int   of a head; by default the config's head_dim, or hidden_size / num_attention_heads
        max_length : int   by default the config's max_position_embeddings
        layer_type : str   whose parameters, where they differ by type of layer ("full_attention", say)

        Raises
        ------
        ValueError   if something is unknown, missing, out of its range, or said twice and not alike
        """
        who = "RopeConfig.from_hugging_face"
        demand(who, isinstance(config, Mapping), "a config as a dictionary", config=config)
        whole, rope = _parts(who, config, layer_type)
        _known_keys(who, rope)
        kind = _said(who, {"rope_type": rope.get("rope_type"), "type": rope.get("type")}, "default")
        base = _said(who, {"rope_parameters.rope_theta": rope.get("rope_theta"), "rope_theta": whole.get("rope_theta"),
                           "rotary_emb_base": whole.get("rotary_emb_base")}, 10000.0)
        share = _said(who, {"rope_parameters.partial_rotary_factor": rope.get("partial_rotary_factor"),
                            "partial_rotary_factor": whole.get("partial_rotary_factor"), "rotary_pct": whole.get("rotary_pct")}, 1.0)
        in_range(who, 0, 1, partial_rotary_factor=share)
        head_width = _head_width(who, whole) if head_width is None else head_width
        size(who, head_width=head_width)
        max_length = whole.get("max_position_embeddings") if max_length is None else max_length

        kind = _OLD_TYPES.get(kind, kind)
        choice(who, ROPE_TYPES, rope_type=kind)
        values = {ours: rope.get(_THEIRS.get(ours, ours)) for ours in dict.fromkeys(o for n, m in _OPTIONS.values() for o in (*n, *m))}
        known = _said(who, {"rope_parameters.original_max_position_embeddings": values["original_length"],
                            "original_max_position_embeddings": whole.get("original_max_position_embeddings")}, None)
        if kind == "dynamic":  # it counts from max_position_embeddings, in both versions
            known = _said(who, {"original_max_position_embeddings": known, "max_position_embeddings": max_length}, None)
        elif kind == "yarn" and known is None:
            known = max_length
        values["original_length"] = known if "original_length" in _OPTIONS[kind][0] else values["original_length"]
        if kind in ("yarn", "longrope") and values["factor"] is None and max_length is not None and known is not None:
            size(who, max_position_embeddings=max_length, original_max_position_embeddings=known)
            values["factor"] = max(max_length / known, 1.0)
        missing = [_THEIRS.get(name, name) for name in _OPTIONS[kind][0] if values[name] is None]
        if missing:
            fail(who, f"{', '.join(missing)} with rope_type {kind!r}", f"only {', '.join(sorted(map(str, rope)))}")
        return cls(width=int(head_width * share), head_width=head_width, type=kind, base=base, **values)

    def to_hugging_face(self, *, version: int = 5) -> dict[str, Any]:
        """The keys of a config.json that say this: head_dim, and the rope in the shape of transformers 4 or 5.

        transformers has no type "ntk"; it is written as the default type with the base that it amounts to, and read back as that.
        """
        choice("RopeConfig.to_hugging_face", (4, 5), version=version)
        base = self.base
        rope: dict[str, Any] = {"rope_type": self.type, "rope_theta": base}
        if self.type == "ntk":
            assert self.factor is not None
            rope = {"rope_type": "default", "rope_theta": base * self.factor ** (self.width / (self.width - 2))}
        else:
            for name in (*_OPTIONS[self.type][0], *_OPTIONS[self.type][1]):
                value = getattr(self, name)
                if value is not None:
                    rope[_THEIRS.get(name, name)] = list(value) if isinstance(value, tuple) else value
        whole: dict[str, Any] = {"head_dim": self.head_width}
        if self.type == "dynamic":
            whole["max_position_embeddings"] = rope.pop("original_max_position_embeddings")
        share = {} if self.width == self.head_width else {"partial_rotary_factor": self.partial_rotary_factor}
        if version == 5:
            return whole | {"rope_parameters": rope | share}
        if self.type == "longrope":  # version 4 reads T, and s as a ratio, beside the dictionary
            assert self.original_length is not None
            whole["original_max_position_embeddings"] = self.original_length
            whole["max_position_embeddings"] = round(self.original_length * (self.factor or 1))
        theta = rope.pop("rope_theta")
        return whole | {"rope_theta": theta, "rope_scaling": None if rope == {"rope_type": "default"} else rope} | share


def _parts(who: str, config: Mapping[str, Any], layer_type: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(the whole config, its rope parameters); one of them may be empty."""
    shapes = [key for key in ("rope_parameters", "rope_scaling") if key in config]
    of_a_model = ("model_type", "hidden_size", "num_attention_heads", "head_dim", "max_position_embeddings")
    if not shapes and ("rope_type" in config or "type" in config or not any(key in config for key in of_a_model)):
        whole: Mapping[str, Any] = {}
        rope = config
    else:
        whole = config
        rope = _said(who, {key: config[key] or None for key in shapes}, {})
        demand(who, isinstance(rope, Mapping), f"{' or '.join(shapes)} as a dictionary", got=rope)
    nested = {key: value for key, value in rope.items() if isinstance(value, Mapping)}
    if nested and len(nested) == len(rope):
        choice(who, nested, layer_type=layer_type)
        rope = nested[layer_type]  # type: ignore[index]
    return whole, rope


def _said(who: str, places: Mapping[str, Any], default: Any) -> Any:
    """The one value that these places name; the default where none does."""
    given = {place: value for place, value in places.items() if value is not None}
    values = list(given.values())
    if any(value != values[0] for value in values):
        fail(who, f"{' and '.join(given)} to agree", ", ".join(f"{place}={value!r}" for place, value in given.items()))
    return values[0] if values else default


def _known_keys(who: str, rope: Mapping[str, Any]) -> None:
    known = ["rope_type", "type", "rope_theta", "partial_rotary_factor"]
    known += [_THEIRS.get(name, name) for name in dict.fromkeys(o for n, m in _OPTIONS.values() for o in (*n, *m))]
    for key in rope:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            fail(who, "known rope parameters", f"{key!r}" + (f" (did you mean {near[0]!r}?)" if near else f", none of {', '.join(known)}"))


def _head_width(who: str, whole: Mapping[str, Any]) -> int:
    for key in ("qk_rope_head_dim", "head_dim"):  # latent attention turns a part of its heads that has a width of its own
        if whole.get(key) is not None:
            return whole[key]
    width, heads = whole.get("hidden_size"), whole.get("num_attention_heads")
    if width is None or heads is None:
        fail(who, "head_width=, or a config with head_dim, or with hidden_size and num_attention_heads", "none of these")
    size(who, hidden_size=width, num_attention_heads=heads)
    assert width is not None and heads is not None
    demand(who, width % heads == 0, "hidden_size to be a multiple of num_attention_heads", hidden_size=width, num_attention_heads=heads)
    return width // heads
