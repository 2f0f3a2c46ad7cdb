"""What no law can see in the base of the optimizers."""

_SPEED = "how much is worked on at a time is a matter of speed"
_PAGES = "when pages of moments are given back changes no number; tests/optim/test_paged_adamw.py measures the memory"
_ALIKE = "the parameter and its gradient have one shape and one dtype"

EQUIVALENT = {
    "128 * 1024 -> 128 / 1024": _SPEED,
    "128 * 1024 -> 1024": _SPEED,
    "128 * 1024 -> 128": _SPEED,
    "128 * 1024 -> 129 * 1024": _SPEED,
    "128 * 1024 -> 128 * 1025": _SPEED,
    "max(1, _PIECE // max(1, walked[:1].nbytes)) -> max(2, _PIECE // max(1, walked[:1].nbytes))": _SPEED,
    "_PIECE // max(1, walked[:1].nbytes) -> _PIECE % max(1, walked[:1].nbytes)": _SPEED,
    "max(1, walked[:1].nbytes) -> max(2, walked[:1].nbytes)": _SPEED,
    "walked[:1] -> walked[:2]": _SPEED,
    "len(kept) * piece[0].nbytes -> len(kept) / piece[0].nbytes": _PAGES,
    "len(kept) * piece[0].nbytes -> piece[0].nbytes": _PAGES,
    "len(kept) * piece[0].nbytes -> len(kept)": _PAGES,
    "piece[0] -> piece[1]": _ALIKE,
    "part[0] -> part[1]": _ALIKE,
    "part[0] -> part[1] #2": _ALIKE,
}
