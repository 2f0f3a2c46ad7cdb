"""What sinkhorn is fed: no token, one expert, more experts than tokens, one round and several, spreads that only logarithms survive."""

import numpy as np

from parity.cases import array, case, integer, left_out, one_of, size


def rows_are_right_and_columns_become_so(side, logits, *, iterations=8):
    """After any number of rounds the rows sum to 1; of moderate logits, many rounds bring the columns to N / E."""
    n, e = logits.shape

    def run(z, rounds):
        y = side.get("moe.sinkhorn")(z, iterations=rounds)
        return side.numpy(y[0] if side.name == "numpy" else y)

    yield "rows", run(logits, iterations).sum(1), np.ones(n)
    if n:
        mild = side.array(np.tanh(side.numpy(logits)))
        yield "columns", run(mild, 100).sum(0), np.full(e, n / e)


@case(
    "moe.sinkhorn",
    bench=dict(logits=array(4096, 64)),
    also=[rows_are_right_and_columns_become_so],
    refuses=[
        dict(logits=array(3)),
        dict(logits=array(2, 3, 4)),
        dict(logits=array(3, 0)),
        dict(logits=np.array([[1, 2]])),
        dict(logits=array(2, 3), iterations=0),
        dict(logits=array(2, 3), iterations=2.0),
        dict(logits=np.array([[0.0, np.nan]])),
    ],
)
def sinkhorn(draw):
    n, e = draw(size(0, 7)), draw(size(1, 6))
    return dict(logits=array(n, e), iterations=draw(left_out(one_of(1, 2, integer(3, 12)))))
