"""What no law can see in the pieces of blocks."""

_SPEED = "how much is worked on at a time is a matter of speed"
_ALIGNED = "where the memory begins is a matter of speed"

EQUIVALENT = {
    "1 << 15 -> 2 << 15": _SPEED,
    "1 << 15 -> 1 << 16": _SPEED,
    "width=1 -> width=2": _SPEED,
    "max(1, _NUMBERS // max(1, width)) -> max(2, _NUMBERS // max(1, width))": _SPEED,
    "max(1, width) -> max(2, width)": _SPEED,
    "min(first.size, _NUMBERS) -> max(first.size, _NUMBERS)": "how much memory there is to work in is a matter of speed",
    "pieces[0] -> pieces[1]": "all of them have one size",
    "-memory.ctypes.data -> memory.ctypes.data": _ALIGNED,
}
