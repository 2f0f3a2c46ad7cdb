"""What no law can see in the sums of a token's rows."""

_SPEED = "how many tokens are summed at a time is a matter of speed"

EQUIVALENT = {
    "count * width -> width": _SPEED,
    "count * width -> count": _SPEED,
}
