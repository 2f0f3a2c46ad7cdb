"""What prompt tuning is fed: every kind of model that it can stand in front of, every way to run, prompts of no token to three."""

import dataclasses

import numpy as np

from byhand.configs.decoder import DecoderConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from numpy_impl.layers.module import flatten
from parity.cases import array, case, flag, ids, integer, left_out, maybe, noise, one_of
from parity.cases.decode import _splits
from parity.cases.finetune._models import trainable

_SIZES = dict(vocabulary=7, max_length=8, d_model=8, n_layers=2, n_heads=2)


def tuned(side, *, config, n, start="normal"):
    base = side.get(f"models.{type(config).__name__.removesuffix('Config')}")(config, dtype=side.dtype)
    return side.get("finetune.PromptTuned")(base, n, start=start)


def real_tokens(side, module, ids, noise=None, run="keep"):
    """A prompt of embeddings of tokens is these tokens in front of the text; a prompt of none is nothing: bit for bit."""
    lead, base, length = ids.shape[:-1], module.base, module.config.max_length
    yield "trained", trainable(module) == ["prompt"], True
    yield "the longest text", length, base.config.max_length - len(module.prompt)
    start = np.arange(len(module.prompt)) % 7
    first = np.broadcast_to(start, (*lead, len(start)))
    whole = side.array(np.concatenate([first, side.numpy(ids)], -1))
    other = side.get("finetune.PromptTuned")(base, len(start), start=side.array(start))
    want = base(whole, noise=noise, run=run)[..., len(start):, :]
    yield "tokens in front", other(ids, noise=noise, run=run), want
    none = side.get("finetune.PromptTuned")(base, 0)
    yield "no prompt", np.array_equal(side.numpy(none(ids, noise=noise)), side.numpy(base(ids, noise=noise)), equal_nan=True), True
    if side.name != "numpy":
        return
    logits, backward = other.unfreeze("base.*", "prompt").forward(ids, noise=noise, run=run)
    _, base_backward = base.forward(whole, noise=noise, run=run)
    dlogits = np.cos(np.arange(float(logits.size))).reshape(logits.shape)
    got = backward(dlogits)
    grads = flatten(base_backward(np.concatenate([np.zeros((*lead, len(start), 7)), dlogits], -2)))
    grads["tokens.weight"][start] -= got["prompt"]                      # what the base's table gets from the places of the prompt
    for name, grad in flatten(got["base"]).items():
        yield f"gradient of the base's {name}", grad, grads[name]
    base.freeze()


def loss(side, module, ids, noise=None, run="keep"):
    """`loss` is the cross-entropy of `forward`'s logits, and so is its gradient; it can be had without a backward."""
    if 0 in ids.shape:
        return
    targets, options = (ids + 1) % 7, dict(noise=noise, run=run)
    targets[..., 0] = -100 if ids.shape[-1] > 1 else 0
    cross_entropy = side.get("losses.cross_entropy")
    for normalizer in (None, 5):
        if side.name == "torch":
            want = cross_entropy(module(ids, **options), targets=targets, normalizer=normalizer)
            yield "loss", module.loss(ids, targets, normalizer=normalizer, **options), want
            quiet = module.loss(ids, targets, normalizer=normalizer, noise=noise, run="inference")
            yield "loss in inference", quiet, want
            yield "a graph in inference", quiet.requires_grad or module.hidden(ids, run="inference").requires_grad, False
            continue
        logits, backward = module.forward(ids, **options)
        want, loss_backward = cross_entropy(logits, targets=targets, normalizer=normalizer)
        got, own_backward = module.loss(ids, targets, normalizer=normalizer, **options)
        yield "loss", got, want
        yield "loss in inference", module.loss(ids, targets, normalizer=normalizer, noise=noise, run="inference")[0], want
        for scale in (1.0, 0.5):
            grads = own_backward() if scale == 1 else own_backward(scale)
            yield f"gradient of {scale} · loss", grads["prompt"], backward(loss_backward(np.array(scale)))["prompt"]
    if side.name == "numpy":
        yield "backward in inference", module.forward(ids, run="inference")[1] is None, True
        yield "loss's backward in inference", module.loss(ids, targets, run="inference")[1] is None, True
        yield "hidden's backward in inference", module.hidden(ids, run="inference")[1] is None, True


def extends(side, module, ids, **options):
    """`extend` is the whole text alone, behind the prompt; an empty cache takes that in first, once."""
    before = len(module.prompt)
    yield from _splits.model(
        side, module, ids, most=module.config.max_length, vocabulary=7, windows=module.base.windows, before=before,
    )


_GPT2 = GPT2Config(**_SIZES)
_UNSEEN = "no sample shows so small a change of the deviation"


@case(
    "finetune.PromptTuned",
    build=tuned,
    bench=dict(init=dict(config=GPT2Config(256, 256, 128, 5, 4), n=16), call=dict(ids=ids(8, 128, below=256))),
    # Well-conditioned: branches smaller than the skip, norms near 1. Hostile ones are the block's own; several on end blow rounding up.
    fill={"proj.weight": array(scale=0.3, hostile=False), "norm1.weight": array(low=0.5, high=1.5),
          "norm2.weight": array(low=0.5, high=1.5), "base.norm.weight": array(low=0.5, high=1.5), "bias": array(hostile=False),
          "tokens.weight": array(hostile=False), "positions.weight": array(hostile=False), "prompt": array(hostile=False)},
    also=[real_tokens, loss, extends],
    equivalent={
        "0.02 * (rng or np.random.default_rng()).standard_normal(shape) -> "
        "0.02002 * (rng or np.random.default_rng()).standard_normal(shape)": _UNSEEN,
        "0.02 * (rng or np.random.default_rng()).standard_normal(shape) -> "
        "0.02000002 * (rng or np.random.default_rng()).standard_normal(shape)": _UNSEEN,
    },
    refuses=[
        dict(init=dict(config=_GPT2, n=-1)), dict(init=dict(config=_GPT2, n=8)), dict(init=dict(config=_GPT2, n=2.0)),
        dict(init=dict(config=_GPT2, n=2, start="random")), dict(init=dict(config=_GPT2, n=2, start=[1])),
        dict(init=dict(config=_GPT2, n=2, start=[1, 7])), dict(init=dict(config=_GPT2, n=2, start=array(2))),
        dict(init=dict(config=_GPT2, n=2), call=dict(ids=ids(2, 7, below=7))),
        dict(init=dict(config=_GPT2, n=2), call=dict(ids=ids(below=7))),
        dict(init=dict(config=_GPT2, n=2), call=dict(ids=ids(2, 3, below=9, at_least=7))),
    ],
)
def prompt_tuned(draw):
    config = draw(one_of(
        GPT2Config(**_SIZES), LlamaConfig(**_SIZES, n_kv_heads=1, d_hidden=5, tied=draw(flag())),
        DecoderConfig(**_SIZES, positions=draw(one_of("learned", "sinusoidal", "rotary"))),
    ))
    config = dataclasses.replace(config, dropout=draw(one_of(0.0, 0.4)))
    n = draw(integer(0, 3))
    return dict(
        init=dict(config=config, n=n, start=draw(left_out(one_of("normal", ids(n, below=7))))),
        call=dict(
            ids=ids(*draw(one_of((), (2,), (2, 1))), draw(integer(0, 4)), below=7), noise=draw(left_out(maybe(noise()))),
            run=draw(left_out(one_of("keep", "recompute"))),
        ),
    )
