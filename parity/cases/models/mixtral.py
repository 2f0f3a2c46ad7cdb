"""What a Mixtral is fed: tiny sizes, every way to route, dense blocks between, padding, every loss of the routers."""

from typing import Any

import numpy as np

from byhand.configs.mixtral import MIXTRAL_PRESETS, MixtralConfig
from numpy_impl.layers.module import flatten
from parity.cases import array, case, flag, ids, integer, left_out, maybe, noise, one_of, size
from parity.cases.layers.router import options
from parity.cases.models.llama import extends
from parity.values import LEFT_OUT, key_rng


def loss(side, module, ids, noise=None, run="keep"):
    """`loss` adds, for every layer that routes, or for all of them as one, balance · E · Σ f P + z · mean lse², written out here; the
    gradient of that is what reaches the routers beside the cross-entropy's."""
    if 0 in ids.shape:
        return
    seen: list[Any] = []
    targets = (ids + 1) % module.config.vocabulary
    targets[0, 0] = -100 if targets.shape != (1, 1) else 0
    lead, config = tuple(ids.shape), module.config
    real = key_rng("real", lead).random(lead) < 0.7
    counted = int((side.numpy(targets) != -100).sum())
    module.watch = seen.append
    for padding in (None, real, np.zeros(lead, bool)):
        given = None if padding is None else side.array(padding)
        for normalizer in (None, 7):
            options = dict(normalizer=normalizer, noise=noise, run=run)
            got = module.loss(ids, targets, real=given, **options)
            routes = seen[-1]
            share = 1 if normalizer is None else counted / normalizer
            values, dlogits = _written_out(config, [side.numpy(one.logits) for one in routes], [side.numpy(one.chosen) for one in routes],
                                           np.ones(lead, bool) if padding is None else padding)
            trunk = dict(real=given, noise=noise, run=run)
            x = module.tokens.forward(ids)
            if side.name == "torch":
                h, _ = module.trunk(x, **trunk)
                yield "loss", got, module.loss_of(h, targets, normalizer=normalizer) + share * values
                continue
            h, _, trunk_backward = module.trunk(x[0], **trunk)
            alone, loss_backward = module.loss_of(h, targets, normalizer=normalizer)
            yield "loss", got[0], alone + share * values
            dh, _ = loss_backward(np.array(0.5))
            _, wanted = trunk_backward(dh, tuple(0.5 * share * d for d in dlogits))
            grads = flatten(got[1](0.5))
            for name, grad in flatten(wanted).items():
                yield f"grads.{name}", grads[name], grad
    module.watch = None
    inference = module.loss(ids, targets, noise=noise, run="inference")
    plain = side.get("losses.cross_entropy")(module(ids, noise=noise, run="inference"), targets=targets)
    yield "loss in inference", inference[0] if side.name == "numpy" else inference, plain[0] if side.name == "numpy" else plain


def _written_out(config, logits, chosen, real):
    """What the routers add to the loss, and its gradient."""
    logits, chosen = np.array(logits, float), np.array(chosen, float)           # (L, B, T, E)
    if not logits.size or not real.any():
        return 0.0, list(np.zeros_like(logits))
    e = logits.shape[-1]
    real = np.broadcast_to(real, logits.shape[:-1])[..., None].astype(float)
    if config.score == "softmax":
        raw = np.exp(logits - logits.max(-1, keepdims=True))
        scores = raw / raw.sum(-1, keepdims=True)

        def to_logits(d):
            return scores * (d - (d * scores).sum(-1, keepdims=True))
    else:
        raw = 1 / (1 + np.exp(-logits))
        scores = raw / raw.sum(-1, keepdims=True)

        def to_logits(d):
            return (d - (d * scores).sum(-1, keepdims=True)) / raw.sum(-1, keepdims=True) * raw * (1 - raw)

    # the axes over which one mean is taken, and how many means there are that count for the whole
    axes = (0, 1, 2) if config.jointly else (2,) if config.per_sequence else (1, 2)
    n = np.maximum(real.sum(axes, keepdims=True), 1)
    f, p = (chosen * real).sum(axes, keepdims=True) / n, (scores * real).sum(axes, keepdims=True) / n
    sequences = real[0].any((1, 2)).sum() if config.per_sequence else 1
    balance = e * (f * p).sum() / sequences
    dbalance = to_logits(np.broadcast_to(e * f / n / sequences, logits.shape) * real)
    lse = np.log(np.exp(logits).sum(-1, keepdims=True))
    softmax = np.exp(logits - lse)
    axes = (0, 1, 2) if config.jointly else (1, 2)
    n = real.sum(axes, keepdims=True)
    z, dz = (lse * lse * real / n).sum(), 2 * lse * softmax * real / n
    return config.balance * balance + config.z * z, list(config.balance * dbalance + config.z * dz)


