"""Attention by blocks: global, window and random ones (BigBird: Zaheer et al. 2020, arXiv:2007.14062, section 2 and appendix D).

The sequence is cut into blocks of `block` positions, and a boolean table says which blocks of queries see which blocks of keys. With one
global block, one window block on either side and one random block it may look like this:

    ▓▓▓▓▓▓▓▓    the first block sees all …        The window lets neighbours speak to each other, the global blocks join any two
    ▓▓▓░░░░▒    … and all see it                  positions in two steps, and the random blocks make short paths of a few steps
    ▓▓▓▓░░▒░                                      likely even without them.
    ▓░▓▓▓▒░░
    ▓▒░▓▓▓░░
    ▓░▒░▓▓▓░
    ▓░▒░░▓▓▓
    ▓░░░▒░▓▓

For a block of queries the keys that it sees are gathered, and only these are multiplied: with m blocks in a row of the table, T · m · block
scores, linear in T as long as m stays.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from byhand.checks import at_least_rank, demand, floats, in_range, positive, same_shape, size
from byhand.noise import Noise
from numpy_impl.attention.scaled_dot_product import _cap, _softmax_in_place
from numpy_impl.ops.random_bits import random_bits


def block_attention(
    query: NDArray,
    key: NDArray,
    value: NDArray,
    *,
    block: int = 64,
    global_blocks: int = 2,
    window_blocks: int = 1,
    random_blocks: int = 3,
    seed: int = 0,
    causal: bool = False,
    scale: float | None = None,
    soft_cap: float | None = None,
) -> tuple[NDArray, Callable]:
    """y = P · value,  with  P = softmax(cap(scale · query · keyᵀ))  over the keys in the blocks that the query's block sees.

    The last query stands beside the last key; the blocks are counted from the first position, be it of a key or of a query, and the last
    one may be short. Which block sees which is `block_pattern`'s table for max(T, S) / block blocks, rounded up. The defaults are
    those of the paper's base model.

    Parameters
    ----------
    query : (..., T, E)   float32 or float64
    key : (..., S, E)     the same leading axes as query
    value : (..., S, W)   the same leading axes, and a width of its own
    block : int           ≥ 1, in positions
    global_blocks : int   ≥ 0: the first blocks, which see all and are seen by all
    window_blocks : int   ≥ 0: on either side of a block's own
    random_blocks : int   ≥ 0: of those that are left
    seed : int            which random blocks: in [0, 2⁶⁴). They are part of the model, and the same in training and inference
    causal : bool         keys after the query's own place are hidden
    scale : float         1/√E by default
    soft_cap : float      cap(s) = c · tanh(s / c) keeps scores within ±c; no cap by default

    Returns
    -------
    y : (..., T, W)
    backward : dy (..., T, W) -> dquery, dkey, dvalue

    A query that sees nothing gives y = 0 and passes no gradient. It is scaled_dot_product with the pattern as its mask. There is no
    dropout: its bits would have to be gathered one by one.

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ, a count or the seed is out of range, scale is not finite or soft_cap not positive

    Examples
    --------
    >>> x = np.zeros((6, 1))                                     # all scores are equal: y is the mean of what is seen
    >>> y, backward = block_attention(x, x, np.eye(6), block=2, global_blocks=0, window_blocks=0, random_blocks=1)
    >>> (y > 0).astype(int)
    array([[1, 1, 0, 0, 1, 1],
           [1, 1, 0, 0, 1, 1],
           [0, 0, 1, 1, 1, 1],
           [0, 0, 1, 1, 1, 1],
           [0, 0, 1, 1, 1, 1],
           [0, 0, 1, 1, 1, 1]])
    """
    who = "block_attention"
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    size(who, block=block)
    _drawable(who, seed, global_blocks=global_blocks, window_blocks=window_blocks, random_blocks=random_blocks)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)

    pattern = block_pattern(-(-max(t, s) // block), global_blocks=global_blocks, window_blocks=window_blocks,
                            random_blocks=random_blocks, seed=seed, causal=causal)
    scaled = query * scale                                       # (..., T, E): cheaper than scaling the scores
    y = np.empty_like(query, shape=(*lead, t, w))
    trail = []                                                   # what the pullback needs of each block of queries, P above all
    for rows, columns, future in _pieces(t, s, block, pattern):
        scores, slope = scaled[..., rows, :] @ key[..., columns, :].swapaxes(-1, -2), None      # (..., block, m · block)
        if soft_cap is not None:
            scores, slope = _cap(scores, soft_cap)
        if causal:
            np.copyto(scores, -np.inf, where=future)
        p = _softmax_in_place(scores)
        np.matmul(p, value[..., columns, :], out=y[..., rows, :])
        trail.append((rows, columns, p, slope))

    def backward(dy):
        # Every query lies in one block: its gradient is written once. A key is seen by several blocks: their gradients add up. No index
        # occurs twice in `columns`, so that += through it loses nothing.
        dquery, dkey, dvalue = np.empty_like(query), np.zeros_like(key), np.zeros_like(value)
        for rows, columns, p, slope in trail:
            # y = P V
            dvalue[..., columns, :] += p.swapaxes(-1, -2) @ dy[..., rows, :]
            dscores = dy[..., rows, :] @ value[..., columns, :].swapaxes(-1, -2)             # dP, and soon ds
            # P = softmax(scores): ds = P · (dP − Σ P · dP); where P is 0, for what was hidden, nothing passes.
            dscores -= np.vecdot(p, dscores)[..., None]
            dscores *= p
            if slope is not None:
                dscores *= slope
            # scores = (scale · Q) Kᵀ
            np.matmul(dscores, key[..., columns, :], out=dquery[..., rows, :])
            dkey[..., columns, :] += dscores.swapaxes(-1, -2) @ scaled[..., rows, :]
        dquery *= scale
        return dquery, dkey, dvalue

    return y, backward


def block_pattern(
    blocks: int, *, global_blocks: int = 2, window_blocks: int = 1, random_blocks: int = 3, seed: int = 0, causal: bool = False
) -> NDArray:
    """pattern[i, j] = block i of the queries sees block j of the keys: i or j is global, |i − j| ≤ window, or j was drawn for i.

    For every i, `random_blocks` blocks are drawn from those that it would not see otherwise (all of them, if there are no more): those
    whose words of random bits are the smallest, the lower j first among equal ones. If causal, j ≤ i besides, and a longer sequence
    continues the pattern of a shorter one: the word of (i, j) does not depend on how many blocks there are.

    Parameters
    ----------
    blocks : int          n ≥ 0, how many there are
    global_blocks : int   ≥ 0: the first blocks, which see all and are seen by all
    window_blocks : int   ≥ 0: on either side of a block's own
    random_blocks : int   ≥ 0: of those that are left
    seed : int            in [0, 2⁶⁴); the stream is Noise(seed)
    causal : bool         no block sees a later one

    Returns
    -------
    pattern : (n, n) bool, the same from the torch twin and on every device; it has no gradient

    Raises
    ------
    ValueError   if a count is negative or no integer, or the seed is out of range

    Examples
    --------
    >>> block_pattern(5, global_blocks=1, window_blocks=0, random_blocks=1, causal=True).astype(int)
    array([[1, 0, 0, 0, 0],
           [1, 1, 0, 0, 0],
           [1, 1, 1, 0, 0],
           [1, 1, 0, 1, 0],
           [1, 1, 0, 0, 1]])
    """
    who = "block_pattern"
    size(who, at_least=0, blocks=blocks)
    _drawable(who, seed, global_blocks=global_blocks, window_blocks=window_blocks, random_blocks=random_blocks)
    i, j = np.arange(blocks)[:, None], np.arange(blocks)
    pattern = (i < global_blocks) | (j < global_blocks) | (abs(i - j) <= window_blocks)
    # The words are laid around the corner (0, 0) in shells, as the rings of a tree: shell m holds the pairs whose larger number is m.
    #     0 2 6
    #     1 3 7
    #     4 5 8
    shell = np.where(j <= i, i * i + j, j * j + j + 1 + i)
    words = random_bits(Noise(seed), (blocks * blocks,))[shell]
    future = (i < j) & causal
    order = np.argsort(np.where(pattern | future, np.inf, words), 1, kind="stable")     # inf: drawn only where nothing else is left
    np.put_along_axis(pattern, order[:, :random_blocks], True, 1)
    return pattern & ~future


def _drawable(who: str, seed: int, **counts: int) -> None:
    """Raise what block_attention and block_pattern must: counts of blocks that are counts, and a seed."""
    size(who, at_least=0, **counts)
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    demand(who, whole and 0 <= seed < 2**64, "seed as an integer in [0, 2^64)", seed=seed)


def _pieces(t: int, s: int, block: int, pattern: NDArray) -> Iterator[tuple[slice, NDArray, NDArray]]:
    """Of every block of queries: its rows, the keys that it sees, and which of these stand after each row, (block, m · block) booleans."""
    longest = max(t, s)
    places, keys_at = np.arange(longest - t, longest), np.arange(longest - s, longest)
    for i in range((longest - t) // block, len(pattern)):
        rows = slice(max(i * block - (longest - t), 0), (i + 1) * block - (longest - t))
        columns = np.flatnonzero(pattern[i, keys_at // block])
        yield rows, columns, keys_at[columns] > places[rows, None]
