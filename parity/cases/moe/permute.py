"""What dispatch is fed: any tokens and experts, some of them without each other, dropped assignments, tokens of any number of rows."""

import numpy as np

from parity.cases import array, case, dims, flag, ids, integer, left_out, mask, maybe, one_of, size


def routed(draw, n, experts, k):
    """Expert ids (n, k) as a router might give them: all different, all at random, or all tokens to one expert."""
    rng = np.random.default_rng(draw(integer(0, 10**6)))
    match draw(one_of("different", "random", "one")):
        case "different" if k <= experts:
            return np.argsort(rng.random((n, experts)), axis=1)[:, :k]
        case "one":
            return np.full((n, k), rng.integers(experts))
    return rng.integers(0, experts, (n, k))


def _sorted_by_expert(side, ids, experts, kept=None):
    """The plan, from its definition: expert by expert, token by token."""
    got = side.get("moe.plan")(ids, experts=experts, kept=kept)
    flat = side.numpy(ids).reshape(-1)
    stays = np.ones(flat.shape, bool) if kept is None else side.numpy(kept).reshape(-1)
    slots = [i for e in range(experts) for i in range(len(flat)) if flat[i] == e and stays[i]]
    yield "slots", got.slots, np.array(slots, dtype=np.int64)
    yield "tokens", got.tokens, np.array([i // ids.shape[-1] for i in slots], dtype=np.int64)
    yield "counts", got.counts, np.array([sum(flat[stays] == e) for e in range(experts)], dtype=np.int64)


@case("moe.plan", gradient=False, also=[_sorted_by_expert], bench=dict(ids=ids(4096, 2, below=8), experts=8),
      refuses=[dict(ids=ids(3, 2, below=9, at_least=4), experts=4),
               dict(ids=ids(3, 2, below=0, at_least=-1), experts=4),
               dict(ids=ids(3, 2, below=4), experts=0),
               dict(ids=ids(3, 2, below=4), experts=4.0),
               dict(ids=array(3, 2), experts=4),
               dict(ids=ids(below=4), experts=4),
               dict(ids=ids(3, 2, below=4), experts=4, kept=mask(3, 1)),
               dict(ids=ids(3, 2, below=4), experts=4, kept=ids(3, 2, below=2))])
def plan(draw):
    experts = draw(one_of(size(1, 5), 300))
    shape = (*draw(dims(min_rank=0, max_rank=2)), draw(one_of(0, 1, 2, 3)))
    return dict(ids=draw(ids(*shape, below=experts)), experts=experts, kept=draw(left_out(maybe(mask(*shape, p=draw(one_of(0.0, 0.7)))))))


def _there_and_back(side, x, tokens):
    """Weighed by one over the number of its copies, every token comes back."""
    number = np.bincount(side.numpy(tokens), minlength=len(x))
    weights = side.array(1 / number[side.numpy(tokens)])
    if side.name == "numpy":
        rows, _ = side.get("moe.permute")(x, tokens=tokens)
        got, _ = side.get("moe.unpermute")(rows, weights, tokens=tokens, n=len(x))
    else:
        got = side.get("moe.unpermute")(side.get("moe.permute")(x, tokens=tokens), weights, tokens=tokens, n=len(x))
    yield "x", got, x * side.array((number > 0)[:, None].astype(float))


@case("moe.permute", also=[_there_and_back], bench=dict(x=array(4096, 1024), tokens=ids(8192, below=4096)),
      refuses=[dict(x=array(3), tokens=ids(2, below=3)),
               dict(x=array(3, 2), tokens=ids(4, below=9, at_least=3)),
               dict(x=array(3, 2), tokens=ids(4, below=0, at_least=-2)),
               dict(x=array(3, 2), tokens=ids(2, 2, below=3)),
               dict(x=array(3, 2), tokens=array(2)),
               dict(x=ids(3, 2, below=4), tokens=ids(2, below=3))])
def permute(draw):
    n, width, tokens = _tokens(draw)
    return dict(x=draw(array(n, width)), tokens=tokens)


@case("moe.unpermute",
      bench=dict(y=array(8192, 1024), weights=array(8192), tokens=np.random.default_rng(0).permutation(8192) // 2, n=4096),
      refuses=[dict(y=array(3), weights=array(3), tokens=ids(3, below=2), n=2),
               dict(y=array(3, 2), weights=array(2), tokens=ids(3, below=2), n=2),
               dict(y=array(3, 2), weights=array(3, 1), tokens=ids(3, below=2), n=2),
               dict(y=array(3, 2), weights=array(3), tokens=ids(2, below=2), n=2),
               dict(y=array(3, 2), weights=array(3), tokens=ids(3, below=4, at_least=2), n=2),
               dict(y=array(3, 2), weights=array(3), tokens=ids(3, below=2), n=-1),
               dict(y=array(3, 2), weights=array(3), tokens=ids(3, below=2), n=2.0),
               dict(y=array(3, 2), weights=array(3), tokens=array(3), n=2),
               dict(y=array(3, 2), weights=ids(3, below=2), tokens=ids(3, below=2), n=2)])
def unpermute(draw):
    n, width, tokens = _tokens(draw)
    return dict(y=draw(array(len(tokens), width)), weights=draw(array(len(tokens))), tokens=tokens, n=n)


def _tokens(draw):
    """n, a width, and tokens (M,): some without a row, some with one, some with several. Now and then too many for one block."""
    rng = np.random.default_rng(draw(integer(0, 10**6)))
    n, width = draw(size(0, 7)), draw(size(0, 5))
    if not draw.edges and draw(one_of(*[False] * 15, True)):
        n, width = 400, 67
    rows = 0 if n == 0 else draw(one_of(0, 1, n, 2 * n))
    tokens = rng.integers(0, max(n, 1), rows)
    if rows == 2 * n and draw(flag()):
        tokens = rng.permutation(rows) // 2
    return n, width, tokens
