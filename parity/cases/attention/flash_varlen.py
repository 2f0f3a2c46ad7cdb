"""What flash_attention_varlen is fed: documents of all lengths, empty ones too, of as many keys or others; it equals plain attention."""

import numpy as np

from parity.cases import array, case, ids, left_out, number, one_of
from parity.cases.attention.flash import equal, options, sizes, values


def bounds(total, cuts):
    """Cumulative lengths of documents that end at the given shares of `total`."""
    return np.array([0, *sorted(round(share * total) for share in cuts), total])


def documents(draw, t, s, same):
    """cu_seqlens_q and cu_seqlens_k of one to five documents."""
    cuts = [draw(number(0, 1)) for _ in range(draw(one_of(0, 1, 2, 4)))]
    cu_seqlens_q = bounds(t, cuts)
    return cu_seqlens_q, draw(left_out(None)) if same else bounds(s, [draw(number(0, 1)) for _ in cuts])


def equals_plain_attention(side, query, key, value, cu_seqlens_q, cu_seqlens_k=None, causal=False, window=(None, None), alibi_slopes=None,
                           tile=None, **options):
    """Document by document written out as a mask, and as a bias for the slopes; the dropout mask is the same, bit for bit."""
    ends_q = side.numpy(cu_seqlens_q)
    ends_k = ends_q if cu_seqlens_k is None else side.numpy(cu_seqlens_k)
    t, s = query.shape[-2], key.shape[-2]
    mask, distance = np.zeros((t, s), dtype=bool), np.zeros((t, s))
    left, right = (10**6 if reach is None else reach for reach in window)
    right = 0 if causal else right
    for first_q, last_q, first_k, last_k in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False):
        own = slice(first_q, last_q), slice(first_k, last_k)
        distance[own] = np.arange(first_k, last_k) - (np.arange(first_q, last_q)[:, None] + last_k - last_q)
        mask[own] = (-left <= distance[own]) & (distance[own] <= right)
    bias = None if alibi_slopes is None else -side.numpy(alibi_slopes)[:, None, None] * np.abs(distance)
    given = dict(cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, causal=causal, window=window, alibi_slopes=alibi_slopes, tile=tile)
    yield from equal(side, "attention.flash_attention_varlen", query, key, value, bias, side.array(mask), False, given | options, options)


_Q, _T = dict(query=array(4, 2), key=array(4, 2), value=array(4, 2)), dict(query=array(4, 2), key=array(5, 2), value=array(5, 2))


@case(
    "attention.flash_attention_varlen",
    bench=dict(
        query=array(4, 4096, 64), key=array(4, 4096, 64), value=array(4, 4096, 64), cu_seqlens_q=np.arange(0, 4097, 512), causal=True,
    ),
    fixed={"alibi_slopes": "the slopes of ALiBi are constants"},
    also=[equals_plain_attention],
    skip={"nonfinite": "a NaN among hidden values comes through where its tile is worked on, as 0 · NaN, and not where it is skipped"},
    refuses=[
        dict(query=array(4, 2), key=array(4, 3), value=array(4, 2), cu_seqlens_q=np.array([0, 4])),
        dict(**_Q, cu_seqlens_q=np.array([0, 4]), window=(-1, 0)),
        dict(**_Q, cu_seqlens_q=np.array([0, 4]), tile=0),
        dict(**_Q, cu_seqlens_q=array(2)),
        dict(**_Q, cu_seqlens_q=ids(1, 2, below=4)),
        dict(**_Q, cu_seqlens_q=np.array([], dtype=np.int64)),
        dict(**_Q, cu_seqlens_q=np.array([1, 4])),
        dict(**_Q, cu_seqlens_q=np.array([0, 3])),
        dict(**_Q, cu_seqlens_q=np.array([0, 3, 2, 4])),
        dict(**_T, cu_seqlens_q=np.array([0, 4])),
        dict(**_T, cu_seqlens_q=np.array([0, 4]), cu_seqlens_k=np.array([0, 4])),
        dict(**_T, cu_seqlens_q=np.array([0, 4]), cu_seqlens_k=np.array([0, 2, 5])),
    ],
)
def flash_attention_varlen(draw):
    lead, t, s, e, w = sizes(draw)
    given, same = options(draw), draw(one_of(True, False))
    if not draw.edges:
        t, s = t + draw(one_of(0, 4)), s + draw(one_of(0, 4))
    arrays = values(draw, lead, s if same else t, s, e, w, hostile=False)     # every document may be of one key, and all gradients zero
    t = arrays["query"].shape[-2]
    if t != s:
        same = False
    cu_seqlens_q, cu_seqlens_k = documents(draw, t, s, same)
    return arrays | given | dict(cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)
