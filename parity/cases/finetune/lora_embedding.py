"""What LoRA for embeddings is fed: ids of any shape, repeated ones, a padding row, ranks from 0, DoRA, one adapter beside another."""

import numpy as np

from parity.cases import array, case, dims, flag, ids, integer, left_out, maybe, noise, number, one_of, size
from parity.cases.finetune._models import trainable


@case(
    "finetune.lora_embedding_delta",
    bench=dict(lora_A=array(8, 16384), lora_B=array(768, 8), ids=ids(16, 512, below=16384), scaling=2.0),
    refuses=[
        dict(lora_A=array(3), lora_B=array(4, 2), ids=ids(2, below=3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4), ids=ids(2, below=3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4, 3), ids=ids(2, below=3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4, 2), ids=array(2), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4, 2), ids=ids(2, below=5, at_least=3), scaling=1.0),
        dict(lora_A=array(2, 3), lora_B=array(4, 2), ids=ids(2, below=3), scaling=float("nan")),
        dict(lora_A=array(2, 3), lora_B=array(4, 2), ids=ids(2, below=3), scaling=float("inf")),
        dict(lora_A=array(2, 3), lora_B=array(4, 2), ids=ids(2, below=3), scaling=1.0, padding_idx=3),
    ],
)
def lora_embedding_delta(draw):
    rank, vocabulary = draw(one_of(0, 1, 2, 9)), draw(size(1, 7))
    # The padding column's gradient is zero by decree, so the central difference of ordinary examples could not confirm it.
    padding_idx = draw(left_out(None)) if draw.ordinary else draw(left_out(maybe(integer(-vocabulary, vocabulary - 1))))
    return dict(
        lora_A=draw(array(rank, vocabulary)), lora_B=draw(array(draw(size(0)), rank)), ids=ids(*draw(dims(0, 3)), below=vocabulary),
        scaling=draw(one_of(0.0, 2.0, -0.5, 1e4, number(0, 3))), padding_idx=padding_idx,
    )


def lora_embedding(side, *, base, adapters, active=None, layer="Embedding"):
    made = side.get("finetune.LoRAEmbedding")(side.get(f"layers.{layer}")(**base, dtype=side.dtype), **adapters["default"])
    for name, options in adapters.items():
        if name != "default":
            made.add(name, **options)
    if active is not None:
        made.enable(*active)
    return made


def starts(side, module, ids, noise=None):
    """A new adapter has A at zero and B at unit normals, whatever `start` says; none is added where r is None."""
    layer, table = side.get("finetune.LoRAEmbedding"), side.get("layers.Embedding")
    for options in ({}, dict(start="gaussian")):
        fresh = layer(table(30, 20, dtype=side.dtype), r=500, alpha=1, **options)     # enough numbers to tell
        adapter = fresh.adapters["default"]
        yield "A", adapter.lora_A, np.zeros((500, 30))
        normals = side.numpy(adapter.lora_B)
        yield "B", abs(normals.std() - 1) < 0.1 and abs(normals.mean()) < 0.1, True
        yield "starts as its base", fresh(ids % 30), fresh.base(ids % 30)
    plain = layer(table(3, 2, dtype=side.dtype), r=None, alpha=1)
    yield "no adapter", len(plain.adapters), 0
    directed = layer(table(3, 2, dtype=side.dtype), r=1, alpha=1, dora=True)
    weight = side.numpy(directed.base.weight)
    yield "magnitude", directed.adapters["default"].magnitude, np.sqrt((weight * weight).sum(0))
    if side.name == "numpy":
        adapter = layer(table(4, 3), r=2, alpha=1, rng=np.random.default_rng(3)).adapters["default"]
        yield "the generator's draws", adapter.lora_B, np.random.default_rng(3).standard_normal((3, 2)).astype(np.float32)


