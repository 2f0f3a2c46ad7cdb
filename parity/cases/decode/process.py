"""What process is fed: every rule alone, none, all together, at the first step, in between and at the last; and what it refuses."""

import numpy as np

from byhand.configs.generation import GenerationConfig
from parity.cases import array, case, dims, flag, ids, integer, left_out, one_of
from parity.cases.decode._logits import bad_rows, some_history

_RULES = dict(
    temperature=one_of(1.0, 0.3, 2.5),
    top_k=integer(1, 6),
    top_p=one_of(0.613, 0.913),
    min_p=one_of(0.0137, 0.137),
    typical=one_of(0.613, 0.913),
    epsilon=one_of(0.0217, 0.0837),
    eta=one_of(0.0217, 0.0837),
    repetition_penalty=one_of(1.3, 0.7),
    frequency_penalty=one_of(0.3, -0.7),
    presence_penalty=one_of(0.3, -0.7),
    no_repeat_ngram=integer(1, 3),
    banned=one_of(((0,), (1, 2)), ((2, 0, 1), (1, 1))),
    min_new_tokens=one_of(1, 3),
    suppressed=one_of((3,), (3, 4)),
    forced_first=5,
    forced_last=6,
)
_HISTORY = np.array([[0, 1], [2, 0]])


def _config(**options):
    return dict(scores=array(2, 3), history=_HISTORY, generated=1, config=GenerationConfig(**options))


@case(
    "decode.process",
    gradient=False,
    bench=dict(
        scores=array(8, 128000, scale=4.0), history=ids(8, 1024, below=128000), generated=100,
        config=GenerationConfig(temperature=0.8, top_k=50, top_p=0.9, repetition_penalty=1.1),
    ),
    refuses=[
        *(dict(scores=bad.pop("logits"), **bad) for bad in bad_rows(history=_HISTORY, generated=0, config=GenerationConfig())),
        dict(scores=array(2, 3), history=_HISTORY, generated=3, config=GenerationConfig()),
        dict(scores=array(2, 3), history=_HISTORY, generated=-1, config=GenerationConfig()),
        dict(scores=array(2, 3), history=_HISTORY, generated=1, config=dict(top_k=1)),
        dict(scores=array(2, 3), history=_HISTORY, generated=1, config=None),
        dict(scores=array(2, 3), history=None, generated=0, config=GenerationConfig()),
        dict(scores=None, history=_HISTORY, generated=0, config=GenerationConfig()),
        dict(scores=array(2, 3), history=_HISTORY[0], generated=0, config=GenerationConfig()),
        _config(suppressed=(0, 1, 2)),
        _config(suppressed=(3,)),
        _config(banned=((0,), (1,), (0, 2))),
        _config(eos=(3,), min_new_tokens=2),
        _config(forced_last=3, max_new_tokens=2),
        _config(forced_last=1, suppressed=(1,), max_new_tokens=2),
        dict(_config(repetition_penalty=2.0), history=np.array([[0, 1], [3, 0]])),
    ],
)
def process(draw):
    rows, _ = draw(dims(2, 2))
    v = draw(one_of(1, 2)) if draw.edges else draw(one_of(16, 40))
    history, real = some_history(draw, rows_of=rows, below=min(v, 3))
    rules = {} if v < 16 else {name: rule for name, rule in _RULES.items() if draw(one_of(True, False, False))}
    if draw(flag()):
        rules |= dict(temperature=_RULES["temperature"])
    config = GenerationConfig(
        **{name: draw(rule) for name, rule in rules.items()},
        max_new_tokens=draw(one_of(3, 4, 9)),
        eos=draw(one_of((), (7,), (7, 8, 9))) if v >= 16 else (),
        beams=draw(one_of(1, 1, 3)),
    )
    generated = min(draw(one_of(0, 0, 1, 2, 3)), history.shape[1])
    return dict(scores=array(rows, v, scale=2.0, hostile=False), history=history, generated=generated, config=config,
                real=draw(left_out(None)) if real is None else real)
