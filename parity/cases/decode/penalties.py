"""What the penalties are fed: logits of both signs, tokens that came often, once and never; padding of ids that are none."""

from parity.cases import array, case, ids, left_out, one_of
from parity.cases.decode._logits import bad_histories, padding_is_not_looked_at, some_history, some_rows

_REFUSED = (float("nan"), float("inf"), None, "1")


def _bench(**options):
    return dict(logits=array(8, 128000), history=ids(8, 1024, below=128000), **options)


def _inputs(draw):
    logits, v = some_rows(draw, min_rank=2, max_rank=2)
    history, real = some_history(draw, rows_of=logits.shape[0], below=v)
    return dict(logits=logits, history=history, real=draw(left_out(None)) if real is None else real)


@case(
    "decode.repetition_penalty",
    gradient=False,
    also=[padding_is_not_looked_at("decode.repetition_penalty")],
    bench=_bench(penalty=1.2),
    refuses=[
        *bad_histories(penalty=1.2),
        *(dict(logits=array(2, 3), history=ids(2, 2, below=3), penalty=bad) for bad in (*_REFUSED, 0.0, -1.0)),
    ],
    equivalent={"old > 0 -> old >= 0": "zero divided and zero multiplied are both zero"},
)
def repetition_penalty(draw):
    return _inputs(draw) | dict(penalty=draw(one_of(1.0, 1.3, 5, 0.7)))


@case(
    "decode.frequency_penalty",
    gradient=False,
    also=[padding_is_not_looked_at("decode.frequency_penalty")],
    bench=_bench(penalty=0.5),
    refuses=[*bad_histories(penalty=0.5), *(dict(logits=array(2, 3), history=ids(2, 2, below=3), penalty=bad) for bad in _REFUSED)],
)
def frequency_penalty(draw):
    return _inputs(draw) | dict(penalty=draw(one_of(0.0, 0.3, 2, -0.7)))


@case(
    "decode.presence_penalty",
    gradient=False,
    also=[padding_is_not_looked_at("decode.presence_penalty")],
    bench=_bench(penalty=0.5),
    refuses=[*bad_histories(penalty=0.5), *(dict(logits=array(2, 3), history=ids(2, 2, below=3), penalty=bad) for bad in _REFUSED)],
)
def presence_penalty(draw):
    return _inputs(draw) | dict(penalty=draw(one_of(0.0, 0.3, 2, -0.7)))
