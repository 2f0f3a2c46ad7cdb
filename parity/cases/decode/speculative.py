"""What speculative decoding is fed: a model and a draft of a few states, alike, unlike or none, prompts of several lengths, all rules."""

from typing import Any

import numpy as np

from byhand.configs.generation import GenerationConfig
from parity.cases import array, case, flag, ids, integer, left_out, mask, maybe, noise, one_of, size
from parity.cases.decode._reader import Reader


def play(side, ids, raw=None, before=None, encodes=False, **arguments):
    """What is found, what the caches hold in the end, and what was read in each call."""
    model, draft, options, given = _prepared(side, **arguments)
    options["config"] = options["config"] if raw is None else raw
    if encodes:
        model.encode = None
        return side.get("decode.speculative")(model, draft, side.array(ids), **options)
    cache, own = model.new_cache(), None if draft is None else draft.new_cache()
    if before is not None:
        for reader, held in ((model, cache), (draft, own)):
            if held is not None:
                reader.extend(side.array(before), held)
    found = side.get("decode.speculative")(model, draft, side.array(ids), cache=cache, draft_cache=own, **options, **given)
    told = {} if own is None else {"draft's lengths": own.lengths, "draft's calls": _shapes(own.calls)}
    return found._asdict() | {"held": cache.lengths, "calls": _shapes(cache.calls)} | told


def as_generate(side, ids, before=None, **arguments):
    """Where nothing is drawn it is `generate`, whatever the draft; a draft that is the model is always right; caches are made if none is
    given; and a row is what it is without the others."""
    model, draft, options, given = _prepared(side, **arguments)
    speculative, config = side.get("decode.speculative"), options["config"]
    got = speculative(model, draft, ids, **options, **given)
    if config.temperature == 0:
        want = side.get("decode.generate")(model, ids, config=config, **given)
        yield "sequences", got.sequences, want.sequences
        yield "lengths", got.lengths, want.lengths
        yield "reasons", got.reasons == want.reasons, True
    if draft is model and not config.eos:
        yield "accepted", got.accepted, got.drafted
    if len(ids):
        row = speculative(model, draft, ids[:1], **options, **{name: value[:1] for name, value in given.items()})
        n = row.sequences.shape[1]
        yield "the first row", row.sequences, got.sequences[:1, :n]
        for name in ("lengths", "rounds", "drafted", "accepted"):
            yield f"{name} of the first row", getattr(row, name), getattr(got, name)[:1]


def in_the_text(side, **inputs):
    """Three last tokens are looked for and not a fourth; what followed is guessed up to the text's end."""
    zeros, turns = np.zeros((1, 6)), np.eye(5, 2)                       # one model says 0, the other one 0 1 0 1 …, reading its own text
    zeros[0, 0] = 1
    for label, table, prompt, most, lookahead, want in (
        ("three", zeros, [4, 2, 3, 0, 0, 5, 2, 3, 0, 1, 5, 2, 3], 3, 1, (1, 1, 1)),
        ("up to the end", turns, [0], 6, 2, (3, 2, 2)),
    ):
        model, config = Reader(side, side.array(table)), GenerationConfig(max_new_tokens=most)
        found = side.get("decode.speculative")(model, None, side.array(np.array([prompt])), config=config, lookahead=lookahead)
        for name, value in zip(("rounds", "drafted", "accepted"), want, strict=True):
            yield f"{name} {label}", getattr(found, name), np.array([value])


def an_end_in_a_run(side, **inputs):
    """The end token, that may come as the fourth and does, is the third of a draft; another row's context is full by then."""
    table = np.zeros((1, 4))
    table[0, 0] = 1
    model, config = Reader(side, side.array(table), max_length=5), GenerationConfig(max_new_tokens=9, min_new_tokens=3, eos=0)
    real = side.array(np.array([[False, False, False, True], [True] * 4]))
    found = side.get("decode.speculative")(model, model, side.array(np.ones((2, 4), np.int64)), config=config, real=real)
    yield "sequences with an end in a run", found.sequences, np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    yield "lengths with an end in a run", found.lengths, np.array([4, 2])
    yield "reasons with an end in a run", found.reasons == ("eos", "context"), True


def _shapes(calls):
    return np.array(calls, np.int64).reshape(-1, 2)


