"""What the encoder–decoder Transformer is fed: tiny sizes, every order, tied and not, masks over the source, every way to run, dropout."""

import dataclasses

import numpy as np

from byhand.configs.transformer import TRANSFORMER_PRESETS, TransformerConfig
from numpy_impl.layers.module import flatten
from parity.cases import array, case, flag, ids, integer, left_out, mask, maybe, noise, one_of, size
from parity.cases.decode import _splits


def loss(side, module, source, target, source_mask=None, noise=None, run="keep"):
    """`loss` is the cross-entropy of the logits for the labels shifted right, and so is its gradient; it can be had without a backward."""
    if 0 in target.shape:
        return
    config = module.config
    labels, options = (target + 1) % target_vocabulary(config), dict(source_mask=source_mask, noise=noise, run=run)
    labels[..., -1] = -100 if labels.shape[-1] > 1 else 0
    read = side.get("ops.shift_right")(labels, start=config.start, padding=config.padding)
    cross_entropy = side.get("losses.cross_entropy")
    if side.name == "numpy":
        for normalizer in (None, 5):
            logits, backward = module.forward(source, read, **options)
            want, loss_backward = cross_entropy(logits, targets=labels, normalizer=normalizer)
            got, own_backward = module.loss(source, labels, normalizer=normalizer, **options)
            yield "loss", got, want
            without = options | {"run": "inference"}
            yield "loss in inference", module.loss(source, labels, normalizer=normalizer, **without)[0], want
            for scale in (1.0, 0.5):
                wanted = flatten(backward(loss_backward(np.array(scale))))
                for name, grad in flatten(own_backward() if scale == 1 else own_backward(scale)).items():
                    yield f"grads.{name} of {scale} · loss", grad, wanted[name]
        yield "backward in inference", module.forward(source, read, run="inference")[1] is None, True
        yield "loss's backward in inference", module.loss(source, labels, run="inference")[1] is None, True
        yield "hidden's backward in inference", module.hidden(source, read, run="inference")[1] is None, True
        yield "encode's backward in inference", module.encode(source, run="inference")[1] is None, True
        context = module.encode(source, run="inference")[0]
        yield "decode's backward in inference", module.decode(read, context, run="inference")[1] is None, True
    else:
        for normalizer in (None, 5):
            want = cross_entropy(module(source, read, **options), targets=labels, normalizer=normalizer)
            yield "loss", module.loss(source, labels, normalizer=normalizer, **options), want
        yield "a graph in inference", module.loss(source, labels, run="inference").requires_grad, False


def extends(side, module, source, target, source_mask=None, **options):
    """`extend` is the whole target alone, beside its own source."""
    rng = _splits.rng_of(side, source, target)
    read = dict(source=rng.integers(0, module.config.vocabulary, (3, source.shape[-1])))
    if source_mask is not None:
        read["source_mask"] = rng.random(read["source"].shape) < 0.7
    yield from _splits.model(side, module, target, vocabulary=target_vocabulary(module.config), source=read)


def target_vocabulary(config):
    """Of T5 too, which has one vocabulary."""
    return getattr(config, "target_vocabulary", config.vocabulary)


def starts(side, module, **inputs):
    """The weights start with the deviations that the docstring names, on a model large enough to tell."""
    for order in ("post", "deepnorm"):
        config = TransformerConfig(64, 64, 1, 2, 1, tied=False, order=order)
        for name, value in side.get("models.Transformer")(config, dtype=side.dtype).state_dict().items():
            if name.endswith("proj.weight"):
                beta = 1 if "q_proj" in name or "k_proj" in name else config.deepnorm[name.startswith("decoder")].beta
                want = beta * (2 / sum(value.shape)) ** 0.5
            elif name.endswith(("tokens.weight", "head.weight")):
                want = 1 / 8
            else:
                continue
            yield f"deviation of {name}", abs(float(side.numpy(value).std()) / want - 1) < 0.1, True


_TINY = TransformerConfig(5, 4, 2, 1, 1)


@case(
    "models.Transformer",
    bench=dict(
        init=dict(config=TRANSFORMER_PRESETS["transformer-nano"]), call=dict(source=ids(8, 128, below=256), target=ids(8, 128, below=256))
    ),
    # Well-conditioned: branches smaller than the skip, norms near 1. Hostile ones are the blocks' own; several on end blow rounding up.
    fill={"proj.weight": array(scale=0.3, hostile=False), "bias": array(hostile=False),
          **{f"norm{end}.weight": array(low=0.5, high=1.5) for end in ("", "1", "2", "_cross")}},
    refuses=[
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=9, at_least=5), target=ids(2, 3, below=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=ids(2, 3, below=9, at_least=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=ids(3, 3, below=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=array(2, 3))),
        dict(init=dict(config=_TINY), call=dict(source=ids(below=5), target=ids(2, below=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=ids(2, 3, below=5), source_mask=mask(2, 4))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=ids(2, 3, below=5), source_mask=ids(2, 3, below=2))),
        dict(init=dict(config=dataclasses.replace(_TINY, activation="swiglue"))),
    ],
    also=[loss, extends, starts],
)
def transformer(draw):
    heads = draw(integer(1, 2))
    lead, s, t = draw(one_of((), (2,), (1, 2))), draw(size(0, 4)), draw(size(0, 4))
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    width = heads * (draw(integer(4, 6)) if draw.ordinary else 1 if draw.edges else draw(integer(3, 4)))
    tied, vocabulary = draw(flag()), draw(size(2, 6))
    target = vocabulary if tied else draw(size(2, 6))
    config = TransformerConfig(
        vocabulary=vocabulary, d_model=width, n_heads=heads, encoder_layers=draw(integer(1, 2)), decoder_layers=draw(integer(1, 2)),
        d_hidden=draw(size(1, 5)), order=draw(one_of("post", "pre", "deepnorm")), activation=draw(one_of("relu", "gelu")),
        tied=tied, target_vocabulary=target, start=draw(integer(0, 1)), padding=draw(integer(0, 1)),
        dropout=draw(one_of(0.0, 0.1, 0.6)), norm_eps=draw(one_of(1e-5, 1e-3)),
    )
    return dict(
        init=dict(config=config),
        call=dict(
            source=ids(*lead, s, below=vocabulary), target=ids(*lead, t, below=target), source_mask=draw(left_out(maybe(mask(*lead, s)))),
            noise=draw(left_out(maybe(noise()))), run=draw(left_out(one_of("keep", "recompute"))),
        ),
    )
