"""The mutants of `product` that no law can see."""

_FASTER = "one order of the factors or the other: the same product"

EQUIVALENT = {
    "1 < len(x) <= _FEW -> 1 <= len(x) <= _FEW": _FASTER,
    "1 < len(x) <= _FEW -> 1 < len(x) < _FEW": _FASTER,
    "1 < len(x) <= _FEW -> 2 < len(x) <= _FEW": _FASTER,
    "_FEW = 16 -> _FEW = 17": _FASTER,
}
