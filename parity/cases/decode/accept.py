"""What the judge of drafts is fed: two distributions, alike or not, certain or not, with what cannot come; and drafts of every length."""

import numpy as np

from byhand.noise import at
from parity.cases import array, case, ids, integer, left_out, noise, one_of, size


def play(side, draft, target, tokens, noise, certain=False, alike=False, drafted=None, raw=False):
    """Probabilities are made of what is drawn; where the draft has none, or none is given, its tokens had probability 1."""
    given = {} if drafted is None else {"drafted": side.array(drafted)}
    q, p = _probabilities(draft, target, certain, alike, raw)
    q = None if q is None else side.array(q)
    return side.get("decode.accept")(q, side.array(p), side.array(tokens), noise=noise, **given)._asdict()


def the_rest_changes_nothing(side, draft, target, tokens, noise, certain=False, alike=False, drafted=None, raw=False):
    """What becomes of a row does not depend on the rows behind it, nor what is kept on the tokens behind; with a target that is certain
    they are the target's own."""
    q, p = _probabilities(None if draft is None else side.numpy(draft), side.numpy(target), certain, alike, raw)
    q, p = None if q is None else side.array(q), side.array(p)
    accept, given = side.get("decode.accept"), {} if drafted is None else {"drafted": drafted}
    count, token = accept(q, p, tokens, noise=noise, **given)
    if len(tokens) > 1:
        fewer = accept(None if q is None else q[:1], p[:1], tokens[:1], noise=noise, **{name: value[:1] for name, value in given.items()})
        yield "count of the first row", fewer.count, count[:1]
        yield "token of the first row", fewer.token, token[:1]
    if tokens.shape[1] and drafted is None:
        shorter = accept(None if q is None else q[:, :-1], p[:, :-1], tokens[:, :-1], noise=noise).count
        yield "count of one token less", shorter, np.minimum(side.numpy(count), tokens.shape[1] - 1)
    if draft is not None and not alike and not certain:
        kept, last = side.numpy(count), tokens.shape[1] - 1
        rejected, chosen = kept < (last + 1 if drafted is None else side.numpy(drafted)), kept.clip(max=last)
        if tokens.shape[1]:
            again = side.numpy(tokens)[np.arange(len(tokens)), chosen] == side.numpy(token)
            yield "a token drawn in the place where it was rejected", (rejected & again).any(), False
    if certain and drafted is None:
        best = side.numpy(p).argmax(-1)
        kept = np.logical_and.accumulate(best[:, :-1] == side.numpy(tokens), 1).sum(1)
        yield "count of the certain", count, kept
        yield "token of the certain", token, best[np.arange(len(best)), kept]


def at_the_edge(side, draft, target, tokens, noise, **options):
    """A token that was certain is kept where u = (bits + ½) / 2³² is below its probability, and not where the two are equal."""
    b, v = len(tokens), target.shape[-1]
    if v > 1:
        bits = side.numpy(side.get("ops.random_bits")(at(noise, "accept"), (b, 1024)))[:, 0].astype(np.float64)
        u = (bits + 0.5) / 2**32
        for p, kept in ((u * (1 + 1e-12), 1), (u, 0), (u * (1 - 1e-12), 0)):
            judged = np.zeros((b, 2, v))
            judged[..., 0], judged[..., 1] = p[:, None], 1 - p[:, None]
            found = side.get("decode.accept")(None, side.array(judged), side.array(np.zeros((b, 1), np.int64)), noise=noise)
            yield f"count at {kept}", found.count, np.full(b, kept)


def _probabilities(draft, target, certain, alike, raw):
    """softmax, or the whole of it at the largest; a token that the draft never says is there too."""
    if raw:
        return draft, target
    p = _softmax(target)
    if certain:
        p = (np.arange(p.shape[-1]) == p.argmax(-1)[..., None]).astype(p.dtype)
    if alike:                                            # twice as probable as the target says, with nothing missing
        return p[:, :-1], p if alike is True else p / 2
    q = None if draft is None else _softmax(draft)
    if q is not None and q.shape[-1] > 2 and not certain:
        q[..., -1] = 0
        p[..., 0] = 0
    return q, p


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


P, Q, X = np.full((2, 3, 4), 0.25), np.full((2, 2, 4), 0.25), np.zeros((2, 2), np.int64)
BAD = dict(draft=Q, target=P, tokens=X, noise=noise(), raw=True)


@case(
    "decode.accept", play=play, also=[the_rest_changes_nothing, at_the_edge],
    refuses=[
        BAD | dict(target=np.full((2, 2, 4), 0.25)),
        BAD | dict(target=np.full((2, 3), 0.25)),
        BAD | dict(draft=np.full((2, 2, 5), 0.25)),
        BAD | dict(tokens=np.full((2, 2), 4)),
        BAD | dict(tokens=np.zeros((2, 2))),
        BAD | dict(tokens=np.zeros(2, np.int64)),
        BAD | dict(target=-P),
        BAD | dict(draft=np.nan * Q),
        BAD | dict(target=np.inf * P),
        BAD | dict(target=0 * P),
        BAD | dict(target=P.astype(np.int64)),
        BAD | dict(noise=None),
        BAD | dict(drafted=np.array([3, 0])),
        BAD | dict(drafted=np.array([1])),
        BAD | dict(drafted=np.array([1.0, 1.0])),
        dict(draft=None, target=np.ones((1, 1026, 1)), tokens=np.zeros((1, 1025), np.int64), noise=noise(), raw=True),
    ],
    equivalent={
        "said[rows, tokens[rows, count[rows]]] = 1 -> said[rows, tokens[rows, count[rows]]] = 2":
            "taken off a probability, each leaves nothing of it",
    },
)
def accept(draw):
    b, g, v = draw(integer(0, 20)), draw(size(0, 4)), draw(size(1, 6))
    certain = draw(one_of(False, False, False, True))
    return dict(
        draft=draw(one_of(None, *(array(b, g, v, scale=scale, hostile=False) for scale in (1.0, 2.0, 3.0)))),
        target=array(b, g + 1, v, scale=draw(one_of(0.5, 2.0)), hostile=False), tokens=ids(b, g, below=v), noise=draw(noise()),
        certain=certain, alike=False if certain else draw(one_of(False, False, False, True, "twice")),
        drafted=draw(left_out(ids(b, below=g + 1))),
    )
