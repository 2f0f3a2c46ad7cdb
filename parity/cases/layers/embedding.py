"""What Embedding is fed: ids of any shape, repeated ones among them, with and without a padding row."""

import importlib

import numpy as np

from parity.cases import array, case, dims, ids, integer, left_out, maybe, size


def starts(side, module, ids):
    """The padding row starts at zero."""
    table = side.get("layers.Embedding")(5, 2, padding_idx=3, dtype=side.dtype)
    yield "padding row", table.weight[3], 0 * table.weight[3]


def filled(side, module, ids):
    """The table is the generator's draws; and a large one is filled piece by piece with what a single draw of it all would give."""
    if side.name == "numpy":
        table = side.get("layers.Embedding")(5, 2, dtype=side.dtype, rng=np.random.default_rng(5))
        yield "table", table.weight, np.random.default_rng(5).standard_normal((5, 2))
    if side.name == "numpy" and module.weight.size % 2:                # in some of the examples: it does not depend on them
        large = np.empty(140_000)
        importlib.import_module("numpy_impl.layers._fill").fill_normal(large, np.random.default_rng(5), 0.02)
        yield "large", large, 0.02 * np.random.default_rng(5).standard_normal(140_000)


@case(
    "layers.Embedding",
    bench=dict(init=dict(vocabulary=16384, d_model=768), call=dict(ids=ids(16, 512, below=16384))),
    also=[starts, filled],
    refuses=[
        dict(init=dict(vocabulary=0, d_model=2)),
        dict(init=dict(vocabulary=2, d_model=0)),
        dict(init=dict(vocabulary=3, d_model=2, padding_idx=3)),
        dict(init=dict(vocabulary=3, d_model=2, padding_idx=-1)),
        dict(init=dict(vocabulary=3, d_model=2), call=dict(ids=array(2))),
        dict(init=dict(vocabulary=3, d_model=2), call=dict(ids=ids(2, at_least=3, below=5))),
    ],
)
def embedding(draw):
    vocabulary = draw(size(1, 7))
    # The padding row's gradient is zero by decree, so the central difference of ordinary examples could not confirm it.
    padding_idx = draw(left_out(None)) if draw.ordinary else draw(left_out(maybe(integer(0, vocabulary - 1))))
    return dict(
        init=dict(vocabulary=vocabulary, d_model=draw(size()), padding_idx=padding_idx),
        call=dict(ids=ids(*draw(dims(0, 3)), below=vocabulary)),
    )
