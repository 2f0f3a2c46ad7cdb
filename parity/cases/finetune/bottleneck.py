"""What bottleneck adapters are fed: every activation, with and without a norm, alone and behind a projection."""

import numpy as np

from parity.cases import array, case, dims, flag, left_out, noise, one_of, size
from parity.cases.finetune._models import GPT2, LLAMA, adapted, plain_copy, trainable


def starts_as_nothing(side, module, h, noise=None):
    """With up at zero, where it starts, y is h bit for bit."""
    fresh = side.get("finetune.BottleneckAdapter")(h.shape[-1], 3, norm=module.norm is not None, dtype=side.dtype)
    yield "at the start", np.array_equal(side.numpy(fresh(h)), side.numpy(h), equal_nan=True), True


def options(draw):
    return dict(
        activation=draw(left_out(one_of("gelu", "gelu_tanh", "relu", "silu", "mish"))), norm=draw(left_out(flag())),
        scale=draw(left_out(one_of(0.5, 2.0))),
    )


@case(
    "finetune.BottleneckAdapter",
    bench=dict(init=dict(d_model=768, width=48), call=dict(h=array(4096, 768))),
    fill={"norm.weight": array(low=0.5, high=1.5)},
    also=[starts_as_nothing],
    refuses=[
        dict(init=dict(d_model=0, width=2)), dict(init=dict(d_model=3, width=0)), dict(init=dict(d_model=3, width=2.0)),
        dict(init=dict(d_model=3, width=2, activation="rleu")), dict(init=dict(d_model=3, width=2, scale=0.0)),
        dict(init=dict(d_model=3, width=2, scale=float("nan"))), dict(init=dict(d_model=3, width=2), call=dict(h=array(4, 2))),
    ],
)
def bottleneck_adapter(draw):
    # A norm over two entries has a gradient of zero, which is rounding over rounding.
    *lead, d = draw(dims(1, 3, min_last=3))
    return dict(init=dict(d_model=d, width=draw(size())) | options(draw), call=dict(h=array(*lead, d), noise=draw(left_out(noise()))))


def bottleneck_linear(side, *, n_in, n_out, bias=True, projection=True, width=2, **options):
    base = side.get("layers.Linear")(n_in, n_out, bias=bias, dtype=side.dtype) if projection else side.get("layers.Embedding")(n_in, n_out)
    return side.get("finetune.BottleneckLinear")(base, width, **options)


def freezes_its_base(side, module, x, noise=None):
    """A new layer trains its adapter alone, and is its base bit for bit."""
    fresh = side.get("finetune.BottleneckLinear")(module.base, 2)
    yield "trained", trainable(fresh) == [f"adapter.{name}" for name in ("down.weight", "down.bias", "up.weight", "up.bias")], True
    yield "at the start", np.array_equal(side.numpy(fresh(x)), side.numpy(module.base(x)), equal_nan=True), True
    if side.name == "numpy":
        dy = np.cos(module(x))
        thawed = fresh.unfreeze("base.*").forward(x)[1](dy)[1]["base"]
        for name, grad in fresh.base.forward(x)[1](dy)[1].items():       # the adapter of a fresh layer passes dy on as it is
            yield f"gradient of the base's {name}", thawed[name], grad
        yield "trained after freezing", trainable(fresh.freeze()) == [], True
    quantized = side.get("quantize.Linear4bit").from_linear(module.base, block=4)
    yield "on four bits", side.get("finetune.BottleneckLinear")(quantized, 2)(x), plain_copy(side, quantized)(x)


@case(
    "finetune.BottleneckLinear",
    build=bottleneck_linear,
    also=[freezes_its_base],
    bench=dict(init=dict(n_in=768, n_out=768, width=48), call=dict(x=array(4096, 768))),
    fill={"norm.weight": array(low=0.5, high=1.5), "base.weight": array(hostile=False), "base.bias": array(hostile=False)},
    refuses=[
        dict(init=dict(n_in=2, n_out=3, projection=False)), dict(init=dict(n_in=2, n_out=3, width=0)),
        dict(init=dict(n_in=2, n_out=3, activation="swiglu")), dict(init=dict(n_in=2, n_out=3), call=dict(x=array(4, 3))),
    ],
)
def linear(draw):
    *lead, n_in = draw(dims(1, 3, min_last=1))
    return dict(
        init=dict(n_in=n_in, n_out=draw(size(3, 6)), bias=draw(flag()), width=draw(size())) | options(draw),
        call=dict(x=array(*lead, n_in, hostile=False), noise=draw(left_out(noise()))),
    )


def apply(side, *, config, **options):
    return adapted(side, config, "finetune.apply_bottleneck", **options)


@case(
    "finetune.apply_bottleneck",
    play=apply,
    refuses=[
        dict(config=GPT2, width=2, targets=("o_prj",)), dict(config=GPT2, width=2, targets=()),
        dict(config=GPT2, width=2, targets="o_proj"), dict(config=GPT2, width=0),
        dict(config=GPT2, width=2, activation="swiglu"), dict(config=GPT2, width=2, scale=-1.0),
    ],
)
def apply_bottleneck(draw):
    config = draw(one_of(GPT2, LLAMA))
    targets = draw(left_out(one_of(("down_proj",), ("blocks.0.*[qvo]_proj",), ("head",) if config is LLAMA else ("blocks.1.mlp.up_proj",))))
    return dict(config=config, quantized=draw(left_out(flag())), width=draw(size()), targets=targets, **options(draw))
