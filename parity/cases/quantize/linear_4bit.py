"""What the 4-bit linear layer is fed: rows that end within blocks and bytes, one strip and many; what is refused."""

import tracemalloc

import numpy as np

from parity.cases import array, case, dims, flag, ids, left_out, maybe, one_of, size
from parity.cases.quantize.int8 import codes as any_codes

_BLOCKS = (1, 2, 3, 4, 6, 7, 16, 64)


def _bytes(count):
    return any_codes((-(-count // 2),), "uint8")


def _dequantized(side, x, bias=None, *, codes, absmax, out_features, kind="nf4", block=64, strip=None):
    """It is `linear` on the dequantized matrix."""
    packed = dict(absmax=absmax, shape=(out_features, x.shape[-1]), kind=kind, block=block)
    weight = side.get("quantize.dequantize_4bit")(codes, **packed, dtype=x.dtype)
    options = dict(codes=codes, absmax=absmax, out_features=out_features, kind=kind, block=block, strip=strip)
    op, linear = side.get("quantize.linear_4bit"), side.get("ops.linear")
    if side.name == "torch":
        yield "y", op(x, bias, **options), linear(x, weight, bias)
        return
    (y, backward), (want, linear_backward) = op(x, bias, **options), linear(x, weight, bias)
    yield "y", y, want
    dy = np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape)
    (dx, dbias), (want_dx, _, want_dbias) = backward(dy), linear_backward(dy)
    yield "dx", dx, want_dx
    if bias is not None:
        yield "dbias", dbias, want_dbias


def _in_strips(forward_of):
    """No more is dequantized at once than 4 MiB, or than one row."""
    for rows, width, most in ((520, 4096, 4 << 20), (2, 1_100_000, 4_400_000)):
        forward, x = forward_of(rows, width), np.ones((1, width), np.float32)
        y, backward = forward(x)
        # besides the strip there are y, or dx and the strip's part of it
        runs = {"forward": (lambda x=x, forward=forward: forward(x), y.nbytes), "backward": (lambda y=y, b=backward: b(y), 2 * x.nbytes)}
        for what, (run, own) in runs.items():
            tracemalloc.start()
            run()
            peak = tracemalloc.get_traced_memory()[1] - own
            tracemalloc.stop()
            yield f"{what}: a strip of {most} bytes, not {peak}", most <= peak <= most + 300_000, True


def _op_in_strips(side, x, bias=None, **options):
    def forward_of(rows, width):
        codes, absmax = np.zeros(rows * width // 2, np.uint8), np.ones(-(-rows * width // 64), np.float32)
        return lambda x: side.get("quantize.linear_4bit")(x, codes=codes, absmax=absmax, out_features=rows)

    if side.name == "numpy" and options.get("strip") == 1:      # in some of the examples: it does not depend on them
        yield from _in_strips(forward_of)


def _layer_in_strips(side, module, x):
    def forward_of(rows, width):
        linear = side.get("layers.Linear")(1, 1, bias=False)
        linear.weight = np.zeros((rows, width), np.float32)
        return side.get("quantize.Linear4bit").from_linear(linear, double=module.double).forward

    if side.name == "numpy" and module.block == 16:
        yield from _in_strips(forward_of)


def _bad(**changes):
    return dict(x=array(2, 3), bias=array(5), codes=_bytes(15), absmax=array(4, low=0.5, high=2.0), out_features=5, block=4) | changes


_EMPTY = {"max(1, width * dtype.itemsize) -> max(2, width * dtype.itemsize)": "rows that are empty, whose strips are so too"}


@case(
    "quantize.linear_4bit", also=[_dequantized, _op_in_strips], fixed={"absmax": "the scales of a constant matrix"}, equivalent=_EMPTY,
    bench=dict(x=array(128, 4096), bias=None, codes=_bytes(4096 * 11008), absmax=array(4096 * 11008 // 64, low=0.5, high=2.0),
               out_features=11008, block=64, kind="nf4"),
    refuses=[
        _bad(x=array()),
        _bad(x=array(2, 4)),
        _bad(x=ids(2, 3, below=4)),
        _bad(bias=array(4)),
        _bad(bias=array(1, 5)),
        _bad(codes=_bytes(13)),
        _bad(codes=any_codes((8, 1), "uint8")),
        _bad(codes=any_codes((8,))),
        _bad(codes=array(8)),
        _bad(absmax=array(3)),
        _bad(absmax=array(5)),
        _bad(absmax=_bytes(8)),
        _bad(out_features=-1),
        _bad(out_features=5.0),
        _bad(kind="nf5"),
        _bad(block=0),
        _bad(block=4.0),
        _bad(strip=0),
    ],
)
def linear_4bit(draw):
    *batch, width = draw(dims(max_rank=4))
    width = width if draw.edges else draw(one_of(width, 33))            # then the default block is not larger than the matrix
    outputs, block = draw(size(0, 9)), draw(one_of(*_BLOCKS))
    count = outputs * width
    given = dict(block=block) if block != 64 or draw(flag()) else {}
    return dict(
        x=draw(array(*batch, width)), bias=draw(left_out(maybe(array(outputs)))), codes=_bytes(count),
        absmax=array(-(-count // block), low=0.1, high=1.0, hostile=False), out_features=outputs,
        kind=draw(left_out(one_of("nf4", "fp4"))), strip=draw(left_out(one_of(None, 1, 2, 3, 5))), **given,
    )


def _weight(side, module, x):
    """`weight` is the matrix that the layer multiplies by."""
    linear = side.get("ops.linear")
    if side.name == "torch":
        yield "y", module(x), linear(x, module.weight, module.bias)
    else:
        yield "y", module.forward(x)[0], linear(x, module.weight, module.bias)[0]
        yield "dtype of weight", module.weight.dtype == side.dtype, True
    rows, parts = zip(*module.strips(), strict=True)
    yield "the strips follow each other", [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])], True
    yield "the strips", np.concatenate([side.numpy(part) for part in parts]), module.weight


def _from_linear(side, module, x):
    """What is made from a layer holds its bias, trained or not, and its weight to the resolution of the codes."""
    linear = side.get("layers.Linear")(70, 12, bias=module.bias is not None, dtype=side.dtype)
    kind, block, double = module.kind, module.block, module.double
    layer = side.get("quantize.Linear4bit").from_linear(linear, kind=kind, block=block, double=double)
    yield "the bias itself", layer.bias is linear.bias, True
    weight, got = side.numpy(linear.weight), side.numpy(layer.weight)
    yield "error", bool(np.abs(got - weight).max() <= 0.2 * np.abs(weight).max()), True
    quantized = side.get("quantize.quantize_4bit")(linear.weight, kind=kind, block=block)
    yield "codes", layer.codes, quantized.codes
    if double:
        twice = side.get("quantize.double_quantize")(quantized.absmax)
        yield "absmax_codes", layer.absmax_codes, twice.codes
        yield "absmax_absmax", layer.absmax_absmax, twice.absmax
        yield "absmax_offset", layer.absmax_offset, twice.offset
    else:
        yield "absmax", layer.absmax, quantized.absmax
    if side.name == "numpy":
        linear.freeze("bias")
        frozen = side.get("quantize.Linear4bit").from_linear(linear)
        yield "what of a frozen layer is trained", list(frozen.parameters()) == [], True
        yield "what is trained", list(layer.parameters()) == ([] if module.bias is None else ["bias"]), True
        yield "defaults", (frozen.kind, frozen.block, frozen.double) == ("nf4", 64, False), True


@case(
    "quantize.Linear4bit", also=[_weight, _from_linear, _layer_in_strips], equivalent=_EMPTY,
    fill={"absmax_codes": any_codes((), "uint8"), "codes": any_codes((), "uint8"), "absmax_offset": array(low=0.5, high=1.0),
          "absmax_absmax": array(low=0.1, high=0.4), "absmax": array(low=0.1, high=1.0)},
    bench=dict(init=dict(in_features=4096, out_features=11008, bias=False), call=dict(x=array(128, 4096))),
    refuses=[
        dict(init=dict(in_features=0, out_features=2)),
        dict(init=dict(in_features=2, out_features=0)),
        dict(init=dict(in_features=3, out_features=2, kind="int4")),
        dict(init=dict(in_features=3, out_features=2, block=0)),
        dict(init=dict(in_features=3, out_features=2, double="yes")),
        dict(init=dict(in_features=3, out_features=2), call=dict(x=array(4, 2))),
        dict(init=dict(in_features=3, out_features=2), call=dict(x=array())),
        dict(init=dict(in_features=3, out_features=2), call=dict(x=ids(4, 3, below=2))),
    ],
)
def layer(draw):
    *lead, width = draw(dims(min_last=1))
    width = width if draw.edges else draw(one_of(width, 33))
    outputs = draw(size(8, 12) if draw.ordinary else size())
    init = dict(in_features=width, out_features=outputs, bias=draw(left_out(flag())), kind=draw(left_out(one_of("nf4", "fp4"))),
                block=draw(left_out(one_of(*_BLOCKS))), double=draw(left_out(flag())))
    return dict(init=init, call=dict(x=array(*lead, width)))
