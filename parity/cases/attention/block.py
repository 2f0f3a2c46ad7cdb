"""What block attention is fed: blocks of every size, ragged ones too, all kinds of patterns. It is plain attention with a mask."""

import functools

import numpy as np

from parity.cases import array, case, dims, flag, integer, left_out, maybe, number, one_of, size
from parity.cases.attention._plain import both, last_queries, results


def split(inputs):
    """(the pattern's options, the others)."""
    names = ("global_blocks", "window_blocks", "random_blocks", "seed", "causal")
    return {k: v for k, v in inputs.items() if k in names}, {k: v for k, v in inputs.items() if k not in names}


def dense(side, t, s, block, **pattern):
    """(T, S) booleans, position by position."""
    longest = max(t, s)
    table = side.numpy(side.get("attention.block_pattern")(-(-longest // block), **pattern))
    places, keys = np.arange(longest - t, longest)[:, None], np.arange(longest - s, longest)
    return table[places // block, keys // block] & ((keys <= places) | (not pattern.get("causal", False)))


def is_plain_attention_with_the_pattern_as_mask(side, query, key, value, *, block=64, **options):
    """scaled_dot_product with the equivalent boolean mask, outputs and gradients."""
    pattern, options = split(options)
    mask = side.array(dense(side, query.shape[-2], key.shape[-2], block, **pattern))
    arrays = dict(query=query, key=key, value=value)
    blocked = functools.partial(side.get("attention.block_attention"), block=block, **pattern, **options)
    plain = functools.partial(side.get("attention.scaled_dot_product"), mask=mask, **options)
    yield from both(results(side, blocked, **arrays), results(side, lambda q, k, v: plain(q, k, v), **arrays))


def reads_no_block_that_is_not_seen(side, query, key, value, *, block=64, **options):
    """What the last query's block does not see may be anything: that is where the cost is saved."""
    t, s = query.shape[-2], key.shape[-2]
    if not t:
        return
    unseen = ~dense(side, t, s, block, **split(options)[0])[-1]
    attention = functools.partial(side.get("attention.block_attention"), block=block, **options)
    spoilt = (side.array(np.where(unseen[:, None], np.nan, side.numpy(x))) for x in (key, value))
    y, got = (y[0] if side.name == "numpy" else y for y in (attention(query, key, value), attention(query, *spoilt)))
    yield "the last query", got[..., -1, :], y[..., -1, :]


def has_the_blocks_that_it_should(side, blocks, global_blocks=2, window_blocks=1, random_blocks=3, seed=0, causal=False):
    """Global and window blocks, and beside them as many others as were asked for, or as there are."""
    pattern = side.get("attention.block_pattern")
    options = dict(global_blocks=global_blocks, window_blocks=window_blocks, random_blocks=random_blocks, seed=seed, causal=causal)
    table = side.numpy(pattern(blocks, **options))
    for i in range(blocks):
        may = range(i + 1 if causal else blocks)
        fixed = [j for j in may if i < global_blocks or j < global_blocks or abs(i - j) <= window_blocks]
        yield f"row {i} keeps what is fixed", table[i, fixed].all(), True
        yield f"blocks in row {i}", table[i].sum(), min(len(fixed) + random_blocks, len(may))
    if causal:
        for fewer in range(blocks):
            yield f"the pattern of {fewer} blocks", side.numpy(pattern(fewer, **options)), table[:fewer, :fewer]


_X = dict(query=array(3, 4), key=array(3, 4), value=array(3, 4))
_SEED = one_of(0, 1, 2**64 - 1, integer(0, 10**6))


@case(
    "attention.block_attention",
    bench=dict(query=array(4, 4, 1024, 64), key=array(4, 4, 1024, 64), value=array(4, 4, 1024, 64), causal=True),
    refuses=[
        dict(query=array(3), key=array(2, 4), value=array(2, 4)),
        dict(query=array(2, 3, 4), key=array(3, 4), value=array(3, 4)),
        dict(query=array(3, 4), key=array(3, 5), value=array(3, 5)),
        dict(query=array(3, 4), key=array(3, 4), value=array(2, 4)),
        _X | dict(block=0),
        _X | dict(block=2.0),
        _X | dict(global_blocks=-1),
        _X | dict(window_blocks=-1),
        _X | dict(random_blocks=-1),
        _X | dict(seed=-1),
        _X | dict(seed=2**64),
        _X | dict(seed=True),
        _X | dict(seed=1.0),
        _X | dict(scale=float("nan")),
        _X | dict(scale=2e30),
        _X | dict(soft_cap=0.0),
    ],
    also=[is_plain_attention_with_the_pattern_as_mask, reads_no_block_that_is_not_seen, last_queries("attention.block_attention")],
)
def block_attention(draw):
    lead, w = draw(dims(0, 2)), draw(size(0, 5))
    e = draw(size(0, 5)) if draw.ordinary else draw(one_of(0, 1, 1, 2, 5))
    t, s = draw(size(0, 7)), draw(size(0, 7))
    counts, block = one_of(0, 1, 2), dict(block=draw(integer(1, 3)))
    if not draw.ordinary and not draw.edges:
        many = draw(one_of("few blocks", "many blocks", "many blocks", "default size"))
        if many == "many blocks":
            lead, e, block = draw(one_of((), (2,))), draw(one_of(1, 3)), dict(block=draw(integer(2, 5)))
            t, s = draw(one_of((40, 40), (21, 50), (50, 21)))
        elif many == "default size":
            lead, e, t, s, counts, block = (), 3, draw(one_of(150, 300)), 300, one_of(0, 1), {}
    return block | dict(
        query=draw(array(*lead, t, e)), key=draw(array(*lead, s, e)), value=draw(array(*lead, s, w)),
        global_blocks=draw(left_out(counts)), window_blocks=draw(left_out(counts)), random_blocks=draw(left_out(left_out(counts))),
        seed=draw(left_out(_SEED)),
        causal=draw(left_out(flag())),
        scale=draw(left_out(None)) if e == 1 else draw(left_out(maybe(number(-1, 2)))),
        soft_cap=draw(one_of(left_out(None), 0.03, 2.0, 30.0)),
    )


@case(
    "attention.block_pattern",
    gradient=False,
    bench=dict(blocks=128),
    refuses=[
        dict(blocks=-1),
        dict(blocks=2.0),
        dict(blocks=2, global_blocks=-1),
        dict(blocks=2, window_blocks=-1),
        dict(blocks=2, random_blocks=-1),
        dict(blocks=2, random_blocks=True),
        dict(blocks=2, seed=-1),
        dict(blocks=2, seed=2**64),
        dict(blocks=2, seed=True),
    ],
    also=[has_the_blocks_that_it_should],
)
def block_pattern(draw):
    counts = integer(0, 3)
    return dict(
        blocks=draw(size(0, 12)), global_blocks=draw(left_out(counts)), window_blocks=draw(left_out(counts)),
        random_blocks=draw(left_out(counts)), seed=draw(left_out(_SEED)), causal=draw(left_out(flag())),
    )
