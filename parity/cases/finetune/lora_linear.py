"""What LoRALinear is fed: bases with and without a bias, no adapter or several of any kind, some or none of them active, dropout."""

from parity.cases import array, case, dims, flag, left_out, noise, number, one_of, size
from parity.cases.quantize.int8 import codes


def build(side, *, in_features, out_features, base="layers.Linear", options=None, more=(), enabled=None, **lora):
    """A base of this side, the layer around it, further adapters, and the choice of those that run."""
    layer = side.get("finetune.LoRALinear")(side.get(base)(in_features, out_features, **(options or {}), dtype=side.dtype), **lora)
    for adapter in more:
        layer.add(**adapter)
    if enabled == ():
        layer.disable()
    elif enabled:
        layer.enable(*enabled)
    return layer


def refused(act, *args, **options):
    """The message with which a call is refused."""
    try:
        act(*args, **options)
    except ValueError as error:
        return str(error)
    return "not refused"


def weights(side, module):
    return {name: side.numpy(value).copy() for name, value in module.state_dict().items()}


def merging(side, module, x, noise=None):
    """Merged, in one step or in several, the output stays; unmerged, so does every bit of the weights."""
    before, y, names = weights(side, module), side.numpy(module(x)), module.active
    kept, bare = module.base, module.base.bias
    for name in names:
        yield f"delta of {name}", tuple(module.delta(name).shape) == tuple(module.base.weight.shape), True
    yield "folded", module.folded()(x), y
    yield "folded is the base where nothing runs", module.folded() is module.base, names == ()
    for order in ([names], [(name,) for name in names[::-1]]) if names else ():
        for some in order:
            module.merge(*some)
            yield f"{some} merged", module(x), y
            yield "the base", module._original is kept and module.base is not kept and module.base.bias is bare, True
            yield "what trains", training(side, module) == set(names) - set(module.merged), True
            yield "merging twice", refused(module.merge, some[0]) != "not refused", True
        yield "merged", set(module.merged) == set(names), True
        yield "enabling what is merged", refused(module.enable) != "not refused", True
        yield "disabling what is merged", refused(module.disable) != "not refused", True
        yield "removing what is merged", refused(module.remove, names[0]) != "not refused", True
        module.unmerge()
        yield "merged", module.merged == (), True
        yield "active", set(module.active) == set(names), True
        yield "unmerged", weights(side, module).keys() == before.keys(), True
        for name, value in weights(side, module).items():
            yield f"bits of {name}", value.tobytes() == before[name].tobytes(), True
    yield "unmerging what is not merged", refused(module.unmerge) != "not refused", True


def training(side, module):
    """The names of the adapters that train."""
    if side.name == "numpy":
        return {name.split(".")[1] for name in module.parameters()}
    return {name.split(".")[1] for name, value in module.named_parameters() if value.requires_grad}


def choosing(side, module, x, noise=None):
    """What is enabled counts and trains, the rest does neither; what is unknown is refused, and nothing has changed then."""
    names, active = tuple(module.adapters), module.active
    base, noised = side.numpy(module.base(x)), module(x, noise=noise)
    yield "what trains", training(side, module) == set(active), True
    for chosen in [(), *((name,) for name in names), names]:
        module.enable(*chosen) if chosen else module.disable()
        yield f"{chosen} active", module.active == chosen, True
        yield f"{chosen} train", training(side, module) == set(chosen), True
        deltas = sum(side.numpy(x) @ side.numpy(module.delta(name)).T for name in chosen)
        yield f"{chosen} added", module(x), base + deltas
    module.enable()
    yield "all enabled", module.active == names, True
    for method in (module.enable, module.merge, module.remove, module.delta, module.scaling, module.folded):
        yield f"{method.__name__} of an unknown name", "'nobody'" in refused(method, "nobody"), True
    if names:
        yield "a name twice", "a name other than" in refused(module.add, names[0], r=1, alpha=1), True
        yield "two of a name merged", refused(module.merge, names[0], names[0]) != "not refused", True
        module.disable()
        module.merge(names[-1])
        yield "merged though inactive", module.active == names[-1:], True
        yield "its output", module(x), base + side.numpy(x) @ side.numpy(module.delta(names[-1])).T
        module.unmerge()
        module.enable()
    else:
        yield "nothing to merge", refused(module.merge) != "not refused", True
    yield "all of them still", (module.active, tuple(module.adapters)) == (names, names), True
    module.add("passing", r=2, alpha=1.0)
    yield "added", module.active == (*names, "passing"), True
    yield "an adapter that starts", module(x), sum((side.numpy(x) @ side.numpy(module.delta(n)).T for n in names), base)
    yield "its scaling", module.scaling("passing"), 0.5
    module.remove("passing")
    yield "removed", (module.active, tuple(module.adapters)) == (names, names), True
    module.enable(*active) if active else module.disable()
    yield "as before", module(x, noise=noise), noised


