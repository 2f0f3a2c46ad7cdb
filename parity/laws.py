"""All laws by name, in the order in which they are tried and reported."""

from collections.abc import Callable

from parity import component_laws, example_laws
from parity.registry import Component
from parity.trial import Trial

TRIAL_LAWS: dict[str, Callable[[Trial], None]] = {
    "forward": example_laws.forward,
    "gradient": example_laws.gradient,
    "witness": example_laws.witness,
    "linear": example_laws.linear,
    "repeatable": example_laws.repeatable,
    "typed": example_laws.typed,
    "float32": example_laws.float32,
    "layouts": example_laws.layouts,
    "further": example_laws.further,
}
COMPONENT_LAWS: dict[str, Callable[..., None]] = {
    "sizes": component_laws.sizes,
    "nonfinite": component_laws.nonfinite,
    "refusals": component_laws.refusals,
    "distribution": component_laws.distribution,
    "state": component_laws.state,
}
LAWS: dict[str, Callable] = TRIAL_LAWS | COMPONENT_LAWS

FOR_OTHERS = tuple(law for law in LAWS if law != "refusals")  # how a reader's own function words its refusals is the reader's affair


def not_applicable(component: Component, law: str) -> str:
    """Why the law has nothing to say about this component; empty if it applies."""
    kind = component.kind
    if law in component.skip:
        return component.skip[law]
    if law in ("gradient", "witness", "linear") and kind not in ("op", "module"):
        return "it has no gradient"
    if law in ("forward", "float32") and kind == "initialiser":
        return "both sides sample from generators of their own; see the law of distributions"
    if law == "layouts" and kind not in ("op", "value"):
        return "arrays are handed in by its ops"
    if law == "further" and not component.also:
        return "the case adds no equality of its own"
    if law == "sizes" and kind not in ("op", "value", "module"):
        return "it takes no array of free shape"
    if law == "nonfinite" and kind not in ("op", "value"):
        return "judged on the ops it is made of"
    if law == "refusals" and not component.refuses:
        return "the case lists nothing that must be refused"
    if law == "distribution" and kind not in ("initialiser", "module"):
        return "it initialises nothing"
    if law == "state" and kind != "module":
        return "it holds no parameters"
    return ""
