"""What a stack is fed: none to three blocks that keep their pullbacks or run again, with dropout, so that masks must be drawn alike."""

import numpy as np

from byhand.noise import at
from numpy_impl.layers.module import flatten
from parity.cases import array, case, dims, flag, integer, left_out, maybe, noise, one_of
from parity.cases.decode import _splits


def stack(side, *, layers, d_model):
    """Blocks, since a Stack is made of layers that each side brings itself."""
    block = side.get("layers.Block")
    return side.get("layers.Stack")([
        block(d_model, 1, d_model, dropout=0.2, attention_dropout=0.3, dtype=side.dtype) for _ in range(layers)
    ])


def shares(side, module, x, noise=None, run="keep", causal=False):
    """A bias that all layers share: the gradient is the sum over the layers, called here one by one; None where the bias is None."""
    t = x.shape[-2]
    bias, options = side.array(np.sin(np.arange(float(t * t))).reshape(t, t)), dict(noise=noise, run=run, causal=causal)
    if side.name == "torch":
        y = x
        for i, layer in enumerate(module):
            y = layer(y, bias, causal=causal, noise=at(noise, str(i)))
        yield "y", module(x, bias, **options), y
        return
    y, backward = module.forward(x, bias, **options)
    dy, dbias = np.cos(y), np.zeros_like(bias)
    got, h, pullbacks = backward(dy), x, []
    for i, layer in enumerate(module.layers):
        h, pullback = layer.forward(h, bias, causal=causal, noise=at(noise, str(i)))
        pullbacks.append(pullback)
    yield "y", y, h
    yield "y in inference", module(x, bias, **(options | {"run": "inference"})), h
    for i, pullback in reversed(list(enumerate(pullbacks))):
        dy, dpart, grads = pullback(dy)
        dbias += dpart
        for name, grad in flatten(grads).items():
            yield f"grads.{i}.{name}", flatten(got[-1])[f"{i}.{name}"], grad
    yield "dx", got[0], dy
    yield "dbias", got[1], dbias
    yield "no dbias", module.forward(x, None, **options)[1](np.cos(y))[1] is None, True


def tells(side, module, x, noise=None, run="keep", causal=False):
    """What the routers of all layers did comes in order, and each layer's pullback gets the cotangents of its own: called one by one here.
    Of three layers the second and the third route."""
    width = x.shape[-1]
    blocks = [side.get("layers.Block")(width, 1, width, dropout=0.2, dtype=side.dtype) for _ in range(3)]
    for block in blocks[1:]:
        block.mlp = side.get("layers.MoE")(width, 3, 2, 2, dtype=side.dtype)
    stack, options = side.get("layers.Stack")(blocks), dict(noise=noise, run=run, causal=causal)
    if side.name == "torch":
        y, routes = stack.routed(x, **options)
        yield "y", y, stack(x, **options)
        yield "routers", len(routes), 2
        return
    y, routes, backward = stack.routed(x, **options)
    h, pullbacks, wanted = x, [], []
    for i, block in enumerate(blocks):
        h, own, pullback = block.routed(h, noise=at(noise, str(i)), causal=causal)
        pullbacks.append((pullback, len(own)))
        wanted += own
    yield "y", y, h
    for i, (one, want) in enumerate(zip(routes, wanted, strict=True)):
        yield f"logits of router {i}", one.logits, want.logits
    dy, dlogits = np.cos(y), [np.sin(one.logits + 1) for one in routes]
    dx, *_, grads = backward(dy, dlogits)
    left = list(dlogits)
    for i, (pullback, own) in reversed(list(enumerate(pullbacks))):
        given, left = left[len(left) - own :], left[: len(left) - own]
        dy, _, want = pullback(dy, given)
        for name, grad in flatten(want).items():
            yield f"grads.{i}.{name}", flatten(grads[i])[name], grad
    yield "dx", dx, dy


def gives_each_its_cache(side, module, x, **options):
    """Layer i is given caches[i]; caches are for inference, and one a layer."""
    layers = list(module) if side.name == "torch" else module.layers
    given = _splits.rng_of(side, x).standard_normal((2, 4, x.shape[-1]))
    caches = [_splits.part(side, "cache").Cache(_splits.stores(side, [None] * len(layers), "contiguous")) for _ in range(2)]
    with _splits.quiet(side):
        for part in (slice(0, 3), slice(3, 4)):
            new = side.array(given[:, part])
            one, other = (cache.place((2, new.shape[1])) for cache in caches)
            y = module.forward(new, run="inference", caches=caches[0].layers(one))
            if side.name == "numpy":
                yield "backward", y[1] is None, True
            h = new
            for layer, cache in zip(layers, caches[1].layers(other), strict=True):
                h = layer(h, cache=cache)
            yield "y", y[0] if side.name == "numpy" else y, h
            caches[0].advance(one)
            caches[1].advance(other)
    for bad in (dict(run="keep", caches=[None] * len(layers)), dict(run="inference", caches=[None] * (len(layers) + 1))):
        try:
            module.forward(x, **bad)
            yield f"refuses {bad}", False, True
        except ValueError as error:
            yield f"refuses {bad}", str(error).startswith("Stack needs"), True


def replaces(side, module, x, **options):
    """A child is replaced wherever it stands: in a list of more than ten, below another, in a dict."""
    if side.name == "torch":
        return
    layer = side.get("layers.GatedFeedForward")
    many, new = side.get("layers.Stack")([layer(1, 1) for _ in range(11)]), layer(1, 1)
    many.replace_child("10.up_proj", new)
    yield "below the eleventh", [many.layers[10].up_proj is new, many.layers[1].up_proj is new], [True, False]
    many.replace_child("9", new)
    yield "the tenth", [one is new for one in many.layers], [i == 9 for i in range(11)]
    holder = side.get("layers.GatedFeedForward")(1, 1)
    holder.adapters = {"a": layer(1, 1), "b": layer(1, 1)}
    holder.replace_child("adapters.b", new)
    yield "in a dict", [one is new for one in holder.adapters.values()], [False, True]


@case(
    "layers.Stack",
    bench=dict(init=dict(layers=2, d_model=256), call=dict(x=array(8, 128, 256), causal=True)),
    build=stack,
    also=[shares, tells, gives_each_its_cache, replaces],
    # Well-conditioned: branches smaller than the skip, norms near 1. Hostile ones are the Block's own; several on end blow rounding up.
    fill={"proj.weight": array(scale=0.3, hostile=False), "norm1.weight": array(low=0.5, high=1.5),
          "norm2.weight": array(low=0.5, high=1.5), "bias": array(hostile=False)},
    refuses=[dict(init=dict(layers=1, d_model=2), call=dict(x=array(3, 2), run="forget"))],
)
def drawn(draw):
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    *lead, d = draw(dims(2, 3, min_last=6 if draw.ordinary else 1 if draw.edges else 3))
    return dict(
        init=dict(layers=draw(integer(0, 3)), d_model=d),
        call=dict(
            x=array(*lead, d), noise=draw(left_out(maybe(noise()))), run=draw(left_out(one_of("keep", "recompute"))),
            causal=draw(left_out(flag())),
        ),
    )
