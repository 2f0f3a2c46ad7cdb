"""What the temperature is fed: 0, 1, below and above, so small that no quotient is a finite float; ties for the largest."""

import numpy as np

from parity.cases import array, case, one_of
from parity.cases.decode._logits import bad_rows, some_rows


def however_small(side, logits, *, temperature):
    """The largest ones share everything, whether their quotients are finite or not."""
    for small in (1e-36, 1e-300, 5e-324):
        y = np.array(side.numpy(side.get("decode.temperature")(logits, temperature=small)), np.float64)
        own = side.numpy(logits)
        likely = np.exp(y - y.max(-1, keepdims=True))
        yield f"likely at {small}", likely, (own == own.max(-1, keepdims=True)).astype(np.float64)


@case(
    "decode.temperature",
    gradient=False,
    also=[however_small],
    bench=dict(logits=array(8, 128000), temperature=0.7),
    refuses=[
        *bad_rows(temperature=0.7),
        *(dict(logits=array(2, 3), temperature=bad) for bad in (-0.1, float("nan"), float("inf"), None, True)),
    ],
)
def temperature(draw):
    logits, _ = some_rows(draw)
    return dict(logits=logits, temperature=draw(one_of(0, 0.0, 1.0, 0.3, 2.5)))
