"""What no law can see in the packing of 4-bit codes."""

_SPEED = "how many values are worked on together is a matter of speed"

EQUIVALENT = {
    "_CHUNK = 32768 -> _CHUNK = 32769": _SPEED,
}
