"""What a Llama is fed: tiny sizes, every option, every scaling of rotary, every way to run, dropout."""

import numpy as np

from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig
from byhand.configs.rope import RopeConfig
from numpy_impl.layers.module import flatten
from parity.cases import array, case, flag, ids, integer, left_out, maybe, noise, one_of, size
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


def other_heads(side, module, ids, noise=None, run="keep"):
    """What stands in the head's place, with a bias or an adapter, is in the loss as it is in the logits; a frozen one has no gradient."""
    if 0 in ids.shape or module.head is None:
        return
    targets, options, plain = (ids + 1) % module.config.vocabulary, dict(noise=noise, run=run), module.head
    cross_entropy = side.get("losses.cross_entropy")
    biased = side.get("layers.Linear")(module.config.d_model, module.config.vocabulary, dtype=side.dtype)
    frozen = side.get("layers.Linear")(module.config.d_model, module.config.vocabulary, bias=False, dtype=side.dtype)
    frozen = frozen.freeze() if side.name == "numpy" else frozen.requires_grad_(False)
    adapted = side.get("finetune.LoRALinear")(plain, r=1, alpha=1.0)
    for label, head in (("biased", biased), ("frozen", frozen), ("adapted", adapted)):
        module.head = head
        want, loss = cross_entropy(_value(side, module.forward(ids, **options)), targets=targets), module.loss(ids, targets, **options)
        yield f"loss of a {label} head", _value(side, loss), _value(side, want)
        if side.name == "numpy":
            trained = sorted(flatten(loss[1]().get("head", {})))
            yield f"gradients of a {label} head", trained == sorted(head.parameters()), True
    module.head = plain.unfreeze() if side.name == "numpy" else plain.requires_grad_(True)


def _value(side, result):
    return result[0] if side.name == "numpy" else result


def extends(side, module, ids, **options):
    """`extend` is the whole text alone; with scalings that depend on the length of the text, while it is below the trained length."""
    config, rope = module.config, module.config.rope
    most = min(config.max_length, _splits.MOST)
    if rope is not None and rope.type in ("dynamic", "longrope"):
        most = min(most, rope.original_length)
    yield from _splits.model(side, module, ids, most=most, vocabulary=config.vocabulary, windows=module.windows)


def starts(side, module, ids, noise=None, run="keep"):
    """The weights start with the deviations that the docstring names, on a model large enough to tell."""
    config = LlamaConfig(64, 64, 64, 2, 2, n_kv_heads=1, attention_bias=True, mlp_bias=True, qk_norm=True)
    model = side.get("models.Llama")(config, dtype=side.dtype)
    for name, value in model.state_dict().items():
        value = side.numpy(value)
        if name.endswith("proj.bias"):
            yield f"largest of {name}", np.abs(value).max(), 0.0
        elif "norm" in name:
            yield f"all of {name}", value, np.ones_like(value)
        else:
            want = 0.02 / 2 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            yield f"deviation of {name}", abs(float(value.std()) / want - 1) < 0.1, True


def steps(side, module, ids, noise=None, run="keep"):
    """A model is stepped flat if, and only if, every block is what `llama_step` knows; if one is not, a token goes through the layers."""
    text = side.array(np.array([[1, 5, 2], [6, 0, 3]]))
    prefixed = side.get("finetune.PrefixGroupedQueryAttention")
    changes = {
        "nothing": lambda block: None,
        "capped scores": lambda block: setattr(block.attn, "soft_cap", 0.2),
        "sinks": lambda block: setattr(block, "attn", _sinking(side)),
        "a prefix": lambda block: setattr(block, "attn", prefixed(block.attn, 2)),
        "another first norm": lambda block: setattr(block, "norm1", side.get("layers.LayerNorm")(12, dtype=side.dtype)),
        "another second norm": lambda block: setattr(block, "norm2", side.get("layers.LayerNorm")(12, dtype=side.dtype)),
    }
    for what, change in changes.items():
        model, layers = _two_blocks(side)
        change(layers[1])
        yield f"flat with {what}", model._flat(), what == "nothing"
        cache = model.new_cache()
        model.extend(text[:, :2], cache)
        yield f"a step with {what}", model.extend(text[:, 2:], cache), _value(side, model.forward(text))[:, -1]
    model, layers = _two_blocks(side)
    other = side.get("layers.Block")(12, 2, 5, norm="rms", activation="swiglu", dtype=side.dtype)
    other.attn, layers[1] = layers[1].attn, other
    yield "flat with another block", model._flat(), False