def _prepared(side, table, draft=None, real=None, lookahead=None, noise=None, contexts=(None, None), **options):
    """Both models, what else is given, and which prompts' tokens are no padding."""
    table, draft = np.array(side.numpy(table)), side.numpy(draft)
    model = Reader(side, side.array(table), max_length=contexts[0])
    guess: Any
    if isinstance(draft, str):
        guess = model if draft == "the model" else Reader(side, side.array(0.8 * table + 0.3 * np.sin(9 * table)), max_length=contexts[1])
    else:
        guess = None if draft is None else Reader(side, side.array(draft), max_length=contexts[1])
    told = {} if real is None else {"real": side.array(_told(side.numpy(real)))}
    options = {"config": GenerationConfig(**options), "noise": noise}
    return model, guess, options | ({} if lookahead is None else {"lookahead": lookahead}), told


def _told(real):
    """No row is all padding."""
    return real if real.dtype != bool or real.shape[-1] < 2 else real | (~real.any(-1, keepdims=True) & (np.arange(real.shape[-1]) == 0))


BAD = dict(table=array(3, 4, hostile=False), draft=array(3, 4, hostile=False), ids=np.array([[1, 2], [0, 3]]))


@case(
    "decode.speculative", play=play, also=[as_generate, in_the_text, an_end_in_a_run],
    refuses=[
        BAD | dict(ids=np.zeros((2, 0), np.int64)),
        BAD | dict(ids=np.zeros(2, np.int64)),
        BAD | dict(ids=np.zeros((2, 2))),
        BAD | dict(real=np.ones((2, 1), bool)),
        BAD | dict(real=np.ones((2, 2))),
        BAD | dict(draft=array(3, 5, hostile=False)),
        BAD | dict(lookahead=0),
        BAD | dict(lookahead=33),
        BAD | dict(lookahead=2.0),
        BAD | dict(beams=2),
        BAD | dict(stop="end"),
        BAD | dict(temperature=1.0),
        BAD | dict(noise=3),
        BAD | dict(raw={"temperature": 0}),
        BAD | dict(contexts=(1, None)),
        BAD | dict(contexts=(None, 1)),
        BAD | dict(contexts=(3, None), before=np.array([[1, 2], [0, 3]])),
        BAD | dict(encodes=True),
        BAD | dict(table=np.full((3, 4), np.nan)),
        BAD | dict(draft=np.full((3, 4), np.inf)),
    ],
    equivalent={"Noise(seed=0) -> Noise(seed=1)": "what is certain is drawn by any noise"},
)
def speculative(draw):
    vocabulary, b, t = draw(size(1, 6)), draw(size(0, 3)), draw(integer(1, 9))
    most = draw(integer(6, 12)) if draw.ordinary else draw(one_of(0, integer(1, 12)))
    states, before = draw(one_of(5, 31)), draw(one_of(0, 0, 2))         # of few states texts soon repeat themselves
    temperature = draw(one_of(0.0, 0.0, 0.7, 1.5))
    rules = dict(
        min_new_tokens=draw(left_out(integer(0, most))), suppressed=draw(left_out((0,))), no_repeat_ngram=draw(left_out(4)),
        top_k=draw(left_out(3)), top_p=draw(left_out(0.9)), forced_last=draw(left_out(1)), frequency_penalty=draw(left_out(0.3)),
    )
    return dict(
        table=array(states, vocabulary, hostile=False), before=ids(b, before, below=vocabulary) if before else None,
        draft=draw(one_of(None, None, "the model", *3 * ("like the model",), array(states, vocabulary, hostile=False))),
        ids=ids(b, t, below=vocabulary), real=draw(maybe(mask(b, t))) if t > 1 else None, lookahead=draw(left_out(integer(1, 6))),
        noise=draw(noise()) if temperature or draw(flag()) else None, max_new_tokens=most, temperature=temperature,
        contexts=tuple(draw(maybe(integer(t + before, t + before + most))) for most in (9, 4)), eos=draw(one_of((), (), (0,), (1, 2))),
        pad=draw(maybe(integer(0, 3))), repetition_penalty=draw(left_out(one_of(0.7, 1.6))),
        **(rules if vocabulary > 4 else {}),
    )
