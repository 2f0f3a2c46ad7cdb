"""What PatchEmbedding is fed: square and oblong patches and grids, with and without a bias."""

import math

import numpy as np

from parity.cases import array, case, flag, integer, left_out, size


def starts_uniform(side, module, images):
    """Fresh weights and biases are the generator's draws between −b and b, b = 1/√(numbers in a patch)."""
    if side.name == "numpy":
        d, channels, *patch = module.weight.shape
        b, rng = 1 / math.sqrt(channels * math.prod(patch)), np.random.default_rng(5)
        fresh = side.get("layers.PatchEmbedding")(channels, d, patch=tuple(patch), dtype=side.dtype, rng=np.random.default_rng(5))
        yield "weight", fresh.weight, 2 * b * (rng.random(module.weight.shape) - 0.5)
        yield "bias", fresh.bias, 2 * b * (rng.random(d) - 0.5)


@case(
    "layers.PatchEmbedding",
    bench=dict(init=dict(channels=3, d_model=768, patch=16), call=dict(images=array(8, 3, 224, 224))),
    also=[starts_uniform],
    refuses=[
        dict(init=dict(channels=0, d_model=4, patch=2)),
        dict(init=dict(channels=3, d_model=0, patch=2)),
        dict(init=dict(channels=3, d_model=4, patch=0)),
        dict(init=dict(channels=3, d_model=4, patch=(2, 2, 2))),
        dict(init=dict(channels=3, d_model=4, patch=2), call=dict(images=array(2, 3, 4, 5))),
        dict(init=dict(channels=3, d_model=4, patch=2), call=dict(images=array(2, 1, 4, 4))),
    ],
)
def patch_embedding(draw):
    channels, ph, pw = draw(size(1, 3)), draw(integer(1, 3)), draw(integer(1, 3))
    patch = ph if ph == pw else (ph, pw)
    init = dict(channels=channels, d_model=draw(size(1, 5)), patch=patch, bias=draw(left_out(flag())))
    return dict(init=init, call=dict(images=array(draw(size(0, 3)), channels, ph * draw(integer(1, 3)), pw * draw(integer(1, 3)))))
