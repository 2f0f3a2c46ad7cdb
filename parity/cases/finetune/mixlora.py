"""What MixLoRA is fed: every gate, plain and 4-bit bases, one expert or several, all or few of them chosen; and what must hold of it."""

from typing import Any, NamedTuple

import numpy as np

from numpy_impl.layers.module import flatten
from parity.cases import array, case, dims, flag, left_out, mask, maybe, noise, number, one_of, size
from parity.cases.finetune._models import plain_copy, trainable
from parity.cases.quantize.int8 import codes

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class Told(NamedTuple):
    """What the layer gave, and what it told of its router."""

    y: Any
    logits: Any
    chosen: Any
    kept: Any


def watched(side, layer):
    """The layer with its Routing as outputs, so that the cotangent of the logits is seen."""
    return _watched(layer) if side.name == "numpy" else _watched_in_torch(layer)


def _watched(layer):
    from numpy_impl.layers.module import Module  # here, since mutants of that file are judged with this case

    class Watched(Module):
        def __init__(self):
            self.layer = layer

        def forward(self, x, *, real=None, noise=None):
            y, ((logits, chosen, kept),), backward = self.layer.routed(x, real=real, noise=noise)

            def told_backward(dy, dlogits):
                dx, grads = backward(dy, (dlogits,))
                return dx, {"layer": grads}

            return Told(y, logits, chosen, kept), told_backward

    return Watched()


def _watched_in_torch(layer):
    import torch

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, *, real=None, noise=None):
            y, ((logits, chosen, kept),) = self.layer.routed(x, real=real, noise=noise)
            return Told(y, logits, chosen, kept)

    return Watched()


def make_base(side, d_model, d_hidden, *, quantized=None, kind="layers.GatedFeedForward", **options):
    """A gated layer, its projections in 4 bits where `quantized` says how."""
    base = side.get(kind)(d_model, d_hidden, dtype=side.dtype, **options)
    if quantized:
        for name in PROJECTIONS:
            setattr(base, name, side.get("quantize.Linear4bit").from_linear(getattr(base, name), **quantized))
    return base


def build(side, *, d_model, d_hidden, base=None, on=None, **options):
    made_base = make_base(side, d_model, d_hidden, **(base or {}))
    if on:
        setattr(made_base, on, side.get("finetune.LoRALinear")(getattr(made_base, on), r=1, alpha=1))
    return watched(side, side.get("finetune.MixLoRA")(made_base, **options))


def values(side, module):
    return {name: side.numpy(value) for name, value in module.state_dict().items()}


def like(side, layer, base, **options):
    """A MixLoRA on this base with the numbers of `layer`, but for those that the options change."""
    own = dict(n_experts=layer.n_experts, k=layer.k, r=layer.r, alpha=layer.scaling * layer.r, renormalise=layer.renormalise)
    return side.get("finetune.MixLoRA")(base, **own | options)


def pair(side, layer, e, name):
    """(A, B) of an update, in NumPy."""
    each = getattr(layer.expert(e), name)
    return side.numpy(each.lora_A), side.numpy(each.lora_B)


def densely(side, module, x, real=None, noise=None):
    """Every expert on every token, its updates added into the weights; those that were not chosen count nothing."""
    layer, flat = module.layer, side.numpy(x).reshape(-1, x.shape[-1])
    told, real = module(x, real=real), np.ones(x.shape[:-1], bool) if real is None else side.numpy(real)
    logits = flat @ side.numpy(layer.router.weight).T
    p = np.exp(logits - logits.max(-1, keepdims=True, initial=-np.inf))
    p = p / p.sum(-1, keepdims=True) * side.numpy(told.chosen).reshape(p.shape)
    if layer.renormalise:
        p = p / np.where(real.reshape(-1, 1), p.sum(-1, keepdims=True), 1)
    y = np.zeros(flat.shape)
    for e in range(layer.n_experts):
        moved = side.get("layers.GatedFeedForward")(layer.d_model, layer.d_hidden, activation=layer.base.activation,
                                                    bias=layer.base.up_proj.bias is not None, dtype=side.dtype)
        state = {}
        for name in PROJECTIONS:
            projection, (lora_A, lora_B) = getattr(layer.base, name), pair(side, layer, e, name)
            state[f"{name}.weight"] = side.numpy(projection.weight) + layer.scaling * lora_B @ lora_A
            if projection.bias is not None:
                state[f"{name}.bias"] = side.numpy(projection.bias)
        side.load(moved, state)
        y += p[:, e, None] * side.numpy(moved(side.array(flat)))
    yield "logits", told.logits, logits.reshape(told.logits.shape)
    yield "y", told.y, y.reshape(x.shape)
    yield "experts a token, and of padding none", np.array_equal(side.numpy(told.chosen).sum(-1), layer.k * real), True
    yield "nothing is dropped", np.array_equal(side.numpy(told.kept), side.numpy(told.chosen)), True


