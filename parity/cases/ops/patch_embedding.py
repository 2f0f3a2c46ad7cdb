"""What patch embeddings are fed: square and oblong patches and grids; the two forms are equal, gradients included."""

from parity.cases import array, case, integer, left_out, maybe, one_of, size


def drawn(draw):
    ph, pw = draw(integer(1, 3)), draw(integer(1, 4))
    patch = (ph, pw) if draw(one_of(True, False)) else pw
    if patch == pw:
        ph = pw
    c, d = draw(size(1, 3)), draw(size(1, 5))
    rows, cols = draw(integer(1, 4)), draw(integer(1, 3))
    return dict(images=draw(array(draw(size(0, 3)), c, rows * ph, cols * pw)), weight=draw(array(d, c, ph, pw)),
                bias=draw(left_out(maybe(array(d)))), patch=patch)


def the_other_form(side, **inputs):
    """patch_embedding and patch_embedding_conv agree in outputs and gradients."""
    one, other = (side.get(f"ops.{name}")(**inputs) for name in ("patch_embedding", "patch_embedding_conv"))
    if side.name == "torch":
        yield "both forms", one, other
        return
    (y, backward), (y_conv, backward_conv) = one, other
    yield "both forms", y, y_conv
    dy = y + 1
    for name, got, want in zip(("dimages", "dweight", "dbias"), backward(dy), backward_conv(dy), strict=True):
        if got is not None:
            yield f"{name} of both forms", got, want


REFUSES = [
    dict(images=array(2, 3, 4, 6), weight=array(5, 3, 2, 2), patch=3),
    dict(images=array(2, 3, 5, 6), weight=array(5, 3, 2, 2), patch=2),
    dict(images=array(2, 3, 4, 7), weight=array(5, 3, 2, 2), patch=2),
    dict(images=array(2, 3, 4, 6), weight=array(5, 4, 2, 2), patch=2),
    dict(images=array(2, 3, 4, 6), weight=array(5, 3, 2, 2), bias=array(4), patch=2),
    dict(images=array(3, 4, 6), weight=array(5, 3, 2, 2), patch=2),
    dict(images=array(2, 3, 4, 6), weight=array(5, 12), patch=2),
    dict(images=array(2, 3, 4, 6), weight=array(5, 3, 2, 2), patch=0),
    dict(images=array(2, 3, 4, 6), weight=array(5, 3, 2, 2), patch=(2, 2, 2)),
    dict(images=array(2, 0, 4, 6), weight=array(5, 0, 2, 2), patch=2),
    dict(images=array(2, 3, 0, 6), weight=array(5, 3, 2, 2), patch=2),
    dict(images=array(2, 3, 4, 6), weight=array(0, 3, 2, 2), patch=2),
]
BENCH = dict(images=array(8, 3, 224, 224), weight=array(768, 3, 16, 16), bias=array(768), patch=16)


@case("ops.patch_embedding", refuses=REFUSES, also=[the_other_form], bench=BENCH)
def patch_embedding(draw):
    return drawn(draw)


@case("ops.patch_embedding_conv", refuses=REFUSES, also=[the_other_form], bench=BENCH)
def patch_embedding_conv(draw):
    return drawn(draw)
