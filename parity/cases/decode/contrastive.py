"""What contrastive search is fed: a model of a few states with directions of their own, prompts of several lengths, every way to end."""

import numpy as np

from byhand.configs.generation import GenerationConfig
from parity.cases import array, case, flag, ids, integer, left_out, mask, maybe, number, one_of, size
from parity.cases.decode._reader import Reader

STATES = 31


def play(side, ids, raw=None, before=None, encodes=False, **arguments):
    """What is found, and what was read in each call."""
    model, options, given = _prepared(side, **arguments)
    options["config"] = options["config"] if raw is None else raw
    if encodes:
        model.encode = None
        return side.get("decode.contrastive")(model, side.array(ids), **options)
    cache = model.new_cache()
    if before is not None:
        model.extend(side.array(before), cache)
    found = side.get("decode.contrastive")(model, side.array(ids), cache=cache, **options, **given)
    return found._asdict() | {"calls": np.array(cache.calls, np.int64).reshape(-1, 2)}


def greedy_without_contrast(side, ids, before=None, **arguments):
    """With α = 0, or one candidate, it is `generate`, short of the token behind a full context; a row is what it is without the others."""
    model, options, given = _prepared(side, **arguments)
    contrastive, config = side.get("decode.contrastive"), options["config"]
    want = side.get("decode.generate")(model, ids, config=config, **given)
    for label, plain in (("alpha", options | {"alpha": 0.0}), ("k", options | {"k": 1})):
        got = contrastive(model, ids, **plain, **given)
        n = got.sequences.shape[1]
        read = np.arange(n) < side.numpy(got.lengths)[:, None]
        yield f"sequences without {label}", side.numpy(got.sequences) * read, side.numpy(want.sequences)[:, :n] * read
        if model.config.max_length is None:
            yield f"lengths without {label}", got.lengths, want.lengths
            yield f"reasons without {label}", got.reasons == want.reasons, True
    if len(ids):
        got = contrastive(model, ids, **options, **given)
        row = contrastive(model, ids[:1], **options, **{name: value[:1] for name, value in given.items()})
        yield "the first row", row.sequences, got.sequences[:1, : row.sequences.shape[1]]
        yield "length of the first row", row.lengths, got.lengths[:1]


def what_is_excluded(side, table, hidden, ids, real=None, before=None, **arguments):
    """A candidate that a rule excludes is not taken, however new its direction is: with α = 1, that alone decides between the others."""
    model, _, given = _prepared(side, table, hidden, real)
    vocabulary = side.numpy(table).shape[1]
    config = GenerationConfig(max_new_tokens=3, suppressed=tuple(range(1, vocabulary)))
    got = side.get("decode.contrastive")(model, ids, config=config, k=vocabulary, alpha=1.0, **given)
    yield "what is left", got.sequences, np.zeros((len(ids), 3 if len(ids) else 0), np.int64)


def _prepared(side, table, hidden, real=None, context=None, k=None, alpha=None, still=False, **options):
    """The model, of which some states may have no direction; what else is given, and which prompts' tokens are no padding."""
    table, hidden = (np.array(side.numpy(x)) for x in (table, hidden))
    if still:
        hidden[::2] = 0
    model = Reader(side, side.array(table), side.array(hidden), max_length=context)
    told = {} if real is None else {"real": side.array(_told(side.numpy(real)))}
    given = {name: value for name, value in (("k", k), ("alpha", alpha)) if value is not None}
    return model, given | {"config": GenerationConfig(**options)}, told


def _told(real):
    """No row is all padding."""
    return real if real.dtype != bool or real.shape[-1] < 2 else real | (~real.any(-1, keepdims=True) & (np.arange(real.shape[-1]) == 0))


BAD = dict(table=array(3, 4, hostile=False), hidden=array(3, 2, hostile=False), ids=np.array([[1, 2], [0, 3]]))


@case(
    "decode.contrastive", play=play, also=[greedy_without_contrast, what_is_excluded],
    refuses=[
        BAD | dict(ids=np.zeros((2, 0), np.int64)),
        BAD | dict(ids=np.zeros(2, np.int64)),
        BAD | dict(ids=np.zeros((2, 2))),
        BAD | dict(real=np.ones((2, 1), bool)),
        BAD | dict(real=np.ones((2, 2))),
        BAD | dict(k=0),
        BAD | dict(k=1.5),
        BAD | dict(alpha=-0.1),
        BAD | dict(alpha=1.1),
        BAD | dict(alpha=float("nan")),
        BAD | dict(temperature=0.5),
        BAD | dict(beams=2),
        BAD | dict(stop="end"),
        BAD | dict(raw={"temperature": 0}),
        BAD | dict(context=1),
        BAD | dict(context=3, before=np.array([[1, 2], [0, 3]])),
        BAD | dict(encodes=True),
        BAD | dict(table=np.full((3, 4), np.nan)),
    ],
)
def contrastive(draw):
    vocabulary, b, t = draw(size(1, 6)), draw(size(0, 3)), draw(integer(1, 4))
    most = draw(integer(4 if draw.ordinary else 0, 8))
    before = draw(one_of(0, 0, 2))
    rules = dict(
        min_new_tokens=draw(left_out(integer(0, most))), no_repeat_ngram=draw(left_out(4)),
        forced_last=draw(left_out(1)),
    )
    return dict(
        table=array(STATES, vocabulary, hostile=False), hidden=array(STATES, draw(integer(1, 3)), hostile=draw(one_of(False, True))),
        ids=ids(b, t, below=vocabulary), real=draw(maybe(mask(b, t))) if t > 1 else None, k=draw(left_out(one_of(1, 2, 3, 7))),
        still=draw(flag()), before=ids(b, before, below=vocabulary) if before else None,
        max_new_tokens=most, alpha=draw(left_out(one_of(0.0, 0.95, number(0.1, 0.9)))),
        context=draw(maybe(integer(t + before, t + before + 6))), eos=draw(one_of((), (), (0,), (1, 2))),
        pad=draw(maybe(integer(0, 3))), repetition_penalty=draw(left_out(one_of(0.7, 1.6))),
        suppressed=(0,) if vocabulary > 2 and draw(flag()) else (), **(rules if vocabulary > 4 else {}),
    )
