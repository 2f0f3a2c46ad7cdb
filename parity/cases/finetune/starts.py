"""What the starts are fed: tall, wide and square weights, ranks from 0 to more than there are, every scaling, weights of lower rank."""

import numpy as np

from parity.cases import array, case, integer, left_out, one_of, size

SCALINGS = (0.25, 1.0, 2.0, 1e6)


def drawn(draw):
    """A weight, a rank and a scaling."""
    out, width = draw(size(0, 7)), draw(size(0, 7))
    r = draw(integer(0, min(out, width) + 2))
    scaling = draw(one_of(*SCALINGS, *([] if r else [0.0])))
    return dict(weight=draw(array(out, width)), r=r, scaling=scaling)


def restores(name):
    """base + s · B · A is the weight."""
    def nothing_changes(side, weight, r, scaling):
        start = side.get(f"finetune.{name}")(weight, r=r, scaling=scaling)
        yield "base + s · B · A", start.weight + scaling * (start.lora_B @ start.lora_A), weight
    return nothing_changes


def degenerate(side, weight, r, scaling):
    """Directions that the weight does not have are exactly zero, and so is a weight of zeros."""
    one = side.array(np.outer([1.0, -2.0, 0.5, 3.0], [2.0, 1.0, -1.0]))
    start = side.get("finetune.pissa")(one, r=5, scaling=2.0)
    yield "A of a weight of rank 1", start.lora_A[1:], 0 * start.lora_A[1:]
    yield "B of a weight of rank 1", start.lora_B[:, 1:], 0 * start.lora_B[:, 1:]
    yield "its largest entry is positive", start.lora_B[3, 0] > 0, True
    yield "A of zeros", side.get("finetune.pissa")(0 * one, r=2, scaling=2.0).lora_A, side.array(np.zeros((2, 3)))
    tiny = side.get("finetune.pissa")(1e-20 * one, r=2, scaling=2.0)
    yield "a tiny weight is not rounding", 1e20 * (2 * (tiny.lora_B @ tiny.lora_A)), one
    # The two vectors of a symmetric 2 × 2 matrix have entries of one size, and rounding says which is larger: the first is positive.
    for other in np.linspace(0.1, 1.9, 19):
        both = side.get("finetune.pissa")(side.array(np.array([[2.0, other], [other, 2.0]])), r=2, scaling=1.0)
        want = np.array([[1.0, 1.0], [1.0, -1.0]]) * np.sqrt([(2 + other) / 2, (2 - other) / 2])
        yield "the first of equals", both.lora_B, want


REFUSES = [
    dict(weight=array(3), r=1, scaling=1.0),
    dict(weight=np.zeros((2, 3), dtype=int), r=1, scaling=1.0),
    dict(weight=np.array([[1.0, np.nan], [0.0, 1.0]]), r=1, scaling=1.0),
    dict(weight=np.array([[1.0, np.inf], [0.0, 1.0]]), r=1, scaling=1.0),
    dict(weight=array(3, 2), r=-1, scaling=1.0),
    dict(weight=array(3, 2), r=1.0, scaling=1.0),
    dict(weight=array(3, 2), r=1, scaling=0.0),
    dict(weight=array(3, 2), r=1, scaling=-1.0),
    dict(weight=array(3, 2), r=0, scaling=-1.0),
    dict(weight=array(3, 2), r=1, scaling=float("inf")),
]


@case(
    "finetune.pissa",
    gradient=False,
    refuses=REFUSES,
    also=[restores("pissa"), degenerate],
    bench=dict(weight=array(512, 512), r=16, scaling=2.0),
)
def pissa(draw):
    return drawn(draw)


@case(
    "finetune.olora",
    gradient=False,
    refuses=REFUSES,
    also=[restores("olora")],
    bench=dict(weight=array(512, 512), r=16, scaling=2.0),
    equivalent={"upper.diagonal() < 0 -> upper.diagonal() <= 0": "where the diagonal is 0, the sign of its column of Q is open"},
)
def olora(draw):
    return drawn(draw)


def as_told(side, weight, r, scaling, kind="nf4", block=64, steps=1):
    """The last step's base is the weight less the step before's product, and the product is the nearest to what quantizing it loses."""
    loftq = side.get("finetune.loftq")
    start = loftq(weight, r=r, scaling=scaling, kind=kind, block=block, steps=steps)
    if steps == 1:
        yield "the first base", start.weight, weight
    else:
        before = loftq(weight, r=r, scaling=scaling, kind=kind, block=block, steps=steps - 1)
        yield "a later base", start.weight, weight - scaling * (before.lora_B @ before.lora_A)
    codes, absmax = side.get("quantize.quantize_4bit")(start.weight, kind=kind, block=block)
    shape, dtype = tuple(weight.shape), weight.dtype
    lost = weight - side.get("quantize.dequantize_4bit")(codes, absmax=absmax, shape=shape, kind=kind, block=block, dtype=dtype)
    near = side.get("finetune.pissa")(lost, r=r, scaling=scaling)
    yield "the adapter", scaling * (start.lora_B @ start.lora_A), scaling * (near.lora_B @ near.lora_A)


@case(
    "finetune.loftq",
    gradient=False,
    refuses=[
        *REFUSES,
        dict(weight=array(3, 2), r=1, scaling=1.0, kind="int4"),
        dict(weight=array(3, 2), r=1, scaling=1.0, block=0),
        dict(weight=array(3, 2), r=1, scaling=1.0, steps=0),
    ],
    also=[as_told],
    bench=dict(weight=array(512, 512), r=16, scaling=2.0),
)
def loftq(draw):
    out, width = draw(size(0, 7)), draw(size(0, 7))
    if not draw.edges and not draw.ordinary and draw(integer(0, 2)) == 0:
        out, width = 9, 13                             # more than the 64 numbers that share one scale by default
    r, steps = draw(integer(0, min(out, width) + 2)), draw(left_out(integer(1, 3)))
    # A later step quantizes what the SVD of the step before gave: between equal singular values the two sides may choose differently.
    return dict(
        weight=draw(array(out, width, scale=0.02, hostile=steps not in (2, 3))), r=r, steps=steps,
        scaling=draw(one_of(*SCALINGS, *([] if r else [0.0]))),
        kind=draw(left_out(one_of("nf4", "fp4"))), block=draw(left_out(one_of(1, 3, 8, 64))),
    )