def gradients(side, module, x, dy):
    """(dx, gradients by name) of a layer's y."""
    if side.name == "numpy":
        dx, grads = module.forward(x)[1](dy)
        return dx, flatten(grads)
    import torch

    x = x.detach().clone().requires_grad_(True)
    params = {name: p for name, p in module.named_parameters() if p.requires_grad}
    dx, *found = torch.autograd.grad(module(x), [x, *params.values()], dy, allow_unused=True, materialize_grads=True)
    return dx, dict(zip(params, found, strict=True))


def one_expert_is_lora(side, module, x, real=None, noise=None):
    """A single expert is LoRA on the three projections, in what it gives and in every gradient."""
    layer = module.layer
    alone = like(side, layer, layer.base, n_experts=1, k=1, renormalise=True)
    plain = side.get("layers.GatedFeedForward")(layer.d_model, layer.d_hidden, activation=layer.base.activation, dtype=side.dtype)
    for name in PROJECTIONS:
        adapted = side.get("finetune.LoRALinear")(getattr(layer.base, name), r=layer.r, alpha=layer.scaling * layer.r)
        lora_A, lora_B = pair(side, layer, 0, name)
        for holder in (getattr(alone.expert(0), name), adapted.adapters["default"]):
            holder.load_state_dict({"lora_A": side.array(lora_A), "lora_B": side.array(lora_B)})
        setattr(plain, name, adapted)
    yield "y", alone(x), plain(x)
    dy = side.array(np.cos(side.numpy(x)))
    dx, grads = gradients(side, alone, x, dy)
    want, want_grads = gradients(side, plain, x, dy)
    yield "dx", dx, want
    for name in PROJECTIONS:
        for which in ("lora_A", "lora_B"):
            yield f"{name}'s {which}", grads[f"experts.0.{name}.{which}"], want_grads[f"{name}.adapters.default.{which}"]
    yield "a router without a choice", grads["router.weight"], np.zeros((1, layer.d_model))


def starts_as_its_base(side, module, x, real=None, noise=None):
    """Every B is zero at first: the layer is its base, as far as the weights of a token sum to 1; and A and the router are random."""
    layer = module.layer
    fresh = like(side, layer, layer.base, renormalise=True)
    yield "y", fresh(x), layer.base(x)
    state = values(side, fresh)
    yield "B", any(value.any() for name, value in state.items() if name.endswith("lora_B")), False
    yield "what trains", set(trainable(fresh)) == {name for name in state if not name.startswith("base.")}, True
    wide = side.get("finetune.MixLoRA")(make_base(side, 400, 100), n_experts=40)
    for e, name, bound in ((0, "gate_proj", 1 / 20), (1, "up_proj", 1 / 20), (2, "down_proj", 1 / 10)):
        lora_A, _ = pair(side, wide, e, name)
        yield f"{name}'s A within its bound", np.abs(lora_A).max() <= bound, True
        yield f"{name}'s A near its bound", np.abs(lora_A).max() > 0.9 * bound and np.abs(lora_A.mean()) < 0.2 * bound, True
    if side.name == "numpy":
        drawn = 0.02 * np.random.default_rng(5).standard_normal((3, layer.d_model))
        keyed = side.get("finetune.MixLoRA")(layer.base, n_experts=3, rng=np.random.default_rng(5))
        yield "router by its generator", keyed.router.weight, drawn.astype(side.dtype)
    yield "router", abs(side.numpy(wide.router.weight).std() - 0.02) < 0.002, True
    yield "scaling", wide.scaling == 2 and wide.r == 8 and wide.k == 2 and wide.dropout == 0 and wide.renormalise, True


