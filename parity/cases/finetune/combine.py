"""What combinations of adapters are fed: one to three of them, ranks from 0, weights of either sign, matrices and kernels; and models."""

from typing import Any

import numpy as np

from parity.cases import array, case, integer, left_out, maybe, number, one_of, size
from parity.cases.finetune._models import IDS, LLAMA, fill, made


def product(lora_A, lora_B):
    """B A, as a matrix."""
    return lora_B.reshape(tuple(lora_B.shape[:2])) @ lora_A.reshape(lora_A.shape[0], int(np.prod(lora_A.shape[1:])))


def sums(side, adapters, weights, kind, r=None):
    """"cat" is the weighted sum, "svd" misses of it what the singular values beyond the rank hold, and "linear" of one adapter is it."""
    if any(lora_B.shape[1] != len(lora_A) for lora_A, lora_B, _ in adapters):
        return
    combine = side.get("finetune.combine_factors")
    exact = [w * s * product(lora_A, lora_B) for (lora_A, lora_B, s), w in zip(adapters, weights, strict=True)]
    whole = side.numpy(sum(exact))
    length = np.sqrt((whole * whole).sum()) or 1.0
    yield "cat", product(*combine(adapters, weights=weights, kind="cat")), whole
    for rank in (1, 2, sum(len(lora_A) for lora_A, _, _ in adapters)):
        near = side.numpy(product(*combine(adapters, weights=weights, kind="svd", r=rank)))
        lost = np.linalg.svd(whole, compute_uv=False)[rank:]
        yield f"what svd of rank {rank} misses", np.sqrt(((whole - near) ** 2).sum()) / length, np.sqrt((lost * lost).sum()) / length
    yield "linear of one", product(*combine(adapters[:1], weights=weights[:1], kind="linear")), exact[0]


ONE = (array(2, 3), array(4, 2), 1.0)


@case(
    "finetune.combine_factors",
    gradient=False,
    also=[sums],
    bench=dict(adapters=[(array(16, 768), array(768, 16), 2.0), (array(16, 768), array(768, 16), 2.0)], weights=[0.7, 0.3], kind="svd"),
    refuses=[
        dict(adapters=[], weights=[], kind="cat"),
        dict(adapters=[ONE, ONE], weights=[1.0], kind="cat"),
        dict(adapters=[ONE], weights=[1.0], kind="ties"),
        dict(adapters=[ONE], weights=[1.0], kind="cat", r=2),
        dict(adapters=[ONE], weights=[1.0], kind="svd", r=-1),
        dict(adapters=[ONE], weights=[float("nan")], kind="cat"),
        dict(adapters=[(array(2, 3), array(4, 2), float("inf"))], weights=[1.0], kind="cat"),
        dict(adapters=[(array(2), array(4, 2), 1.0)], weights=[1.0], kind="cat"),
        dict(adapters=[(array(2, 3), array(4), 1.0)], weights=[1.0], kind="linear"),
        dict(adapters=[(array(2, 3), array(4, 3), 1.0)], weights=[1.0], kind="svd"),
        dict(adapters=[ONE, (array(2, 4), array(4, 2), 1.0)], weights=[1.0, 1.0], kind="cat"),
        dict(adapters=[ONE, (array(2, 3), array(5, 2), 1.0)], weights=[1.0, 1.0], kind="cat"),
        dict(adapters=[ONE, (array(1, 3), array(4, 1), 1.0)], weights=[1.0, 1.0], kind="linear"),
        dict(adapters=[ONE, (np.zeros((2, 3), dtype=int), array(4, 2), 1.0)], weights=[1.0, 1.0], kind="cat"),
        dict(adapters=[(array(2, 3, 3), array(4, 1, 1), 1.0)], weights=[1.0], kind="cat"),
    ],
)
def combine_factors(draw):
    kind, count = draw(one_of("linear", "cat", "svd", "svd")), draw(integer(1, 3))
    inputs, outputs, rank = draw(size(1, 7)), draw(size(1, 7)), draw(integer(1, 3) if draw.ordinary else integer(0, 3))
    kernel = draw(one_of([], [3], [2, 3]))
    groups = draw(integer(1, 2)) if kind == "linear" and kernel else 1
    # Of zeros, and of equal singular values, the singular vectors are anything: the two sides need not choose alike.
    hostile = kind != "svd"

    def one():
        own = rank if kind == "linear" else draw(integer(min(rank, 1), 3))
        lora_A, lora_B = (groups * own, inputs, *kernel), (outputs, own, *(1 for _ in kernel))
        return draw(array(*lora_A, hostile=hostile)), draw(array(*lora_B, hostile=hostile)), draw(one_of(1.0, 2.0, 0.5))

    return dict(
        adapters=[one() for _ in range(count)], weights=[draw(one_of(1.0, -0.5, number(-2, 2))) for _ in range(count)], kind=kind,
        r=draw(left_out(maybe(integer(0, 5)))) if kind == "svd" else draw(left_out(None)),
    )


