"""What no_repeat_ngram is fed: histories of few ids, shorter and longer than a run, padding in front, behind and between."""

import numpy as np

from parity.cases import array, case, ids, left_out, one_of
from parity.cases.decode._logits import bad_histories, padding_is_not_looked_at, some_history, some_rows
from parity.values import key_rng


def as_defined(side, logits, history, **options):
    """Run by run, in a longer history."""
    rng = key_rng("longer", logits.shape)
    for size in (1, 2, 3, 4):
        history = rng.integers(0, 3, (4, 40))
        want = np.zeros((4, 5))
        for row, tokens in enumerate(history.tolist()):
            for at in range(len(tokens) - size + 1):
                if tokens[at:at + size - 1] == tokens[len(tokens) - size + 1:]:
                    want[row, tokens[at + size - 1]] = -np.inf
        zeros = side.array(np.zeros((4, 5)))
        yield f"runs of {size}", side.get("decode.no_repeat_ngram")(zeros, history=side.array(history), size=size), want


@case(
    "decode.no_repeat_ngram",
    gradient=False,
    also=[as_defined, padding_is_not_looked_at("decode.no_repeat_ngram")],
    bench=dict(logits=array(8, 128000), history=ids(8, 1024, below=100), size=2),
    refuses=[*bad_histories(size=2), *(dict(logits=array(2, 3), history=ids(2, 2, below=3), size=bad) for bad in (0, -1, 1.0, None, True))],
)
def no_repeat_ngram(draw):
    logits, v = some_rows(draw, min_rank=2, max_rank=2)
    history, real = some_history(draw, rows_of=logits.shape[0], below=v)
    return dict(logits=logits, history=history, size=draw(one_of(1, 2, 2, 3, 4)), real=draw(left_out(None)) if real is None else real)