def isolated(side, module, x, real=None, noise=None):
    """What other experts' tokens hold does not change one bit of an expert's gradient; without tokens it is zero."""
    layer = module.layer
    flat, rng = side.numpy(x).reshape(-1, x.shape[-1]), np.random.default_rng(0)
    dy = rng.standard_normal(flat.shape)
    chosen = side.numpy(module(side.array(flat)).chosen)
    grads = {name: side.numpy(g) for name, g in gradients(side, layer, side.array(flat), side.array(dy))[1].items()}
    for e in range(layer.n_experts):
        elsewhere = np.where(chosen[:, e, None], dy, rng.standard_normal(flat.shape))
        others = gradients(side, layer, side.array(flat), side.array(elsewhere))[1]
        for name in (name for name in grads if name.startswith(f"experts.{e}.")):
            yield f"bits of {name}", grads[name].tobytes() == side.numpy(others[name]).tobytes(), True
            if not chosen[:, e].any():
                yield f"{name} without tokens", grads[name].any(), False


def from_a_loader(side, module, x, real=None, noise=None):
    """Experts that come when they are needed give the same bits; only those that have tokens come, and nothing trains."""
    layer, asked = module.layer, []

    def loader(e):
        asked.append(e)
        return {f"{name}.{which}": each for name in PROJECTIONS
                for which, each in zip(("lora_A", "lora_B"), pair(side, layer, e, name), strict=True)}

    lazy = like(side, layer, layer.base, loader=loader)
    lazy.scaling = layer.scaling                             # which went through a product and a quotient
    lazy.router.load_state_dict({"weight": layer.router.weight})
    told = module(x)
    yield "bits", side.numpy(lazy(x)).tobytes() == side.numpy(told.y).tobytes(), True
    active = np.flatnonzero(side.numpy(told.chosen).reshape(-1, layer.n_experts).any(0)).tolist()
    yield "asked for", asked == active, True
    yield "holds", any("experts" in name for name in lazy.state_dict()), False
    halves = like(side, layer, layer.base, loader=lambda e: {name: side.numpy(each).astype(np.float16) for name, each in loader(e).items()})
    halves.router.load_state_dict({"weight": layer.router.weight})
    yield "another precision's dtype", halves(x).dtype == told.y.dtype, True
    try:
        gradients(side, lazy, x, x)
    except ValueError as error:
        yield "backward", "a loader, which is for inference" in str(error), True
    else:
        yield "backward", "refused", "it was not"
    for wrong in ({}, {name: each[:, :-1] for name, each in loader(0).items()}):
        spoilt = like(side, layer, layer.base, loader=lambda e, wrong=wrong: wrong)
        try:
            spoilt.expert(0)
        except ValueError as error:
            yield "another's arrays", str(error).startswith("MixLoRA needs"), True
        else:
            yield "another's arrays", "refused", "they were not"


def on_four_bits(side, module, x, real=None, noise=None):
    """On a quantized base it is what it is on the weights that the codes stand for."""
    layer = module.layer
    base = make_base(side, layer.d_model, layer.d_hidden, activation=layer.base.activation, quantized=dict(block=4))
    plain = make_base(side, layer.d_model, layer.d_hidden, activation=layer.base.activation)
    for name in PROJECTIONS:
        setattr(plain, name, plain_copy(side, getattr(base, name)))
    outcome = []
    for each in (base, plain):
        new = like(side, layer, each)
        kept = {name: value for name, value in values(side, new).items() if name.startswith("base.")}
        side.load(new, {name: value for name, value in values(side, layer).items() if not name.startswith("base.")} | kept)
        outcome.append((new(x), *gradients(side, new, x, side.array(np.cos(side.numpy(x))))))
    (y, dx, grads), (want_y, want_dx, want_grads) = outcome
    yield "y", y, want_y
    yield "dx", dx, want_dx
    for name, grad in grads.items():
        yield name, grad, want_grads[name]