def base_bias(side, module, x, noise=None):
    """The base's bias trains when it is named, and counts once whatever the adapters read; its weight never does."""
    if side.name != "numpy" or module.base.bias is None:
        return
    module.unfreeze("*base*")
    yield "what trains of the base", {n for n in module.parameters() if n.startswith("base")} == {"base.bias"}, True
    for stream in (noise, None):
        y, backward = module.forward(x, noise=stream)
        yield "the gradient of the bias", backward(y)[-1]["base"]["bias"], y.reshape(-1, y.shape[-1]).sum(0)
    if module.active:
        module.merge()
        yield "what trains once merged", module.parameters().keys() == {"base.bias"}, True
        module.unmerge()
    module.freeze("base.*")


def defaults(side, module, x, noise=None):
    """What is not said: neither rank-stabilized nor DoRA, whose norm would be detached; no dropout."""
    made = side.get("finetune.LoRALinear")(side.get("layers.Linear")(3, 4, dtype=side.dtype), r=2, alpha=1.0)
    made.add("second", r=2, alpha=1.0)
    for name, each in made.adapters.items():
        told = each.r, each.alpha, each.rslora, each.dropout, each.dora, each.detach_norm
        yield f"options of {name}", told == (2, 1.0, False, 0.0, False, True), True


def adapter(draw, **names):
    """Options of one adapter. With a detached norm the gradient is no derivative: central differences, in ordinary examples, would tell."""
    dora = draw(flag())
    detached = dict(detach_norm=False) if draw.ordinary and dora else dict(detach_norm=draw(left_out(flag())))
    return dict(
        names, r=draw(one_of(1, 2, 4, 9, 0)), alpha=draw(one_of(2, 16, number(0, 3))), rslora=draw(left_out(flag())),
        dropout=draw(left_out(one_of(0.3, 0.0 if draw.ordinary else 1.0))), dora=dora if dora else draw(left_out(False)),
        start=draw(left_out(one_of("kaiming", "gaussian"))), **detached,
    )


SMALL = dict(in_features=3, out_features=4)


@case(
    "finetune.LoRALinear",
    build=build,
    fill={"absmax_codes": codes((), "uint8"), "codes": codes((), "uint8"), "absmax_offset": array(low=0.5, high=1.0),
          "absmax_absmax": array(low=0.1, high=0.4), "absmax": array(low=0.1, high=1.0)},
    also=[merging, choosing, base_bias, defaults],
    bench=dict(init=dict(in_features=768, out_features=768, r=8, alpha=16), call=dict(x=array(1024, 768))),
    refuses=[
        dict(init=dict(SMALL, r=-1, alpha=1)),
        dict(init=dict(SMALL, r=1.5, alpha=1)),
        dict(init=dict(SMALL, r=2, alpha=-1)),
        dict(init=dict(SMALL, r=2, alpha=float("inf"))),
        dict(init=dict(SMALL, r=2, alpha=1, dropout=1.5)),
        dict(init=dict(SMALL, r=2, alpha=1, start="zero")),
        dict(init=dict(SMALL, r=2, alpha=1, more=[dict(name="default", r=1, alpha=1)])),
        dict(init=dict(SMALL, r=2, alpha=1, more=[dict(name="a.b", r=1, alpha=1)])),
        dict(init=dict(SMALL, r=2, alpha=1, more=[dict(name="", r=1, alpha=1)])),
        dict(init=dict(SMALL, r=2, alpha=1, enabled=("defualt",))),
        dict(init=dict(SMALL, base="layers.Embedding", r=2, alpha=1)),
        dict(init=dict(SMALL, r=2, alpha=1), call=dict(x=array(5, 4))),
        dict(init=dict(SMALL, r=2, alpha=1, dora=True), call=dict(x=array())),
    ],
)
def lora_linear(draw):
    *lead, width = draw(dims(1, 3, min_last=1))
    first = draw(one_of(adapter(draw), adapter(draw), dict(r=None, alpha=1)))
    more = [adapter(draw, name=name) for name in draw(one_of((), ("second",), ("second", "train")))]
    quantized = draw(one_of({}, {}, dict(kind=draw(one_of("nf4", "fp4")), block=draw(one_of(2, 7, 64)), double=draw(flag()))))
    names = (*(["default"] if first["r"] is not None else []), *(each["name"] for each in more))
    return dict(
        init=dict(
            in_features=width, out_features=draw(size(8, 12) if draw.ordinary else size()), **first, more=more,
            options=dict(bias=draw(flag())) | quantized, base="quantize.Linear4bit" if quantized else "layers.Linear",
            enabled=draw(one_of(None, (), names[:1] or None, names[::-1] or None)),
        ),
        call=dict(x=array(*lead, width), noise=draw(one_of(noise(), noise(), None))),
    )
