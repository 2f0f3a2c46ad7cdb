"""What BERT and its heads are fed: tiny sizes, segments and padding or none, every way to run, dropout."""

import dataclasses

import numpy as np

from byhand.configs.bert import BERT_PRESETS, BertConfig
from numpy_impl.layers.module import flatten
from parity.cases import array, case, ids, integer, left_out, mask, maybe, noise, one_of, size

_TINY = BertConfig(5, 3, 4, 1, 2)
_NANO = dict(init=dict(config=BERT_PRESETS["bert-nano"]), call=dict(ids=ids(8, 128, below=256)))
# Well-conditioned: branches smaller than the skip, norms near 1. Hostile ones are the Block's own; several on end blow rounding up.
_FILL = {"proj.weight": array(scale=0.3, hostile=False), "bias": array(hostile=False),
         **{f"norm{end}.weight": array(low=0.5, high=1.5) for end in ("", "1", "2")}}
_REFUSED: list[dict] = [
    dict(init=dict(config=_TINY), call=dict(ids=ids(2, 4, below=5))),
    dict(init=dict(config=_TINY), call=dict(ids=ids(2, 3, below=9, at_least=5))),
    dict(init=dict(config=_TINY), call=dict(ids=array(2, 3))),
    dict(init=dict(config=_TINY), call=dict(ids=ids(below=5))),
    dict(init=dict(config=_TINY), call=dict(ids=ids(2, 3, below=5), segments=ids(2, 3, below=4, at_least=2))),
    dict(init=dict(config=_TINY), call=dict(ids=ids(2, 3, below=5), segments=ids(3, below=2))),
    dict(init=dict(config=_TINY), call=dict(ids=ids(2, 3, below=5), mask=mask(3))),
    dict(init=dict(config=_TINY), call=dict(ids=ids(2, 3, below=5), mask=ids(2, 3, below=2))),
    dict(init=dict(config=dataclasses.replace(_TINY, activation="swiglue"))),
    dict(init=dict(config=dataclasses.replace(_TINY, segments=0)), call=dict(ids=ids(2, 3, below=5), segments=ids(2, 3, below=1))),
]


def loss(side, module, ids, **options):
    """`loss` is the cross-entropy of `forward`'s logits, and so is its gradient; it can be had without a backward."""
    if 0 in ids.shape:
        return
    logits = module(ids, **options)
    classes = logits.shape[-1]
    targets = side.array(np.arange(int(np.prod(logits.shape[:-1]))).reshape(tuple(logits.shape[:-1])) % classes)
    if targets.ndim and targets.shape[-1] > 1:
        targets[..., -1] = -100
    cross_entropy = side.get("losses.cross_entropy")
    for normalizer in (None, 5):
        if side.name == "torch":
            want = cross_entropy(module(ids, **options), targets=targets, normalizer=normalizer)
            yield "loss", module.loss(ids, targets, normalizer=normalizer, **options), want
            continue
        logits, backward = module.forward(ids, **options)
        want, loss_backward = cross_entropy(logits, targets=targets, normalizer=normalizer)
        got, own_backward = module.loss(ids, targets, normalizer=normalizer, **options)
        yield "loss", got, want
        yield "loss in inference", module.loss(ids, targets, normalizer=normalizer, **(options | {"run": "inference"}))[0], want
        for scale in (1.0, 0.5):
            wanted = flatten(backward(loss_backward(np.array(scale))))
            for name, grad in flatten(own_backward() if scale == 1 else own_backward(scale)).items():
                yield f"grads.{name} of {scale} · loss", grad, wanted[name]
    if side.name == "numpy":
        yield "backward in inference", module.forward(ids, run="inference")[1] is None, True
        yield "loss's backward in inference", module.loss(ids, targets, run="inference")[1] is None, True
    else:
        yield "a graph in inference", module.loss(ids, targets, run="inference").requires_grad, False


