"""Changes to the filling of arrays that no law can see."""

_WHY = "how many numbers are drawn at once is a matter of memory: the generator's stream is the same"
EQUIVALENT = {"1 << 17 -> 2 << 17": _WHY, "1 << 17 -> 1 << 18": _WHY}
