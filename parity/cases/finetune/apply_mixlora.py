"""What putting MixLoRA into a model is fed: every option, adapters that were there before or come after, experts from a loader."""

from typing import Any

import numpy as np

from byhand.configs.lora import LoRAConfig
from byhand.configs.mixlora import MixLoRAConfig
from numpy_impl.layers.module import flatten
from parity.cases import case, flag, left_out, noise, one_of, size
from parity.cases.finetune._models import GPT2, IDS, LLAMA, MIXTRAL, TARGETS, fill, made, trainable


def text(words: Any):
    """Words as numbers, which are compared one by one."""
    return np.frombuffer(repr(words).encode(), np.uint8).astype(np.int64)


def trained(side, model, noise):
    """The loss, and all gradients in one array: a small one is rounded as the large ones it is made of."""
    ids, targets = side.array(IDS), side.array(TARGETS)
    if side.name == "numpy":
        loss, backward = model.loss(ids, targets, noise=noise)
        grads = flatten(backward())
    else:
        import torch

        loss = model.loss(ids, targets, noise=noise)
        params = {name: p for name, p in model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(loss, [*params.values()], allow_unused=True, materialize_grads=True)
        grads = dict(zip(params, map(side.numpy, found), strict=True))
    return dict(loss=loss, gradients=np.concatenate([grads[name].ravel() for name in sorted(grads)]), of=text(sorted(grads)))


def apply(side, *, model, config, quantized=False, before=None, after=None, lazily=False, step=None, twice=False):
    """What is wrapped and what trains, beside adapters that were there before or come after; the loss, with the balance of the experts."""
    subject = made(side, model)
    if quantized:
        side.get("quantize.quantize_linears")(subject, block=8)
    if before:
        side.get("finetune.apply_lora")(subject, LoRAConfig(**before), name="before")
    plain = side.numpy(subject(side.array(IDS)))
    names = side.get("finetune.apply_mixlora")(subject, MixLoRAConfig(**config))
    if twice:
        side.get("finetune.apply_mixlora")(subject, MixLoRAConfig(**config))
    shown: dict[str, Any] = {"wrapped": text(names), "weights of losses": text(subject.routing_loss)}
    if config.get("renormalise", True):
        shown["starts as its base"] = np.allclose(side.numpy(subject(side.array(IDS))), plain, rtol=0, atol=1e-5)
    if after:
        shown["adapted later"] = text(side.get("finetune.apply_lora")(subject, LoRAConfig(**after), name="after"))
    fill(side, subject)
    shown |= {"trains": text(sorted(trainable(subject))), "names": text(sorted(subject.state_dict()))}
    if not lazily:
        shown |= trained(side, subject, step)
        return shown | {"logits": subject(side.array(IDS))}

    # The same numbers, the experts' from a loader.
    state = {name: side.numpy(value) for name, value in subject.state_dict().items()}
    asked = []

    def loader(place, e):
        asked.append((place, e))
        start = f"{place}.experts.{e}."
        return {name.removeprefix(start): side.array(value) for name, value in state.items() if name.startswith(start)}

    lazy = made(side, model)
    if quantized:
        side.get("quantize.quantize_linears")(lazy, block=8)
    if before:
        side.get("finetune.apply_lora")(lazy, LoRAConfig(**before), name="before")
    side.get("finetune.apply_mixlora")(lazy, MixLoRAConfig(**config), loader=loader)
    if after:
        side.get("finetune.apply_lora")(lazy, LoRAConfig(**after), name="after")
    side.load(lazy, {name: value for name, value in state.items() if ".experts." not in name})
    logits = side.numpy(lazy(side.array(IDS)))
    shown["the loader's bits"] = np.array_equal(logits, side.numpy(subject(side.array(IDS))))
    return shown | {"logits": logits, "asked for": text(asked)}


@case(
    "finetune.apply_mixlora",
    play=apply,
    refuses=[
        dict(model=LLAMA, config={}, twice=True),
        dict(model=GPT2, config={}),
        dict(model=MIXTRAL, config={}),
        dict(model=LLAMA, config=dict(attention=("up_proj",))),
        dict(model=LLAMA, config=dict(attention=("q_prj",))),
        dict(model=LLAMA, config=dict(attention=("mlp",))),
        dict(model=LLAMA, config={}, before=dict(targets=("blocks.1.mlp.down_proj",))),
    ],
)
def apply_mixlora(draw):
    e = draw(size(1, 5))
    config = dict(
        n_experts=e, k=draw(one_of(min(2, e), 1, e)), r=draw(one_of(1, 3)), alpha=draw(one_of(1, 2)), rslora=draw(flag()),
        dropout=draw(left_out(one_of(0.0, 0.3))), renormalise=draw(left_out(flag())), balance=draw(left_out(one_of(0.5, 0.0))),
        attention=draw(left_out(one_of((), ("q_proj", "v_proj"), ["blocks.1.attn.*"], r".*\.o_proj", ("head",)))),
    )
    others = [dict(targets=("q_proj",), r=2), dict(targets="all-linear", exclude=("mlp.*",), r=1), dict(targets=("o_proj",), dora=True)]
    return dict(
        model=LLAMA, config=config, quantized=draw(left_out(flag())), before=draw(left_out(one_of(*others))),
        after=draw(left_out(one_of(*others, dict(targets=("base.up_proj", "k_proj"), r=2)))), lazily=draw(left_out(flag())),
        step=draw(left_out(noise())),
    )
