"""What GPT-2 is fed: tiny sizes, every way to run, dropout."""

import numpy as np

from byhand.configs.gpt2 import GPT2_PRESETS, GPT2Config
from numpy_impl.layers.module import flatten
from parity.cases import array, case, ids, integer, left_out, maybe, noise, one_of, size
from parity.cases.decode import _splits


def loss(side, module, ids, noise=None, run="keep"):
    """`loss` is the cross-entropy of `forward`'s logits, and so is its gradient; it can be had without a backward."""
    if 0 in ids.shape:
        return
    targets, options = (ids + 1) % module.config.vocabulary, dict(noise=noise, run=run)
    targets[0, 0] = -100 if targets.shape != (1, 1) else 0
    cross_entropy = side.get("losses.cross_entropy")
    if side.name == "numpy":
        for normalizer in (None, 5):
            logits, backward = module.forward(ids, **options)
            want, loss_backward = cross_entropy(logits, targets=targets, normalizer=normalizer)
            got, own_backward = module.loss(ids, targets, normalizer=normalizer, **options)
            yield "loss", got, want
            yield "loss in inference", module.loss(ids, targets, normalizer=normalizer, noise=noise, run="inference")[0], want
            for scale in (1.0, 0.5):
                wanted = flatten(backward(loss_backward(np.array(scale))))
                for name, grad in flatten(own_backward() if scale == 1 else own_backward(scale)).items():
                    yield f"grads.{name} of {scale} · loss", grad, wanted[name]
        yield "backward in inference", module.forward(ids, run="inference")[1] is None, True
        yield "loss's backward in inference", module.loss(ids, targets, run="inference")[1] is None, True
        yield "hidden's backward in inference", module.hidden(ids, run="inference")[1] is None, True
    else:
        for normalizer in (None, 5):
            want = cross_entropy(module(ids, **options), targets=targets, normalizer=normalizer)
            yield "loss", module.loss(ids, targets, normalizer=normalizer, **options), want
            yield "loss in inference", module.loss(ids, targets, normalizer=normalizer, noise=noise, run="inference"), want
        yield "a graph in inference", module.loss(ids, targets, run="inference").requires_grad, False


def extends(side, module, ids, **options):
    """`extend` is the whole text alone, up to the end of the table of positions."""
    config = module.config
    yield from _splits.model(
        side, module, ids, most=min(config.max_length, _splits.MOST), vocabulary=config.vocabulary, windows=module.windows,
    )


def starts(side, module, ids, noise=None, run="keep"):
    """The weights start with the deviations that the docstring names, on a model large enough to tell."""
    model = side.get("models.GPT2")(GPT2Config(64, 64, 64, 2, 1), dtype=side.dtype)
    for name, value in model.state_dict().items():
        if name.endswith("proj.weight") or name.startswith(("tokens", "positions")):
            want = 0.01 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            yield f"deviation of {name}", abs(float(side.numpy(value).std()) / want - 1) < 0.1, True




@case(
    "models.GPT2",
    bench=dict(init=dict(config=GPT2_PRESETS["gpt2-1m"]), call=dict(ids=ids(8, 128, below=256))),
    # Well-conditioned: branches smaller than the skip, norms near 1. Hostile ones are the Block's own; several on end blow rounding up.
    fill={"proj.weight": array(scale=0.3, hostile=False), "norm1.weight": array(low=0.5, high=1.5),
          "norm2.weight": array(low=0.5, high=1.5), "bias": array(hostile=False)},
    refuses=[
        dict(init=dict(config=GPT2Config(5, 3, 4, 1, 2)), call=dict(ids=ids(2, 4, below=5))),
        dict(init=dict(config=GPT2Config(5, 3, 4, 1, 2)), call=dict(ids=ids(2, 3, below=9, at_least=5))),
        dict(init=dict(config=GPT2Config(5, 3, 4, 1, 2)), call=dict(ids=array(2, 3))),
        dict(init=dict(config=GPT2Config(5, 3, 4, 1, 2, activation="swiglue"))),
    ],
    also=[loss, extends, starts],
    equivalent={
    },
)
def gpt2(draw):
    heads = draw(integer(1, 2))
    t, vocabulary = draw(size(0, 5)), draw(size(1, 7))
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    width = heads * (draw(integer(4, 6)) if draw.ordinary else 1 if draw.edges else draw(integer(3, 4)))
    config = GPT2Config(
        vocabulary=vocabulary, max_length=max(t, 1) + draw(integer(0, 3)), d_model=width, n_layers=draw(integer(1, 2)),
        n_heads=heads, d_hidden=draw(maybe(size(1, 5))), dropout=draw(one_of(0.0, 0.1, 0.6)), norm_eps=draw(one_of(1e-5, 1e-3)),
        activation=draw(one_of("gelu_tanh", "gelu", "relu")),
    )
    return dict(
        init=dict(config=config),
        call=dict(
            ids=ids(draw(integer(0, 3)), t, below=vocabulary), noise=draw(left_out(maybe(noise()))),
            run=draw(left_out(one_of("keep", "recompute"))),
        ),
    )
