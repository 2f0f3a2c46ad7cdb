"""What rotary positions are fed: whole and partial heads in both layouts, tables of several positions a sequence, long texts."""

import numpy as np

from parity.cases import array, case, dims, flag, ids, integer, left_out, maybe, number, one_of, size


def only_distances_show(side, x, cos, sin, interleaved=False):
    """The score of a query at m and a key at n is that of the query at m − n and a key that is not turned, wherever the text starts."""
    rotary, table = side.get("positions.rotary"), side.get("positions.rotary_table")
    t, half = x.shape[-2], cos.shape[-1]
    if 0 in x.shape or t > 8 or not np.isfinite(side.numpy(x)).all():
        return
    frequencies = side.get("positions.rotary_frequencies")(2 * half)

    def turned(array, positions):
        cos, sin = table(side.array(positions), frequencies=frequencies, dtype=side.dtype)
        y = rotary(array, cos=cos, sin=sin, interleaved=interleaved)
        return y[0] if side.name == "numpy" else y

    m = np.arange(t)
    queries, keys = x[..., :, None, :], x[..., None, :, :]                                  # (..., T, 1, E), (..., 1, T, E)
    pairs = queries + 0 * keys                                                             # (..., T, T, E): query m for every key n
    want = (turned(pairs, m[:, None] - m) * keys).sum(-1)
    for start in (0, 1000):
        y = turned(x, m + start)
        yield f"scores from {start} on", y @ y.swapaxes(-1, -2), want


def layouts_are_permutations(side, x, cos, sin, interleaved=False):
    """Rotating in one layout and permuting is permuting and rotating in the other one."""
    rotary, e = side.get("positions.rotary"), x.shape[-1]
    names = ("positions.to_half_split", "positions.to_interleaved")
    permute = side.get(names[not interleaved])

    def permuted(array):
        return permute(array.swapaxes(0, -1), heads=1, width=2 * cos.shape[-1]).swapaxes(0, -1)

    def turned(array, interleaved):
        y = rotary(array, cos=cos, sin=sin, interleaved=interleaved)
        return y[0] if side.name == "numpy" else y

    if e:
        yield "the other layout", turned(permuted(x), not interleaved), permuted(turned(x, interleaved))


@case(
    "positions.rotary",
    fixed={"cos": "a constant of the positions", "sin": "a constant of the positions"},
    also=[only_distances_show, layouts_are_permutations],
    refuses=[
        dict(x=array(4), cos=array(1, 2), sin=array(1, 2)),
        dict(x=array(3, 4), cos=array(2), sin=array(2)),
        dict(x=array(3, 4), cos=array(3, 2), sin=array(3, 1)),
        dict(x=array(3, 4), cos=array(3, 3), sin=array(3, 3)),
        dict(x=array(3, 4), cos=array(1, 2), sin=array(1, 2)),
        dict(x=array(3, 4), cos=array(4, 2), sin=array(4, 2)),
        dict(x=array(3, 4), cos=array(2, 3, 2), sin=array(2, 3, 2)),
        dict(x=array(2, 3, 4), cos=array(3, 3, 2), sin=array(3, 3, 2)),
        dict(x=ids(3, 4, below=5), cos=array(3, 2), sin=array(3, 2)),
    ],
    bench=dict(x=array(8, 12, 1024, 64), cos=array(1024, 32), sin=array(1024, 32)),
    equivalent={
        "x.size // max(t, 1) -> x.size % max(t, 1)": "how many rows are turned together is a matter of speed",
        "max(t, 1) -> max(t, 2)": "how many rows are turned together is a matter of speed",
    },
)
def rotary(draw):
    *lead, t = draw(dims(1, 3))
    half, rest = draw(size(0, 4)), draw(one_of(0, 0, 1, 3))
    if not draw.ordinary and not draw.edges and draw(one_of(False, False, False, True)):     # several blocks, the last one ragged
        lead, t, half, rest = [], 1300, 12, 5
    shape = [*(draw(one_of(n, 1)) for n in lead[draw(integer(0, len(lead))):]), t, half]
    return dict(x=draw(array(*lead, t, 2 * half + rest)), cos=draw(array(*shape)), sin=draw(array(*shape)),
                interleaved=draw(left_out(flag())))


