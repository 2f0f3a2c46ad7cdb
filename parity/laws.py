"""All laws by name, in the order in which they are tried and reported."""

from collections.abc import Callable

from parity import component_laws, example_laws
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
