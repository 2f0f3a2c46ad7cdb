"""What process is fed: every rule alone, none, all together, at the first step, in between and at the last; and what it refuses."""

import numpy as np

from byhand.configs.generation import GenerationConfig
from parity.cases import array, case, dims, flag, ids, integer, left_out, one_of
from parity.cases.decode._logits import bad_rows, some_history
from parity.values import key_rng

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


def each_rule_by_itself(side, scores, history, **options):
    """One setting is one function, with the minimum that a search with beams needs; penalties for what was generated see only that."""
    scores = side.array(key_rng("scores", scores.shape).standard_normal((2, 16)))
    tokens = side.array(np.array([[1, 2, 3, 1, 2], [3, 3, 0, 4, 0]]))
    new = tokens[:, 3:]

    def by_hand(name, **arguments):
        return side.get(f"decode.{name}")(scores, **arguments)

    def processed(**settings):
        return side.get("decode.process")(scores, history=tokens, generated=2, config=GenerationConfig(**settings))

    drawn, several = dict(temperature=1.0), dict(temperature=1.0, beams=2, eos=(7, 8, 9))
    yield "temperature", processed(temperature=2.0), by_hand("temperature", temperature=2.0)
    for least, settings in ((1, drawn), (4, several), (2, dict(temperature=1.0, beams=2)), (2, dict(temperature=1.0, beams=2, eos=(7,)))):
        yield f"top_k {least}", processed(top_k=1, **settings), by_hand("keep_top_k", k=least)
        yield f"top_p {least}", processed(top_p=1e-9, **settings), by_hand("keep_top_p", p=1e-9, minimum=least)
        yield f"min_p {least}", processed(min_p=1.0, **settings), by_hand("keep_min_p", p=1.0, minimum=least)
        yield f"typical {least}", processed(typical=1e-9, **settings), by_hand("keep_typical", mass=1e-9, minimum=least)
        yield f"epsilon {least}", processed(epsilon=0.99, **settings), by_hand("keep_epsilon", epsilon=0.99, minimum=least)
        yield f"eta {least}", processed(eta=0.99, **settings), by_hand("keep_eta", epsilon=0.99, minimum=least)
    yield "repetition", processed(repetition_penalty=2.0), by_hand("repetition_penalty", history=tokens, penalty=2.0)
    yield "frequency", processed(frequency_penalty=0.5), by_hand("frequency_penalty", history=new, penalty=0.5)
    yield "presence", processed(presence_penalty=0.5), by_hand("presence_penalty", history=new, penalty=0.5)
    yield "n-grams", processed(no_repeat_ngram=3), by_hand("no_repeat_ngram", history=tokens, size=3)
    yield "banned", processed(banned=((1, 2, 9), (5,))), by_hand("ban_words", history=tokens, words=((1, 2, 9), (5,)))
    yield "minimum length", processed(eos=(7,), min_new_tokens=3), by_hand("suppress", tokens=(7,))
    yield "minimum length reached", processed(eos=(7,), min_new_tokens=2), scores
    yield "forced", processed(forced_last=5, max_new_tokens=3), by_hand("force_token", token=5)
    yield "forced at other steps", processed(forced_first=5, forced_last=5), scores


@case(
    "decode.process",
    gradient=False,
    also=[each_rule_by_itself],
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
