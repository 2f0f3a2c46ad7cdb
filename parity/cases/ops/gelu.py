"""What the GELUs are fed: any shape; and how many of its digits must be right in float32."""

import math

import numpy as np

from parity.cases import array, case, dims, one_of


def _drawn(draw):
    # Between −9 and −5 torch's 1 + erf and 1 + tanh have lost most of their digits: enter only in the company of larger numbers.
    shape = draw(dims(min_rank=0))
    scale = draw(one_of(1.0, 4.0)) if math.prod(shape) > 8 else 1.0
    return dict(x=draw(array(*shape, scale=scale, hostile=scale == 1.0 and math.prod(shape) != 1)))


def right_digits(side, x):
    """In NumPy the float32 Φ = y / x is within 1.5 units in the last place of 1, also where x² overflows; PyTorch's is within 2.5."""
    if side.name != "numpy":
        return
    points = np.append(np.linspace(-6, 6, 3000), [1e4, 1e25, -1e4, -1e25]).astype(np.float32)
    want = np.array([math.erfc(-p / math.sqrt(2)) / 2 for p in points.tolist()])
    y, _ = side.get("ops.gelu")(points)
    yield "halves of a unit of Φ beyond 3", max(np.abs(y.astype(float) / points - want).max() * 2**24 - 3, 0.0), 0.0


_NUMERATOR = "_NUMERATOR = [0.823792693, 0.0437033562, 0.144046708, 0.0105836615]"
_DENOMINATOR = "_DENOMINATOR = [1.0, 0.01090677, 0.197572495, 0.0286988431]"
_ROWS = "how many rows there are to work in is a matter of speed"
_BELOW = "a millionth of this weight moves Φ by less than float32's last place"


@case(
    "ops.gelu",
    refuses=[dict(x=3.0)],
    also=[right_digits],
    equivalent={
        f"{_NUMERATOR} -> {_NUMERATOR.replace('0.0437033562', '0.0437033999033562')}": _BELOW,
        f"{_NUMERATOR} -> {_NUMERATOR.replace('0.144046708', '0.144046852046708')}": _BELOW,
        f"{_NUMERATOR} -> {_NUMERATOR.replace('0.0105836615', '0.0105836720836615')}": _BELOW,
        f"{_DENOMINATOR} -> {_DENOMINATOR.replace('0.01090677', '0.01090678090677')}": _BELOW,
        f"{_DENOMINATOR} -> {_DENOMINATOR.replace('0.197572495', '0.197572692572495')}": _BELOW,
        f"{_DENOMINATOR} -> {_DENOMINATOR.replace('0.0286988431', '0.0286988717988431')}": _BELOW,
        "_LEAST = -512 -> _LEAST = -511": "exp is 0 either way, and no x that matters reaches it",
    },
)
def gelu(draw):
    return _drawn(draw)


@case("ops.gelu_tanh", refuses=[dict(x=3.0)], equivalent={
    "by_blocks(_gelu_tanh, x, outputs=2, scratch=2) -> by_blocks(_gelu_tanh, x, outputs=2, scratch=3)": _ROWS,
})
def gelu_tanh(draw):
    return _drawn(draw)


@case("ops.gelu_sigmoid", refuses=[dict(x=3.0)])
def gelu_sigmoid(draw):
    return _drawn(draw)
