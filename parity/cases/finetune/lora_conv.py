"""What LoRA for convolutions is fed: every option of the base, groups, ranks from 0, DoRA, one adapter beside another, dropout."""

import numpy as np

from parity.cases import array, case, flag, left_out, maybe, noise, number, one_of
from parity.cases.finetune._models import trainable
from parity.cases.layers.conv import drawn as convolution


def adapted(axes):
    """A builder: the base of this side, the layer around it, a second adapter, and the choice of those that run."""
    def build(side, *, base, adapters, enabled=None, layer=f"Conv{axes}d"):
        made = side.get(f"finetune.LoRAConv{axes}d")(side.get(f"layers.{layer}")(**base, dtype=side.dtype), **adapters["default"])
        for name, options in adapters.items():
            if name != "default":
                made.add(name, **options)
        if enabled is not None:
            made.enable(*enabled)
        return made
    return build


def refused(act, *args, **options):
    """The message with which a call is refused."""
    try:
        act(*args, **options)
    except ValueError as error:
        return str(error)
    return ""


def merges(side, module, x, noise=None):
    """The merged convolution is the layer without dropout, folded, in place, or beside an adapter that is not; unmerging restores it."""
    bits = {name: side.numpy(value).copy() for name, value in module.state_dict().items()}
    want, active = module(x), module.active
    if not active:
        yield "nothing to fold", module.folded() is module.base, True
    elif module.base.groups > 1:
        for act in (module.merge, module.folded, lambda: module.delta(active[0])):
            yield "refused with groups", "keep apart" in refused(act), True
        yield "DoRA refused with groups", "keep apart" in refused(module.add, "new", r=0, alpha=1, dora=True), True
        yield "nothing has changed", (module.active, module.merged) == (active, ()) and "new" not in module.adapters, True
    else:
        yield "folded", module.folded()(x), want
        yield "trained when folded", trainable(module.folded()) == [], True
        module.merge(active[0])
        yield "the first merged", module(x), want
        merged = gradients(side, module, x)
        module.unmerge()
        for name, grad in gradients(side, module, x).items():
            if name in merged:
                yield f"{name} beside what is merged", merged[name], grad
        module.merge()
        yield "merged", module(x), want
        yield "trained when merged", trainable(module) == [], True
        module.unmerge()
    for name, value in module.state_dict().items():
        yield f"the bits of {name}", side.numpy(value).tobytes() == bits[name].tobytes(), True


def gradients(side, module, x):
    """dx and the gradients of the adapters under one cotangent (NumPy side)."""
    if side.name != "numpy":
        return {}
    y, backward = module.forward(x)
    dx, grads = backward(np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape))
    return {"dx": dx} | {f"{name}.{key}": grad for name, own in grads["adapters"].items() for key, grad in own.items()}