def layers(side, ranks, groups=1):
    """A linear layer, a table and a convolution, each with adapters of these ranks, filled."""
    get, dtype = side.get, side.dtype
    made = {
        "linear": get("finetune.LoRALinear")(get("layers.Linear")(5, 4, dtype=dtype), r=None, alpha=1),
        "table": get("finetune.LoRAEmbedding")(get("layers.Embedding")(5, 4, dtype=dtype), r=None, alpha=1),
        "conv": get("finetune.LoRAConv1d")(get("layers.Conv1d")(4, 6, 3, groups=groups, dtype=dtype), r=None, alpha=1),
    }
    for layer in made.values():
        for i, rank in enumerate(ranks):
            layer.add(f"adapter{i}", r=rank * groups, alpha=i + 1.0)
        fill(side, layer)
    return made


def play_combine(side, *, ranks, weights, kind, active=None, groups=1, model=False, **options):
    weights = {f"adapter{i}": weight for i, weight in enumerate(weights)}
    if model:
        subject = made(side, LLAMA)
        first, second = subject.blocks.layers if hasattr(subject.blocks, "layers") else subject.blocks
        wrapped = {"blocks.0.attn.q_proj": first.attn.q_proj, "blocks.1.attn.q_proj": second.attn.q_proj}
        adapted = {place: side.get("finetune.LoRALinear")(module, r=None, alpha=1) for place, module in wrapped.items()}
        first.attn.q_proj, second.attn.q_proj = adapted.values()
        for i, rank in enumerate(ranks):
            adapted["blocks.0.attn.q_proj"].add(f"adapter{i}", r=rank, alpha=i + 1.0)
        adapted["blocks.1.attn.q_proj"].add("adapter0", r=ranks[0], alpha=2.0)
        fill(side, subject)
        subjects, layers_of, x = {"model": subject}, {"model": adapted}, {"model": IDS}
    else:
        subjects = layers(side, ranks, groups)
        layers_of = {key: {"": layer} for key, layer in subjects.items()}
        x = {"linear": np.cos(np.arange(10.0)).reshape(2, 5), "table": np.array([[1, 4, 0]]),
             "conv": np.sin(np.arange(40.0)).reshape(2, 4, 5)}
    shown: dict[str, Any] = {}
    for key, subject in subjects.items():
        for layer in layers_of[key].values():
            if active is not None:
                layer.enable("adapter0") if active else layer.disable()
        before = subject(side.array(x[key]))
        names = side.get("finetune.combine_adapters")(subject, weights, name="both", kind=kind, **options)
        shown |= {f"{key}: combined in {name!r}": np.ones(()) for name in names}
        shown[f"{key}: what ran goes on"] = np.abs(side.numpy(subject(side.array(x[key])) - before)).max() == 0
        for place, layer in layers_of[key].items():
            adapter = layer.adapters["both"]
            shown |= {f"{key} {place}: A": adapter.lora_A, f"{key} {place}: B": adapter.lora_B, f"{key} {place}: r": np.array(adapter.r),
                      f"{key} {place}: scaling": np.array(layer.scaling("both"))}
            layer.enable("both")
        shown[f"{key}: alone"] = subject(side.array(x[key]))
    return shown


def combined_delta(side, *, ranks, weights, kind, active=None, groups=1, model=False, **options):
    """The new adapter's delta is the weighted sum of those of the adapters, where the way is exact."""
    if model or groups > 1:
        return
    named = {f"adapter{i}": weight for i, weight in enumerate(weights)}
    for key, layer in layers(side, ranks).items():
        side.get("finetune.combine_adapters")(layer, named, name="both", kind="cat")
        yield key, layer.delta("both"), sum(weight * layer.delta(name) for name, weight in named.items())
        refused = 0
        for bad in (dict(name="both", kind="cat"), dict(name="new", kind="cat", weights={"adapter9": 1.0})):
            try:
                side.get("finetune.combine_adapters")(layer, bad.pop("weights", named), **bad)
            except ValueError:
                refused += 1
        layer.add("directed", r=1, alpha=1, dora=True)
        try:
            side.get("finetune.combine_adapters")(layer, {"directed": 1.0}, name="new", kind="svd")
        except ValueError as error:
            refused += "DoRA" in str(error)
        yield f"{key} refuses", (refused, "new" in layer.adapters), (3, False)


@case(
    "finetune.combine_adapters",
    play=play_combine,
    also=[combined_delta],
    refuses=[
        dict(ranks=[2], weights=[], kind="cat"),
        dict(ranks=[2], weights=[1.0, 1.0], kind="cat"),
        dict(ranks=[2], weights=[1.0], kind="sum"),
        dict(ranks=[2, 1], weights=[1.0, 1.0], kind="linear"),
        dict(ranks=[2, 1], weights=[1.0, 1.0], kind="linear", model=True),
        dict(ranks=[], weights=[1.0], kind="cat"),
        dict(ranks=[2], weights=[1.0], kind="cat", r=1),
        dict(ranks=[2, 2], weights=[1.0, 1.0], kind="cat", groups=2),
    ],
)
def combine_adapters(draw):
    kind, count = draw(one_of("linear", "cat", "svd")), draw(integer(1, 3))
    same = draw(integer(1, 3))
    ranks = [same if kind == "linear" else draw(integer(1, 3)) for _ in range(count)]
    return dict(
        ranks=ranks, weights=[draw(one_of(1.0, -0.5, number(-2, 2))) for _ in range(draw(integer(1, count)))], kind=kind,
        r=draw(left_out(integer(1, 4))) if kind == "svd" else draw(left_out(None)), active=draw(left_out(one_of(None, True, False))),
        groups=draw(one_of(1, 2)) if kind == "linear" else 1, model=draw(one_of(False, False, True)),
    )
