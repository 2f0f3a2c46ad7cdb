"""What the temperature is fed: 0, 1, below and above; ties for the largest."""

from parity.cases import array, case, one_of
from parity.cases.decode._logits import bad_rows, some_rows


@case(
    "decode.temperature",
    gradient=False,
    bench=dict(logits=array(8, 128000), temperature=0.7),
    refuses=[
        *bad_rows(temperature=0.7),
        *(dict(logits=array(2, 3), temperature=bad) for bad in (-0.1, float("nan"), float("inf"), None, True)),
    ],
)
def temperature(draw):
    logits, _ = some_rows(draw)
    return dict(logits=logits, temperature=draw(one_of(0, 0.0, 1.0, 0.3, 2.5)))