def thaws(side, module, x, real=None, noise=None):
    """The base's gradients, where it is thawed by name, are those of the base inside."""
    if side.name != "numpy":
        return
    layer = module.layer
    layer.unfreeze()
    yield "unfreeze leaves the base", any(name.startswith("base.") for name in layer.parameters()), False
    alone = like(side, layer, layer.base, n_experts=1, k=1, renormalise=True).unfreeze("*base.*")
    dy = np.cos(x)
    _, grads = gradients(side, alone, x, dy)
    _, want = gradients(side, layer.base, x, dy)
    for name, grad in want.items():
        yield name, grads[f"base.{name}"], grad
    layer.base.freeze()
    layer.freeze("experts.0.up_proj.lora_A", "router.*")
    names = gradients(side, layer, x, dy)[1].keys()
    yield "what is frozen", names == set(layer.parameters()) and "experts.0.up_proj.lora_A" not in names, True
    layer.unfreeze()


SMALL: dict[str, Any] = dict(d_model=3, d_hidden=4, n_experts=3)


@case(
    "finetune.MixLoRA",
    build=build,
    fill={"absmax_codes": codes((), "uint8"), "codes": codes((), "uint8"), "absmax_offset": array(low=0.5, high=1.0),
          "absmax_absmax": array(low=0.1, high=0.4), "absmax": array(low=0.1, high=1.0), "router.weight": array(hostile=False)},
    also=[densely, one_expert_is_lora, starts_as_its_base, isolated, from_a_loader, on_four_bits, thaws],
    bench=dict(init=dict(d_model=768, d_hidden=2048, n_experts=8, r=8), call=dict(x=array(1024, 768))),
    refuses=[
        dict(init=dict(SMALL, n_experts=0)),
        dict(init=dict(SMALL, k=0)),
        dict(init=dict(SMALL, k=4)),
        dict(init=dict(SMALL, n_experts=1)),
        dict(init=dict(SMALL, r=0)),
        dict(init=dict(SMALL, alpha=-1.0)),
        dict(init=dict(SMALL, dropout=1.5)),
        dict(init=dict(SMALL, base=dict(kind="layers.FeedForward"))),
        dict(init=dict(SMALL, on="up_proj")),
        dict(init=SMALL, call=dict(x=array(5, 4))),
        dict(init=SMALL, call=dict(x=array())),
        dict(init=SMALL, call=dict(x=np.array([[np.nan, 0, 0]]))),
        dict(init=SMALL, call=dict(x=array(5, 3), real=np.ones(4, bool))),
        dict(init=SMALL, call=dict(x=array(5, 3), real=np.ones(5))),
    ],
)
def mixlora(draw):
    *lead, d = draw(dims(1, 3, min_last=1))
    e = draw(size(3, 6) if draw.ordinary else size(1, 6))
    quantized = draw(one_of(None, None, dict(kind=draw(one_of("nf4", "fp4")), block=draw(one_of(2, 7, 64)), double=draw(flag()))))
    base = dict(
        activation=draw(one_of("swiglu", "swiglu", "geglu_tanh", "reglu", "bilinear")), bias=draw(flag()), quantized=quantized,
        dropout=draw(one_of(0.0, 0.25)),
    )
    return dict(
        init=dict(
            d_model=d, d_hidden=draw(size(3, 8)), base=base, n_experts=e, k=draw(one_of(min(2, e), min(2, e), 1, e)),
            r=draw(one_of(1, 2, 5)), alpha=draw(one_of(2, 16, number(0.5, 3))), rslora=draw(left_out(flag())),
            dropout=draw(left_out(one_of(0.0, 0.3))), renormalise=draw(left_out(flag())),
        ),
        call=dict(x=array(*lead, d), noise=draw(one_of(noise(), None)), real=draw(left_out(maybe(mask(*lead))))),
    )
