"""What each validation tier runs and what it asks, settled before anything imports NumPy."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from byhand.checks import choice, demand, size
from byhand.finetune_config import FinetuneConfig
from byhand.run_config import read, resolve
from byhand.training_config import PRESETS, TrainingConfig

Name = Literal["quick", "convergence", "long", "resume", "memory"]
Decrease = Literal["share", "noise", "none"]

PRETRAINED = "llama-1m"          # what a tier fine-tunes where no model is named, after the standard library's source
SEEDS = 3                        # of the test against noise
STUDENT = 2.92                   # Student's t for SEEDS − 1 = 2 degrees of freedom, one-sided, 95 %
_LARGE = 5_000_000               # parameters from which a preset is run at short lengths, from a 4-bit base
_BOUNDS = {2_000_000: 96, 140_000_000: 512, 1_200_000_000: 2000, 7_000_000_000: 8000}  # parameters: 10⁶ resident bytes


class Tier(NamedTuple):
    """steps : of training;  large : those of presets with random weights that are not small;  decrease : the share of the loss to lose."""

    steps: int
    large: int
    decrease: float | None
    asks: str


TIERS: dict[str, Tier] = {
    "quick": Tier(10, 10, 0.0, "Does a run train its adapters, and nothing else?"),
    "convergence": Tier(100, 100, 0.30, "Does the loss fall?"),
    "long": Tier(500, 500, 0.40, "Does it go on falling?"),
    "resume": Tier(40, 6, None, "Does a run that was killed end with the bits of one that was not?"),
    "memory": Tier(2, 2, None, "Does a step of QLoRA stay within its memory?"),
}


class Plan(NamedTuple):
    """One validation.

    tier : its name
    config : of the fine-tuning
    decrease : what is asked of the loss: to lose a "share" of it, to fall by more than the "noise" of three seeds, or "none", just told
    share : that share, 0 … 1; None: nothing is asked
    bound : bytes that the process may hold at its peak; None: nothing is asked
    """

    tier: str
    config: FinetuneConfig
    decrease: Decrease
    share: float | None
    bound: int | None


def make_plan(tier: str, *, model: str | None = None, file: Path | None = None, bound: int | None = None,
              options: Mapping[str, Any] | None = None) -> Plan:
    """The tier's own defaults, overruled by the file's options (but for steps, which are the tier's), overruled by `options`.

    Parameters
    ----------
    tier      one of TIERS
    model     as `byhand finetune --base` takes it; None: a llama-1m pre-trained on the standard library's source, in `pretrained_path`
    file      a configuration of `byhand finetune`
    bound     10⁶ bytes, for the tier memory; None: what is stated for models of that many parameters
    options   of `FinetuneConfig`; None among them means that it was not given

    A share of the loss is asked for where it is known to hold: from one distribution to another (a trained base, then list operations),
    with LoRA of rank 16 or more on all linear layers. Of other adapters and texts a trained base must learn more than noise, and of
    random weights nothing is asked but that the right arrays move, and no others.

    Raises
    ------
    ValueError   if an option is unknown or out of its range, or not for a validation
    """
    who = "validate"
    choice(who, TIERS, tier=tier)
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name in ("resume", "out", "name", "save_every", "keep"):
        demand(who, name not in given, f"no {name}: a validation leaves no run behind", **{name: given.get(name)})
    model = model or given.get("base") or str(pretrained_path())
    given.pop("base", None)
    resolve(FinetuneConfig, file, base=model, **given)                  # refuses what is unknown, by name
    written = {} if file is None else {name: value for name, value in read("finetune", file).items() if name not in ("steps", "base")}
    values = _defaults(tier, model) | written | given
    if values.get("method", "lora") != "lora" and "targets" not in written | given:
        del values["targets"]                                           # each method has its own
    config = FinetuneConfig(**values | {"base": model})
    demand(who, config.backend != "both", "one backend, numpy or torch", backend=config.backend)
    demand(who, config.steps >= 2, "at least 2 steps: a gradient of A is zero at the first", steps=config.steps)
    if tier == "resume":
        config = dataclasses.replace(config, save_every=max(1, config.steps // 5), sample=0)
    if tier == "memory":
        demand(who, config.backend == "numpy", "the numpy backend for the tier memory", backend=config.backend)
    share = TIERS[tier].decrease
    decrease: Decrease = "none"
    if share is not None and model not in PRESETS:
        decrease = "share" if _moves_far(config) else "noise" if share else "none"
    return Plan(tier, config, decrease, share if decrease == "share" else None, _bound(tier, model, bound))


def pretrained_path(root: str = "runs") -> Path:
    """Where the base is kept that a tier makes itself."""
    return Path(root) / f"base-{PRETRAINED}"


def _defaults(tier: str, model: str) -> dict[str, Any]:
    preset = PRESETS.get(model)
    large = preset is not None and preset.parameters > _LARGE
    steps = TIERS[tier].large if large else TIERS[tier].steps
    values: dict[str, Any] = dict(
        targets=("all-linear",), r=16, alpha=32.0, text="list-operations", lr=5e-3, steps=steps, batch=1 if large else 16,
        length=32 if large else 64, validation_batches=1 if large else 4, validate_every=max(1, steps // 10), sample=0,
    )
    if large:
        values |= dict(quantize="nf4", double=True, recompute=True)
    if tier == "memory":
        values |= dict(quantize="nf4", double=True, recompute=True, batch=1, length=128, validation_batches=1)
    return values


def _moves_far(config: FinetuneConfig) -> bool:
    """Whether this is the case for which shares of the loss are stated."""
    everywhere = config.targets == ("all-linear",) and not config.exclude and config.layers is None and not config.rank_pattern
    return config.method == "lora" and everywhere and config.budget is None and config.r >= 16 and config.text == "list-operations"


def _bound(tier: str, model: str, given: int | None) -> int | None:
    if tier != "memory":
        demand("validate", given is None, "a bound for the tier memory only", bound=given)
        return None
    if given is not None:
        size("validate", bound=given)
        return given * 10**6
    parameters = _parameters(model)
    fitting = [megabytes for most, megabytes in _BOUNDS.items() if parameters is not None and parameters <= most]
    demand("validate", bool(fitting), "a bound in 10⁶ bytes for a model for which none is stated", model=model, bound=given)
    return fitting[0] * 10**6


def _parameters(model: str) -> int | None:
    """Of a preset, or of what a `byhand train` left."""
    if model not in PRESETS:
        try:
            return resolve(TrainingConfig, Path(model) / "config.json").model.parameters
        except ValueError:
            return PRESETS[PRETRAINED].parameters if Path(model) == pretrained_path() else None
    return PRESETS[model].parameters