def extends_with_room_for_all(side, module, ids, **options):
    """The same of Mixtral, where no expert drops a token: which ones it drops, all tokens of a call decide together."""
    layers = module.modules() if side.name == "numpy" else module.named_modules()
    routers = [layer for _, layer in layers if hasattr(layer, "capacity_factor")]
    factors = [router.capacity_factor for router in routers]
    for router in routers:
        router.capacity_factor = None
    yield from extends(side, module, ids)
    for router, factor in zip(routers, factors, strict=True):
        router.capacity_factor = factor


def starts(side, module, ids, noise=None, run="keep"):
    """Experts and routers start with the deviations that a Llama's other matrices have; what corrects, and what spreads, at zero."""
    config = MixtralConfig(64, 8, 256, 2, 2, d_hidden=64, n_experts=4, d_shared=32, shared_gate=True, correction=True, noisy=True)
    for name, value in side.get("models.Mixtral")(config, dtype=side.dtype).state_dict().items():
        value = side.numpy(value)
        if name.endswith(("correction", "spread")):
            yield f"largest of {name}", np.abs(value).max(), 0.0
        elif ".mlp." in name:
            want = 0.02 / 2 if "down_proj" in name else 0.02
            yield f"deviation of {name}", abs(float(value.std()) / want - 1) < 0.3, True


@case(
    "models.Mixtral",
    bench=dict(init=dict(config=MIXTRAL_PRESETS["mixtral-1m"]), call=dict(ids=ids(8, 128, below=256))),
    # Well-conditioned: branches smaller than the skip, norms near 1, and logits of routers that rounding does not turn round.
    fill={"router.weight": array(scale=0.3, hostile=False), "spread": array(scale=0.3, hostile=False),
          "proj": array(scale=0.3, hostile=False), "proj.weight": array(scale=0.3, hostile=False), "norm1.weight": array(low=0.5, high=1.5),
          "norm2.weight": array(low=0.5, high=1.5), "correction": array(low=-0.5, high=0.5, hostile=False),
          "shared_gate.weight": array(hostile=False), "tokens.weight": array(hostile=False)},
    refuses=[
        dict(init=dict(config=MixtralConfig(5, 3, 4, 1, 2)), call=dict(ids=ids(below=5))),
        dict(init=dict(config=MixtralConfig(5, 3, 4, 1, 2)), call=dict(ids=array(2, 3))),
        dict(init=dict(config=MixtralConfig(5, 3, 4, 1, 2, activation="swiglue"))),
        dict(init=dict(config=MixtralConfig(5, 3, 4, 1, 2, activation="gelu"))),
    ],
    also=[loss, extends_with_room_for_all, starts],
)
def mixtral(draw):
    e = draw(one_of(1, 2, 3, 4, 6))
    k, vocabulary, layers = draw(integer(1, e)), draw(size(1, 7)), draw(integer(1, 2))
    shared, jointly = draw(maybe(integer(1, 4))), draw(flag())
    routing = {"choice": "token"} | {name: value for name, value in options(draw, e, k).items() if value is not LEFT_OUT}
    if routing["choice"] != "token" or routing.get("drop_order") == "weight":
        # Texts that begin alike have the same hidden states, between which only rounding would choose: layers.MoE is fed these.
        routing |= dict(choice="token", drop_order="token")
    layers = 2 if routing.get("noisy") is True else layers
    config = MixtralConfig(
        vocabulary=vocabulary, max_length=draw(one_of(1, 5, 8, 8)), d_model=8 if draw.ordinary else draw(one_of(4, 8)), n_layers=layers,
        n_heads=2, n_kv_heads=1,
        d_hidden=draw(integer(1, 5)), d_expert=draw(maybe(integer(1, 5))), n_experts=e, k=k, d_shared=shared,
        shared_gate=shared is not None and draw(flag()), dense=tuple(i for i in range(layers) if draw(integer(0, 3)) == 0),
        dropped=draw(one_of("zero", "residual")), activation=draw(one_of("swiglu", "geglu")), tied=draw(flag()),
        balance=draw(one_of(0.0, 0.5)), z=draw(one_of(0.0, 0.25)), jointly=jointly, per_sequence=not jointly and draw(flag()),
        dropout=draw(one_of(0.0, 0.2)), **routing,
    )
    return dict(
        init=dict(config=config),
        call=dict(
            ids=ids(draw(integer(0, 3)), draw(size(0, 6)), below=vocabulary),
            noise=noise() if config.noisy else draw(left_out(maybe(noise()))),
            run=draw(left_out(one_of("keep", "recompute"))),
        ),
    )
