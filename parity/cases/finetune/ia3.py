"""What IA³ is fed: projections with and without a bias, scaled in front and behind; and what must hold of it."""

import numpy as np

from parity.cases import array, case, dims, flag, left_out, noise, one_of, size
from parity.cases.finetune._models import GPT2, LLAMA, adapted, plain_copy, trainable


def ia3_linear(side, *, n_in, n_out, bias=True, projection=True, **options):
    base = side.get("layers.Linear")(n_in, n_out, bias=bias, dtype=side.dtype) if projection else side.get("layers.Embedding")(n_in, n_out)
    return side.get("finetune.IA3Linear")(base, **options)


def freezes_its_base(side, module, x, noise=None):
    """A new layer trains its vector alone, and passes the same gradients on."""
    fresh = side.get("finetune.IA3Linear")(module.base, feed_forward=module.feed_forward)
    yield "trained", trainable(fresh) == ["ia3_l"], True
    if side.name == "numpy":
        fresh.ia3_l[...] = module.ia3_l
        dy = np.cos(module(x))
        dx, grads = fresh.forward(x)[1](dy)
        yield "no gradient of the base", grads["base"] == {}, True
        thawed = fresh.unfreeze("base.*").forward(x)[1](dy)[1]["base"]
        h, dh = (module.ia3_l * x, dy) if module.feed_forward else (x, module.ia3_l * dy)
        for name, grad in fresh.base.forward(h)[1](dh)[1].items():
            yield f"gradient of the base's {name}", thawed[name], grad
        yield "frozen again", list(fresh.freeze().parameters()), []
        want = module.forward(x)[1](dy)[0]
        yield "dx", dx, want
        yield "no gradient of a frozen vector", module.freeze().forward(x)[1](dy)[1] == dict(base={}), True
        yield "dx past a frozen vector", module.forward(x)[1](dy)[0], want
        module.unfreeze()
    module.base.freeze() if side.name == "numpy" else module.base.requires_grad_(False)


def merges(side, module, x, noise=None):
    """The merged layer is the layer; the unmerged base has the bits it had; at ones the layer is its base."""
    bits = {name: side.numpy(value).copy() for name, value in module.state_dict().items()}
    want = module(x)
    module.merge()
    yield "merged", module(x), want
    yield "trained when merged", trainable(module) == [], True
    yield "base of the merged", module.base(x), want
    yield "the vector stays", module.ia3_l, bits["ia3_l"]
    if side.name == "numpy":
        y, backward = module.forward(x)
        dx, grads = backward(np.cos(y))
        module.unmerge()
        yield "merged dx", dx, module.forward(x)[1](np.cos(y))[0]
        yield "no merged gradient", grads == dict(base={}), True
    else:
        module.unmerge()
    yield "says it is merged", module.merged, False
    yield "trained", trainable(module) == ["ia3_l"], True
    for name, value in module.state_dict().items():
        yield f"the bits of {name}", side.numpy(value).tobytes() == bits[name].tobytes(), True
    module.merge()
    yield "says it is not merged", module.merged, True
    module.unmerge()
    side.load(module, bits | {"ia3_l": np.ones_like(bits["ia3_l"])})
    yield "at ones", np.array_equal(side.numpy(module(x)), side.numpy(module.base(x)), equal_nan=True), True


def stands_on_four_bits(side, module, x, noise=None):
    """On a quantized base it is what it is on the weight that the codes stand for; merged, it is that in full precision."""
    quantized = side.get("quantize.Linear4bit").from_linear(module.base, block=4)
    layers = []
    for base in (quantized, plain_copy(side, quantized)):
        layer = side.get("finetune.IA3Linear")(base, feed_forward=module.feed_forward)
        vector = {"ia3_l": side.numpy(module.ia3_l)}
        side.load(layer, {name: side.numpy(value) for name, value in layer.state_dict().items()} | vector)
        layers.append(layer)
    on_codes, on_weight = layers
    yield "y", on_codes(x), on_weight(x)
    if side.name == "numpy":
        dy = np.cos(on_weight(x))
        (dx, grads), (want, want_grads) = (layer.forward(x)[1](dy) for layer in layers)
        yield "dx", dx, want
        yield "gradient", grads["ia3_l"], want_grads["ia3_l"]
    on_codes.merge()
    yield "merged", on_codes(x), on_weight(x)
    on_codes.unmerge()
    yield "the codes", on_codes.base is quantized, True


def refuses(side, module, x, noise=None):
    """Merging twice, and unmerging what is not merged, is refused and changes nothing."""
    yield "unmerge", _refused(module.unmerge), True
    module.merge()
    weight = module.base.weight
    yield "merge", _refused(module.merge), True
    yield "weight", module.base.weight is weight, True


def _refused(method):
    try:
        method()
    except ValueError:
        return True
    return False


@case(
    "finetune.IA3Linear",
    build=ia3_linear,
    bench=dict(init=dict(n_in=768, n_out=768), call=dict(x=array(4096, 768))),
    also=[freezes_its_base, merges, stands_on_four_bits, refuses],
    refuses=[dict(init=dict(n_in=2, n_out=3, projection=False)), dict(init=dict(n_in=2, n_out=3), call=dict(x=array(4, 3)))],
)
def ia3(draw):
    *lead, n_in = draw(dims(1, 3, min_last=1))
    return dict(
        init=dict(n_in=n_in, n_out=draw(size()), bias=draw(flag()), feed_forward=draw(left_out(flag()))),
        call=dict(x=array(*lead, n_in), noise=draw(left_out(noise()))),
    )


def apply(side, *, config, **options):
    return adapted(side, config, "finetune.apply_ia3", **options)


@case(
    "finetune.apply_ia3",
    play=apply,
    refuses=[
        dict(config=GPT2, targets=("k_prj",)),
        dict(config=GPT2, targets=("k_proj",), feed_forward=("gate_proj",)),
        dict(config=GPT2, targets="k_proj"),
        dict(config=GPT2, targets=("k_proj", 3)),
        dict(config=GPT2, targets=(), feed_forward=()),
        dict(config=LLAMA, targets=("*.down_proj",)),
    ],
)
def apply_ia3(draw):
    config = draw(one_of(GPT2, LLAMA))
    return dict(
        config=config, quantized=draw(left_out(flag())),
        targets=draw(left_out(one_of(("q_proj",), ("attn.v_proj", "blocks.0.mlp.up_proj"), ("blocks.1.attn.[kq]*",), ()))),
        feed_forward=draw(left_out(one_of(("blocks.1.mlp.down_proj", "o_pro?"), ("blocks.0.attn.o_proj",)))),
    )