@case(
    "positions.rotary_frequencies",
    gradient=False,
    refuses=[dict(width=-2), dict(width=3), dict(width=4.0), dict(width=4, base=0.0), dict(width=4, base=float("inf"))],
    equivalent={"max(width, 1) -> max(width, 2)": "a width of 1 is refused"},
)
def rotary_frequencies(draw):
    return dict(width=2 * draw(size(0, 6)), base=draw(left_out(one_of(10000.0, 500000.0, 0.5, 1))))


def in_this_dtype(side, positions, frequencies, attention_factor=1.0):
    """cos + √−1 sin is c · exp(√−1 m ω), in the dtype that was asked for."""
    cos, sin = side.get("positions.rotary_table")(
        positions, frequencies=frequencies, attention_factor=attention_factor, dtype=side.dtype
    )
    yield "dtype", (side.numpy(cos).dtype, side.numpy(sin).dtype) == (np.float64, np.float64), True
    want = attention_factor * np.exp(1j * np.multiply.outer(side.numpy(positions), side.numpy(frequencies)))
    yield "cos", cos, want.real
    yield "sin", sin, want.imag


@case(
    "positions.rotary_table",
    gradient=False,
    also=[in_this_dtype],
    refuses=[
        dict(positions=np.array([True, False]), frequencies=array(2)),
        dict(positions=3, frequencies=array(2)),
        dict(positions=ids(3, below=5), frequencies=ids(2, below=5)),
        dict(positions=ids(3, below=5), frequencies=array(2, 1)),
        dict(positions=ids(3, below=5), frequencies=array()),
        dict(positions=ids(3, below=5), frequencies=array(2), attention_factor=0.0),
        dict(positions=ids(3, below=5), frequencies=array(2), attention_factor=float("nan")),
    ],
    bench=dict(positions=np.arange(8192), frequencies=array(64, low=0.0, high=1.0)),
)
def rotary_table(draw):
    # A cosine's condition number is its angle, which is therefore kept below a radian in ordinary examples.
    shape, far, fast = draw(dims(0, 2)), *((20, 0.05) if draw.ordinary else (5000, 1.0))
    return dict(positions=draw(one_of(ids(*shape, below=far, at_least=-9), array(*shape, low=0.0, high=far))),
                frequencies=draw(array(draw(size(0, 5)), low=0.0, high=fast, hostile=False)),
                attention_factor=draw(left_out(one_of(1.0, 1.25, number(0.1, 2)))))


def there_and_back(side, weight, heads, width=None):
    """Each of the two permutations undoes the other."""
    to_interleaved, to_half_split = side.get("positions.to_interleaved"), side.get("positions.to_half_split")
    options = dict(heads=heads, width=width)
    yield "there and back", to_half_split(to_interleaved(weight, **options), **options), weight
    yield "back and there", to_interleaved(to_half_split(weight, **options), **options), weight


_REFUSED = [
    dict(weight=array(), heads=1),
    dict(weight=array(4, 3), heads=0),
    dict(weight=array(4, 3), heads=2.0),
    dict(weight=array(4, 3), heads=3),
    dict(weight=array(6, 3), heads=2),
    dict(weight=array(8, 3), heads=2, width=3),
    dict(weight=array(8, 3), heads=2, width=6),
    dict(weight=array(8, 3), heads=2, width=-2),
    dict(weight=array(8, 3), heads=2, width=2.0),
]


_BENCH = dict(weight=array(4096, 4096), heads=32)


def _projection(draw):
    heads, width, rest = draw(size(1, 4)), 2 * draw(size(0, 4)), draw(one_of(0, 0, 1, 2))
    shape = (heads * (width + rest), *draw(dims(0, 2)))
    whole = left_out(maybe(width)) if rest == 0 else width
    return dict(weight=draw(one_of(array(*shape), ids(*shape, below=99))), heads=heads, width=draw(whole))


@case("positions.to_interleaved", gradient=False, also=[there_and_back], refuses=_REFUSED, bench=_BENCH)
def to_interleaved(draw):
    return _projection(draw)


@case("positions.to_half_split", gradient=False, also=[there_and_back], refuses=_REFUSED, bench=_BENCH)
def to_half_split(draw):
    return _projection(draw)
