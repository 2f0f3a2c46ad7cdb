"""What the constraints are fed: no words, words of one to three tokens, words longer than the history; no tokens and tokens twice."""

from parity.cases import array, case, ids, integer, left_out, one_of
from parity.cases.decode._logits import bad_histories, padding_is_not_looked_at, some_history, some_rows


@case(
    "decode.ban_words",
    gradient=False,
    also=[padding_is_not_looked_at("decode.ban_words")],
    bench=dict(logits=array(8, 128000), history=ids(8, 1024, below=100), words=((3,), (5, 7), (5, 6, 7))),
    refuses=[
        *bad_histories(words=((1,),)),
        *(
            dict(logits=array(2, 3), history=ids(2, 2, below=3), words=bad)
            for bad in (((),), ((3,),), ((0, -1),), ((0, 3),), ((3, 0),), ((1.0,),), (1,), None, ((True,),))
        ),
    ],
)
def ban_words(draw):
    logits, v = some_rows(draw, min_rank=2, max_rank=2)
    history, real = some_history(draw, rows_of=logits.shape[0], below=v)
    id_ = integer(0, min(v, 3) - 1)
    words = tuple(tuple(draw(id_) for _ in range(draw(one_of(1, 2, 2, 3)))) for _ in range(draw(integer(0, 5))))
    return dict(logits=logits, history=history, words=words, real=draw(left_out(None)) if real is None else real)


@case(
    "decode.force_token",
    gradient=False,
    bench=dict(logits=array(8, 128000), token=7),
    refuses=[
        dict(logits=array(), token=0),
        dict(logits=ids(2, 3, below=3), token=0),
        *(dict(logits=array(2, 3), token=bad) for bad in (-1, 3, 1.0, None, True)),
    ],
)
def force_token(draw):
    logits, v = some_rows(draw)
    return dict(logits=logits, token=draw(integer(0, v - 1)))


@case(
    "decode.suppress",
    gradient=False,
    bench=dict(logits=array(8, 128000), tokens=(7, 9)),
    refuses=[
        dict(logits=array(), tokens=(0,)),
        dict(logits=ids(2, 3, below=3), tokens=(0,)),
        *(dict(logits=array(2, 3), tokens=bad) for bad in ((-1,), (0, 3), (1.0,), 1, None, (True,))),
    ],
)
def suppress(draw):
    logits, v = some_rows(draw)
    return dict(logits=logits, tokens=tuple(draw(integer(0, v - 1)) for _ in range(draw(integer(0, 4)))))