def merges(side, module, ids, noise=None):
    """The merged table is the layer without dropout, folded or in place; the table of a tied head stays; unmerging restores it."""
    bits = {name: side.numpy(value).copy() for name, value in module.state_dict().items()}
    want, table, active = module(ids), module.weight, module.active
    folded = module.folded()
    yield "folded", folded(ids), want
    yield "padding of the folded", folded.padding_idx == module.base.padding_idx, True
    if not active:
        yield "nothing to fold", folded is module.base, True
        return
    yield "trained when folded", trainable(folded) == [], True
    module.merge(*active[:1])
    yield "the first merged", module(ids), want
    if side.name == "numpy" and len(active) > 1:
        y, backward = module.forward(ids)
        got, whole = backward(np.cos(y))["adapters"], None
        yield "trained beside what is merged", sorted(got) == sorted(active[1:]), True
        module.unmerge()
        whole = module.forward(ids)[1](np.cos(y))["adapters"]
        for name in active[1:]:
            for key, grad in got[name].items():
                yield f"{key} of {name}", grad, whole[name][key]
    else:
        module.unmerge()
    module.merge()
    yield "merged", module(ids), want
    yield "trained when merged", trainable(module) == [], True
    yield "a tied head's table", module.weight is table, True
    module.unmerge()
    for name, value in module.state_dict().items():
        yield f"the bits of {name}", side.numpy(value).tobytes() == bits[name].tobytes(), True


def directed(side, module, ids, noise=None):
    """With DoRA the columns of the moved table have the lengths that the magnitudes say."""
    for name in module.active:
        adapter = module.adapters[name]
        if adapter.dora:
            moved = side.numpy(module.weight + module.delta(name))
            length = np.sqrt((moved * moved).sum(0))
            defined = length > 1e-6
            yield "lengths", length[defined], abs(side.numpy(adapter.magnitude))[defined]


@case(
    "finetune.LoRAEmbedding",
    build=lora_embedding,
    fill={"lora_A": array(hostile=False), "magnitude": array(low=0.5, high=2.0)},
    also=[starts, merges, directed],
    bench=dict(
        init=dict(base=dict(vocabulary=16384, d_model=768), adapters=dict(default=dict(r=8, alpha=16))),
        call=dict(ids=ids(16, 512, below=16384)),
    ),
    refuses=[
        dict(init=dict(base=dict(in_features=3, out_features=2), adapters=dict(default=dict(r=1, alpha=1)), layer="Linear")),
        dict(init=dict(base=dict(vocabulary=3, d_model=2), adapters=dict(default=dict(r=-1, alpha=1)))),
        dict(init=dict(base=dict(vocabulary=3, d_model=2), adapters=dict(default=dict(r=1, alpha=1, dropout=2.0)))),
        dict(init=dict(base=dict(vocabulary=3, d_model=2), adapters=dict(default=dict(r=1, alpha=1, start="pissa")))),
        dict(init=dict(base=dict(vocabulary=3, d_model=2), adapters=dict(default=dict(r=1, alpha=1))), call=dict(ids=array(2))),
        dict(init=dict(base=dict(vocabulary=3, d_model=2), adapters=dict(default=dict(r=1, alpha=1))),
             call=dict(ids=ids(2, at_least=3, below=5))),
    ],
)
def lora_embedding_layer(draw):
    vocabulary = draw(size(1, 7))
    padding_idx = draw(left_out(None)) if draw.ordinary else draw(left_out(maybe(integer(0, vocabulary - 1))))

    def adapter():
        dora = draw(left_out(flag()))
        # With the norm taken for a constant, the gradient is not what the central difference of ordinary examples sees.
        detach_norm = False if draw.ordinary else draw(left_out(flag()))
        return dict(r=draw(integer(0, 3)), alpha=draw(one_of(1, 4.0)), rslora=draw(left_out(flag())),
                    dropout=draw(left_out(one_of(0.0, 0.4))), dora=dora, detach_norm=detach_norm)

    names = draw(one_of(["default"], ["default", "other"], ["default", "other"]))
    return dict(
        init=dict(
            base=dict(vocabulary=vocabulary, d_model=draw(size()), padding_idx=padding_idx), adapters={name: adapter() for name in names},
            active=draw(left_out(one_of(None, names[-1:]))),
        ),
        call=dict(ids=ids(*draw(dims(0, 3)), below=vocabulary), noise=draw(left_out(maybe(noise())))),
    )


