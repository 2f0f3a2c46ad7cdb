"""What no law can see in the base of the optimizers."""

_SPEED = "how much is worked on at a time is a matter of speed"
_ALIKE = "the parameter and its gradient have one shape and one dtype"

EQUIVALENT = {
    "128 * 1024 -> 128 / 1024": _SPEED,
    "max(1, _PIECE // max(1, walked[:1].nbytes)) -> max(2, _PIECE // max(1, walked[:1].nbytes))": _SPEED,
    "max(1, walked[:1].nbytes) -> max(2, walked[:1].nbytes)": _SPEED,
    "piece[0] -> piece[1]": _ALIKE,
    "part[0] -> part[1]": _ALIKE,
    "part[0] -> part[1] #2": _ALIKE,
}