def inference(side, module, ids, **options):
    """Nothing is left behind in inference."""
    if side.name == "numpy":
        yield "backward in inference", module.forward(ids, **(options | {"run": "inference"}))[1] is None, True
    else:
        yield "a graph in inference", module(ids, **(options | {"run": "inference"})).requires_grad, False


def starts(side, module, ids, **options):
    """Weights start with a deviation of 0.02, biases and the embedding of padding at 0; on a model large enough to tell."""
    model = type(module)(BertConfig(64, 64, 64, 1, 1, segments=40, classes=40, padding=3), dtype=side.dtype)
    for name, value in model.state_dict().items():
        value = side.numpy(value)
        if name.endswith("tokens.weight"):
            yield "the embedding of padding", value[3], np.zeros(64)
        if name.endswith(".weight") and "norm" not in name:
            yield f"deviation of {name}", abs(float(value.std()) / 0.02 - 1) < 0.1, True
        elif name.endswith("bias"):
            yield name, value, np.zeros_like(value)


_UNSEEN = "no sample shows so small a change of the deviation"
_EQUIVALENT = {
    "0.02 * rng.standard_normal(array.shape) -> 0.02002 * rng.standard_normal(array.shape)": _UNSEEN,
    "0.02 * rng.standard_normal(array.shape) -> 0.02000002 * rng.standard_normal(array.shape)": _UNSEEN,
}


def drawn(draw, at_least=0):
    heads = draw(integer(1, 2))
    t, vocabulary, segments = draw(size(at_least, 5)), draw(size(2, 7)), draw(integer(0, 3))
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    width = heads * (draw(integer(6, 8)) if draw.ordinary else 1 if draw.edges else draw(integer(3, 4)))
    # The embedding of padding is not differentiated: in ordinary examples, which are, it is not read.
    padding = draw(one_of(None, 0)) if draw.ordinary else draw(one_of(None, 0, 1))
    config = BertConfig(
        vocabulary=vocabulary, max_length=max(t, 1) + draw(integer(0, 1)), d_model=width, n_layers=draw(integer(1, 2)), n_heads=heads,
        d_hidden=draw(maybe(size(1, 5))), segments=segments, padding=padding, classes=draw(size(1, 4)),
        dropout=draw(one_of(0.0, 0.1, 0.6)), norm_eps=draw(one_of(1e-12, 1e-3)),
        activation="gelu" if draw.ordinary else draw(one_of("gelu", "relu")), pooler=draw(one_of("tanh", "relu")),
    )
    shape = (*draw(one_of((), (2,), (1, 2))), t)
    return dict(
        init=dict(config=config),
        call=dict(
            ids=ids(*shape, below=vocabulary, at_least=int(draw.ordinary)),
            segments=draw(left_out(maybe(ids(*shape, below=segments)) if segments else None)),
            mask=draw(left_out(maybe(mask(*shape)))), noise=draw(left_out(maybe(noise()))),
            run=draw(left_out(one_of("keep", "recompute"))),
        ),
    )


@case("models.Bert", bench=_NANO, fill=_FILL, refuses=_REFUSED, also=[inference, starts], equivalent=_EQUIVALENT)
def bert(draw):
    return drawn(draw)


@case(
    "models.BertMaskedLM", bench=_NANO, fill=_FILL, also=[loss, starts], equivalent=_EQUIVALENT,
    refuses=[*_REFUSED, dict(init=dict(config=dataclasses.replace(_TINY, activation="swiglu")))],
)
def bert_masked_lm(draw):
    return drawn(draw)


@case(
    "models.BertSequenceClassifier", bench=_NANO, fill=_FILL, also=[loss, starts], equivalent=_EQUIVALENT,
    refuses=[*_REFUSED, dict(init=dict(config=_TINY), call=dict(ids=ids(2, 0, below=5)))],
)
def bert_sequence_classifier(draw):
    return drawn(draw, at_least=1)


@case("models.BertTokenClassifier", bench=_NANO, fill=_FILL, refuses=_REFUSED, also=[loss, starts], equivalent=_EQUIVALENT)
def bert_token_classifier(draw):
    return drawn(draw)
