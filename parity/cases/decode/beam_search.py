"""What beam search is fed: a model of a few states, prompts of several lengths, and every option of the search."""

import numpy as np

from byhand.configs.generation import GenerationConfig
from parity.cases import array, case, flag, ids, integer, left_out, mask, maybe, one_of, size
from parity.cases.decode._automaton import Automaton

STATES = 97     # many, so that two texts seldom add the same numbers in another order: a tie that rounding decides


def play(side, every=({},), **arguments):
    """One search, or one with each of several options."""
    found = [_played(side, **arguments, **options) for options in every]
    return found[0] if len(found) == 1 else {f"{i}.{label}": value for i, one in enumerate(found) for label, value in one.items()}


def _played(side, table, real=None, before=None, poison=None, **arguments):
    """The search, the states of the beams when it ended, and what was read in each call: the prompt once, then a token a beam."""
    if poison is not None:
        table = np.where(np.arange(table.size).reshape(table.shape) == 3, poison, table)
    model, ids, config = _prepared(side, side.array(table), ids=side.array(arguments.pop("ids")), **arguments)
    cache, given = model.new_cache(), {} if real is None else {"real": side.array(_told(real))}
    if before is not None:
        model.extend(side.array(before), cache)
    found = side.get("decode.beam_search")(model, ids, config=config, cache=cache, **given)
    return found._asdict() | {"states": cache.states, "calls": np.array(cache.calls)}


def own_cache(side, table, real=None, before=None, **arguments):
    """A search makes its own cache if it is given none."""
    if before is None and "every" not in arguments:
        search, (model, ids, config) = side.get("decode.beam_search"), _prepared(side, table, **arguments)
        real = None if real is None else side.array(_told(side.numpy(real)))
        want = search(model, ids, config=config, real=real, cache=model.new_cache())
        for label, got in search(model, ids, config=config, real=real)._asdict().items():
            yield label, got, getattr(want, label)


def _prepared(side, table, ids, ties=None, lure=0.0, raw=None, **options):
    table[:, list(options.get("eos", ()))] += lure
    if ties == "all":
        table = 0 * table
    elif ties == "two tokens":
        table[:, 0] = table[:, -1]
    return Automaton(side, table), ids, GenerationConfig(**options) if raw is None else raw


def _told(real):
    """No row is all padding."""
    return real if real.dtype != bool or real.shape[-1] < 2 else real | (~real.any(-1, keepdims=True) & (np.arange(real.shape[-1]) == 0))


FAR = dict.fromkeys(
    ("_LOG_MOST = 80 -> _LOG_MOST = 81", "abs(config.length_penalty) * math.log(max(config.max_new_tokens, 1)) <= _LOG_MOST -> "
     "abs(config.length_penalty) * math.log(max(config.max_new_tokens, 1)) < _LOG_MOST"),
    "any bound will do that lies between the penalties anyone sets and the end of float32, and 81 does",
)
BAD = dict(table=array(3, 4, hostile=False), ids=np.array([[1, 2], [0, 3]]))


@case(
    "decode.beam_search", play=play, also=[own_cache], equivalent=FAR,
    refuses=[
        BAD | dict(ids=np.zeros((2, 0), np.int64)),
        BAD | dict(ids=np.zeros(2, np.int64)),
        BAD | dict(ids=np.zeros((2, 2))),
        BAD | dict(real=np.ones((2, 1), bool)),
        BAD | dict(real=np.ones((2, 2))),
        BAD | dict(ids=np.array([[1], [2]]), real=np.array([[True], [False]])),
        BAD | dict(beams=5),
        BAD | dict(temperature=0.5),
        BAD | dict(stop="end"),
        BAD | dict(length_penalty=30.0),
        BAD | dict(length_penalty=-30.0),
        BAD | dict(raw={"beams": 2}),
        BAD | dict(poison=np.nan),
        BAD | dict(poison=np.inf),
    ],
)
def beam_search(draw):
    if not draw.edges and draw(flag()):
        return many(draw) if draw.ordinary else few(draw)
    vocabulary = draw(size(1, 7))
    groups = draw(one_of(*(n for n in (1, 2, 3) if n <= vocabulary)))
    beams = groups * draw(integer(1, min(4, vocabulary // groups)))
    b, t, most = draw(size(0, 3)), draw(integer(1, 4)), draw(integer(5 if draw.ordinary else 0, 8))
    ends = tuple(sorted({draw(integer(0, vocabulary - 1)) for _ in range(draw(one_of(0, 1, 1, 2, 3)))})) if vocabulary > 1 else (0,)
    real = draw(maybe(mask(b, t))) if t > 1 else None
    options = dict(
        early_stopping=draw(left_out(one_of(False, True, "never"))), length_penalty=draw(left_out(one_of(0.0, 0.7, 2.0, -0.8))),
        pad=draw(maybe(integer(0, 3))), lure=draw(one_of(0.0, 1.0, 2.0)), before=draw(maybe(ids(b, 2, below=vocabulary))),
    )
    if groups > 1:
        options["diversity_penalty"] = draw(one_of(0.0, 0.4, 2.5, 2.5))
    if vocabulary > 4:                                         # with fewer tokens rules would leave a text none, as both of these would
        options |= draw(one_of(dict(min_new_tokens=draw(integer(0, most))), dict(no_repeat_ngram=3), {}))
        options["suppressed"] = draw(left_out((0,)))
    options |= draw(one_of(dict(repetition_penalty=draw(one_of(0.7, 1.6))), dict(ties="two tokens"), {}))
    if groups == 1 and "repetition_penalty" not in options:    # otherwise all texts would add the same numbers in some order
        options |= draw(one_of(dict(ties="all"), {}, {}))
    return options | dict(
        table=array(STATES, vocabulary, hostile=False), ids=ids(b, t, below=vocabulary), real=real, max_new_tokens=most, eos=ends,
        beams=beams, groups=groups, n_best=draw(integer(1, beams)),
    )


def few(draw):
    """A single token more, whatever the length penalty, and fewer that may come than there are beams: some texts are missing."""
    return dict(
        table=array(STATES, 5, hostile=False), ids=ids(2, 2, below=5), max_new_tokens=1, suppressed=(1, 3), beams=5,
        n_best=draw(integer(4, 5)), eos=draw(one_of((), (), (2,), (4, 0))), length_penalty=draw(one_of(1.0, 200.0)),
    )


def many(draw):
    """So many prompts that for some of them it decides what a search that is not exact holds to be still within reach."""
    every = [dict(beams=5, n_best=5), dict(beams=4, n_best=4, groups=2, diversity_penalty=1.0)]
    return dict(
        table=array(STATES, 6, hostile=False), ids=ids(30, 1, below=6), max_new_tokens=8, eos=(2,), lure=1.0, length_penalty=2.0,
        every=[options | dict(early_stopping=stop) for options in every for stop in (False, True, "never")],
    )
