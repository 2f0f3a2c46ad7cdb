"""What erf is fed: any shape; and how many of its digits must be right."""

import math

import numpy as np

from parity.cases import array, case, dims, one_of


def right_digits(side, x):
    """In NumPy every result is within a few units in the last place; PyTorch's vectorised float64 erf keeps eleven digits only."""
    if side.name != "numpy":
        return
    for dtype, farthest, allowed in ((np.float64, 5.8, 2.0), (np.float32, 3.8, 2.5)):
        points = np.append(np.linspace(-farthest, farthest, 3001), [1e25, -1e25, math.inf]).astype(dtype)  # far out too, where x² overflows
        want = np.array([math.erf(p) for p in points.tolist()])
        got, _ = side.get("ops.erf")(points)
        units = np.abs(got - want) / np.spacing(np.abs(want).astype(dtype)).astype(float)
        yield f"units in the last place beyond {allowed}, {np.dtype(dtype)}", max(units.max() - allowed, 0.0), 0.0


_NUMERATOR = "_NUMERATOR = [0.128379171, 0.122914393, 0.0189568095, 0.00185341502]"
_DENOMINATOR = "_DENOMINATOR = [1.0, 0.156893678, 0.0236904528, 0.000324940272]"
_BELOW = "a millionth of this coefficient moves erf by less than float32's last place"


@case(
    "ops.erf",
    refuses=[dict(x=3.0)],
    also=[right_digits],
    equivalent={
        f"{_NUMERATOR} -> {_NUMERATOR.replace('0.122914393', '0.122914515914393')}": _BELOW,
        f"{_NUMERATOR} -> {_NUMERATOR.replace('0.0189568095', '0.0189568284568095')}": _BELOW,
        f"{_NUMERATOR} -> {_NUMERATOR.replace('0.00185341502', '0.00185341687341502')}": _BELOW,
        f"{_DENOMINATOR} -> {_DENOMINATOR.replace('0.156893678', '0.156893834893678')}": _BELOW,
        f"{_DENOMINATOR} -> {_DENOMINATOR.replace('0.0236904528', '0.0236904764904528')}": _BELOW,
        f"{_DENOMINATOR} -> {_DENOMINATOR.replace('0.000324940272', '0.000324940596940272')}": _BELOW,
        "_FAR_OUT = 16 -> _FAR_OUT = 17": "from 15.4 on erf is 1 in float32",
        "by_blocks(fill, dy, x, scratch=1) -> by_blocks(fill, dy, x, scratch=2)": "how many rows there are to work in is a matter of speed",
        "np.minimum(np.abs(x), 6) -> np.minimum(np.abs(x), 7)": "from 5.9 on erf is 1 in float64",
        "t < 1 -> t <= 1": "at 1 the series and the polynomial agree",
    },
)
def erf(draw):
    return dict(x=draw(array(*draw(dims(min_rank=0)), scale=draw(one_of(1.0, 3.0)))))