def _two_blocks(side):
    """A model, and the list of its blocks."""
    model = side.get("models.Llama")(LlamaConfig(7, 8, 12, 2, 2, n_kv_heads=1, d_hidden=5), dtype=side.dtype)
    return model, model.blocks.layers if side.name == "numpy" else model.blocks


def _sinking(side):
    """Attention with sinks that are not where they start."""
    attn = side.get("layers.GroupedQueryAttention")(12, 2, 1, sinks=True, dtype=side.dtype)
    side.load(attn, {name: side.numpy(value) for name, value in attn.state_dict().items()} | {"sinks": np.ones(2)})
    return attn


def ropes(draw, width):
    """Every scaling, for texts of a few tokens: they pass the trained length, or do not."""
    known = dict(original_length=draw(integer(2, 5)))
    factors = [tuple(draw(one_of(1.0, 1.5, 4.0)) for _ in range(width // 2)) for _ in range(2)]
    scaled = dict(width=width, base=draw(one_of(100.0, 10000.0)), factor=draw(one_of(1.0, 4.0)))
    return [
        RopeConfig(width=width),
        RopeConfig(type="linear", **scaled),
        RopeConfig(type="yarn", beta_fast=2.0, **scaled, **known),
        RopeConfig(type="llama3", low_freq_factor=0.5, high_freq_factor=2.0, **scaled, **known),
        RopeConfig(type="longrope", short_factor=factors[0], long_factor=factors[1], **scaled, **known),
        *([RopeConfig(type="ntk", **scaled), RopeConfig(type="dynamic", **scaled, **known)] if width >= 4 else []),
    ]




@case(
    "models.Llama",
    bench=dict(init=dict(config=LLAMA_PRESETS["llama-1m"]), call=dict(ids=ids(8, 128, below=256))),
    # Well-conditioned: branches smaller than the skip, norms near 1. Hostile ones are the block's own; several on end blow rounding up.
    fill={"proj.weight": array(scale=0.3, hostile=False), "norm1.weight": array(low=0.5, high=1.5),
          "norm2.weight": array(low=0.5, high=1.5), "_norm.weight": array(low=0.5, high=1.5), "bias": array(hostile=False)},
    refuses=[
        dict(init=dict(config=LlamaConfig(5, 3, 4, 1, 2)), call=dict(ids=ids(below=5))),
        dict(init=dict(config=LlamaConfig(5, 3, 4, 1, 2)), call=dict(ids=ids(2, 3, below=9, at_least=5))),
        dict(init=dict(config=LlamaConfig(5, 3, 4, 1, 2)), call=dict(ids=array(2, 3))),
        dict(init=dict(config=LlamaConfig(5, 3, 4, 1, 2, activation="swiglue"))),
    ],
    also=[loss, other_heads, extends, steps, starts],
    equivalent={
        "None if config.window is None else (config.window - 1, 0) -> None if config.window is None else (config.window - 1, 1)":
            "every block is causal besides",
    },
)
def llama(draw):
    kv_heads = draw(integer(1, 2))
    heads = kv_heads * draw(integer(1, 2))
    t, vocabulary = draw(size(0, 6)), draw(size(1, 7))
    head_width = 2 if draw.edges else draw(one_of(4, 6)) if draw.ordinary else draw(one_of(2, 4))
    own_width = draw(flag())
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    width = draw(integer(4, 8)) if own_width else heads * head_width
    config = LlamaConfig(
        vocabulary=vocabulary, max_length=draw(one_of(1, 5, 8, 8)), d_model=width, n_layers=draw(integer(1, 2)), n_heads=heads,
        n_kv_heads=kv_heads, d_hidden=draw(size(1, 5)), head_width=head_width if own_width else draw(one_of(None, head_width)),
        rope=draw(one_of(None, *ropes(draw, head_width))), window=draw(maybe(integer(1, 4))),
        attention_bias=draw(one_of(False, True, "qkv")), mlp_bias=draw(flag()), qk_norm=draw(flag()) and head_width > 2,
        tied=draw(flag()), dropout=draw(one_of(0.0, 0.1, 0.6)), norm_eps=draw(one_of(1e-5, 1e-3)),
        activation=draw(one_of("swiglu", "geglu", "reglu")),
    )
    return dict(
        init=dict(config=config),
        call=dict(
            ids=ids(draw(integer(0, 3)), t, below=vocabulary), noise=draw(left_out(maybe(noise()))),
            run=draw(left_out(one_of("keep", "recompute"))),
        ),
    )