def starts(side, module, x, noise=None):
    """A new adapter changes nothing, A is uniform in ±1/√(numbers that an output sums) or normal, and none is added where r is None."""
    layer, groups = type(module), module.base.groups
    yield "no adapter", len(layer(module.base, r=None, alpha=1).adapters), 0
    for start in ("kaiming", "gaussian"):
        fresh = layer(module.base, r=60, alpha=1, start=start)
        adapter = fresh.adapters["default"]
        yield "shape of B", tuple(adapter.lora_B.shape[:2]) == (len(module.base.weight), 60 // groups), True
        lora_A = side.numpy(adapter.lora_A)
        window = lora_A[0].size
        if start == "kaiming":
            yield "largest of A", abs(lora_A).max() <= (1 + 1e-6) / window**0.5, True
        else:
            yield "deviation of A", abs(lora_A.std() * 60 - 1) < 0.5, True
        yield "starts as its base", fresh(x), fresh.base(x)
    if groups == 1:
        directed = layer(module.base, r=2, alpha=1, dora=True)
        weight = side.numpy(module.base.weight)
        yield "the norm is a constant", directed.adapters["default"].detach_norm, True
        yield "magnitude", directed.adapters["default"].magnitude, np.sqrt((weight * weight).sum(tuple(range(1, weight.ndim))))


def thawed_bias(side, module, x, noise=None):
    """The base's bias trains when it is named, and counts once whatever the adapters read."""
    if side.name == "numpy" and module.base.bias is not None:
        module.unfreeze("base.bias")
        y, backward = module.forward(x, noise=noise)
        yield "the gradient of the bias", backward(y)[-1]["base"]["bias"], y.sum((0, *range(2, y.ndim)))
        if module.base.groups == 1 and module.active:
            yield "folded", module.folded().trains("bias"), True
        module.freeze("base.*")


def drawn(draw, axes):
    """A base and an input for it, one adapter or two."""
    conv = convolution(draw, axes)
    groups = conv["init"]["groups"] if isinstance(conv["init"]["groups"], int) else 1

    def adapter():
        dora = draw(flag()) if groups == 1 else draw(left_out(False))
        # With the norm taken for a constant, the gradient is not what the central difference of ordinary examples sees.
        detach_norm = False if draw.ordinary else draw(left_out(flag()))
        return dict(r=groups * draw(one_of(1, 2, 4, 0)), alpha=draw(one_of(1, 4.0, number(0, 3))), rslora=draw(left_out(flag())),
                    dropout=draw(left_out(one_of(0.0, 0.4, 1.0))), dora=dora, detach_norm=detach_norm)

    names = draw(one_of(["default"], ["default", "other"], ["default", "other"]))
    return dict(
        init=dict(base=conv["init"], adapters={name: adapter() for name in names}, enabled=draw(left_out(one_of(None, names[-1:])))),
        call=conv["call"] | dict(noise=draw(left_out(maybe(noise())))),
    )


def refuses(axes):
    """Bad input of either, around a base of 4 channels in and 6 out."""
    base, one = dict(in_channels=4, out_channels=6, kernel_size=3), dict(r=2, alpha=1)
    return [
        dict(init=dict(base=dict(vocabulary=4, d_model=6), adapters=dict(default=one), layer="Embedding")),
        dict(init=dict(base=base, adapters=dict(default=one), layer=f"Conv{3 - axes}d")),
        dict(init=dict(base=base, adapters=dict(default=dict(r=-1, alpha=1)))),
        dict(init=dict(base=base, adapters=dict(default=dict(r=2, alpha=1, dropout=-0.5)))),
        dict(init=dict(base=base, adapters=dict(default=dict(r=2, alpha=1, start="olora")))),
        dict(init=dict(base=base | dict(groups=2), adapters=dict(default=dict(r=3, alpha=1)))),
        dict(init=dict(base=base | dict(groups=2), adapters=dict(default=dict(r=2, alpha=1, dora=True)))),
        dict(init=dict(base=base, adapters=dict(default=one)), call=dict(x=array(2, 3, *(5,) * axes))),
    ]


FILL = {"lora_A": array(scale=0.5, hostile=False), "magnitude": array(low=0.5, high=2.0)}
ALSO = [merges, starts, thawed_bias]


@case(
    "finetune.LoRAConv1d",
    build=adapted(1),
    fill=FILL,
    also=ALSO,
    refuses=refuses(1),
    bench=dict(
        init=dict(base=dict(in_channels=80, out_channels=384, kernel_size=3, padding=1), adapters=dict(default=dict(r=8, alpha=16))),
        call=dict(x=array(4, 80, 1500)),
    ),
)
def lora_conv1d(draw):
    return drawn(draw, 1)


@case(
    "finetune.LoRAConv2d",
    build=adapted(2),
    fill=FILL,
    also=ALSO,
    refuses=refuses(2),
    bench=dict(
        init=dict(base=dict(in_channels=3, out_channels=768, kernel_size=16, stride=16), adapters=dict(default=dict(r=8, alpha=16))),
        call=dict(x=array(8, 3, 224, 224)),
    ),
)
def lora_conv2d(draw):
    return drawn(draw, 2)
