"""What the manager of adapters is fed: small models of every kind of layer, configs of every option, and a few things done one after
another, some of which are refused; everything that the model holds, computes and trains is compared after each."""

from typing import Any

import numpy as np

from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from numpy_impl.layers.module import flatten
from parity.cases import array, case, flag, ids, integer, left_out, maybe, noise, one_of

VOCABULARY = 7
VALUES = array(900, scale=0.3, hostile=False)


# The models


def make(side: Any, kind: str, tied: bool) -> Any:
    """A model of a few hundred numbers: a Llama with a head, or without one and with biases, a GPT-2, or two convolutions."""
    made: dict[str, Any] = dict(dtype=side.dtype)
    if kind == "llama":
        sizes = LlamaConfig(VOCABULARY, 5, 4, 2, 2, n_kv_heads=1, d_hidden=3, tied=tied, attention_bias=tied, dropout=0.25)
        model = side.get("models.Llama")(sizes, **made)
    elif kind == "gpt2":
        model = side.get("models.GPT2")(GPT2Config(VOCABULARY, 5, 4, 2, 2, d_hidden=3), **made)
    else:
        conv = side.get(f"layers.{kind}")
        model = side.get("layers.Stack")([conv(2, 4, 2, padding=1, **made), conv(4, 2, 2, bias=tied, groups=1 + tied, **made)])
    return model


def fill(side: Any, model: Any, values: np.ndarray, name: str | None = None) -> None:
    """All floats of the model, or those of one adapter, from `values`; scales near 1, so that nothing is ill-conditioned."""
    state = side.get("finetune.adapter_state")(model, name) if name else model.state_dict()
    begin = 0 if name is None else 31
    for key in sorted(state):
        if key.split(".")[-1] in ("weight", "bias", "lora_A", "lora_B", "magnitude"):
            fresh = np.take(values, np.arange(begin, begin + int(np.prod(state[key].shape))), mode="wrap")
            fresh = fresh.reshape(tuple(state[key].shape)) + (1.0 if "norm" in key or "magnitude" in key else 0.0)
            begin += fresh.size
            state[key][...] = side.array(fresh)


# What is looked at


def text(words: Any) -> np.ndarray:
    """Words as numbers, which are compared one by one."""
    return np.frombuffer(repr(words).encode(), np.uint8).astype(np.int64)


def computed(side: Any, model: Any, data: dict[str, Any], noise: Any) -> tuple[Any, dict[str, Any]]:
    """A loss, and its gradients by name."""
    data = {name: side.array(value) for name, value in data.items()}
    if side.name == "numpy":
        if "x" in data:
            y, backward = model.forward(data["x"], noise=noise)
            return (y * y).sum() / 2, flatten(backward(y)[-1])
        loss, backward = model.loss(data["ids"], data["targets"], noise=noise)
        return loss, flatten(backward())
    import torch

    if "x" in data:
        y = model(data["x"], noise=noise)
        loss = (y * y).sum() / 2
    else:
        loss = model.loss(data["ids"], data["targets"], noise=noise)
    training = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = [torch.zeros_like(p) for p in training.values()]
    if loss.requires_grad:                  # an adapter of rank 0 trains, but has no part in any graph
        found = list(torch.autograd.grad(loss, [*training.values()], allow_unused=True, materialize_grads=True))
    return loss, dict(zip(training, found, strict=True))


def seen(side: Any, model: Any, data: dict[str, Any], noise: Any, random: bool = False) -> dict[str, Any]:
    """Names, arrays (their shapes, while they are random), what trains, what the model computes and how it would learn."""
    state = {name: side.numpy(value) for name, value in sorted(model.state_dict().items())}
    if side.name == "numpy":
        trains = sorted(model.parameters())
    else:
        trains = sorted(name for name, p in model.named_parameters() if p.requires_grad)
    if random:
        return dict(shapes=text([(name, value.shape) for name, value in state.items()]), trains=text(trains))
    loss, grads = computed(side, model, data, noise)
    return dict(names=text([*state]), state={k: v.copy() for k, v in state.items()}, trains=text(trains), loss=loss,
                grads=dict(sorted(grads.items())))


# What is done


def broken(side: Any, state: dict[str, Any], fault: str) -> dict[str, Any]:
    """A state that fits, or that has one fault."""
    state, last = dict(state), sorted(state)[-1]
    if fault == "missing":
        del state[last]
    elif fault == "unknown":
        state["blocks.7.lora_A"] = state[last]
    elif fault == "shape":
        state[last] = state[last][..., None]
    elif fault == "integers":
        state[last] = side.array(np.zeros(tuple(state[last].shape), np.int64))
    elif fault in ("nan", "huge"):
        state[last] = side.array(np.zeros(tuple(state[last].shape)))
        state[last][...] = float("nan") if fault == "nan" else 1e30
    return state


def do(side: Any, model: Any, values: np.ndarray, action: str, *names: str, **options: Any) -> Any:
    """One action on the model."""
    if action == "apply":
        config = LoRAConfig(**options)
        found = side.get("finetune.apply_lora")(model, config, **({"name": names[0]} if names else {}))
        return found
    if action == "load":
        state = side.get("finetune.adapter_state")(model, *names)
        state = broken(side, {key: value + 0.125 for key, value in state.items()}, options["fault"])
        return side.get("finetune.load_adapter_state")(model, state, *names)
    if action == "state":
        return sorted(side.get("finetune.adapter_state")(model, *names))
    if action == "spoil":
        state = side.get("finetune.adapter_state")(model, *names)
        state[sorted(state)[0]][...] = float("inf")
        return None
    function = {"merge": "merge_lora", "unmerge": "unmerge_lora", "enable": "enable_adapters", "disable": "disable_adapters",
                "remove": "remove_adapter", "unload": "merge_and_unload"}[action]
    return side.get(f"finetune.{function}")(model, *names)


def play(side, *, kind, tied, quantized, values, data, steps, noise=None):
    """Everything that can be seen of the model after each step; a refusal is a result like any other."""
    model = make(side, kind, tied)
    found: dict[str, Any] = {}
    fill(side, model, values)
    if quantized:
        side.get("quantize.quantize_linears")(model, targets=("q_proj", "down_proj"), block=5, double=True)
    for i, (action, names, options) in enumerate(steps):
        label = f"{i} {action}"
        try:
            found[f"{label} said"] = text(do(side, model, values, action, *names, **options))
        except ValueError as error:
            found[f"{label} refused"] = text(str(error))
        else:
            if action == "apply":
                started = options.get("start", "kaiming") in ("pissa", "olora", "loftq")
                found[f"{label} started"] = seen(side, model, data, noise, random=not started)
                if not started:
                    fill(side, model, values, *(names or ("default",)))
        if action != "spoil":
            found[label] = seen(side, model, data, noise)
    return found


# What is drawn

LINEAR = [("q_proj", "v_proj"), ("o_proj", "q_proj", "down_proj"), ("*.attn.?_proj",), "all-linear", r"blocks\.\d\.(attn\.q|mlp\.up)_proj"]


def config(draw: Any, kind: str, quantized: bool) -> dict[str, Any]:
    """Options of a LoRAConfig that fit the model."""
    starts = ("kaiming", "gaussian", "pissa", "olora", "kaiming" if quantized else "loftq")
    start = draw(left_out(one_of(*starts)))
    options = dict(
        r=draw(one_of(2, 1, 0, 6)), alpha=draw(one_of(1, 2.5, 4)), rslora=draw(left_out(flag())), dora=draw(left_out(one_of(False, True))),
        dropout=draw(left_out(one_of(0.0, 0.4))), bias=draw(left_out(one_of("none", "all", "lora_only"))), start=start,
    )
    if kind.startswith("Conv"):
        return options | dict(targets=draw(one_of(("*",), ("0",), "1")), start=draw(left_out(one_of("kaiming", "gaussian"))))
    weights = start in ("pissa", "olora", "loftq")
    if weights and quantized:
        options["r"] = min(options["r"], 2)     # at full rank the base holds rounding only, and the scales of its codes are noise
    options["targets"] = draw(one_of(*LINEAR) if weights else one_of(*LINEAR, ("tokens", "q_proj"), ("tokens",)))
    if options["targets"] != ("tokens",):
        options |= dict(
            layers=draw(left_out(one_of(None, (0,), (1,), (1, 0)))),
            rank_pattern=draw(left_out(one_of({"q_proj": 3}, {r".*1\.attn\.q.*|.*0\.attn\.q.*": 1, "q_proj": 2}))),
            alpha_pattern=draw(left_out(one_of({"attn.q_proj": 3.0}))),
        )
    if options["targets"] == "all-linear":
        options["exclude"] = draw(left_out(one_of(("k_proj", "mlp.*"), r".*\.[kv]_proj")))
    return options


def scene(draw: Any, *actions: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A model, adapters of one or two names on it, these actions one after the other, and up to two more of any kind."""
    kind, tied = draw(one_of("llama", "gpt2", "llama", "Conv1d", "Conv2d")), draw(flag())
    quantized = not kind.startswith("Conv") and draw(one_of(False, False, True))
    if kind.startswith("Conv"):
        data = dict(x=draw(array(draw(integer(1, 2)), 2, *(3,) * int(kind[4]), hostile=False)))
    else:
        shape = draw(integer(1, 2)), draw(integer(1, 5))
        data = {name: draw(ids(*shape, below=VOCABULARY)) for name in ("ids", "targets")}
    first, second = config(draw, kind, quantized), None
    steps: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [("apply", (), first)]
    if draw(one_of(True, True, False)):
        second = config(draw, kind, quantized) | dict(start=draw(one_of("gaussian", "gaussian", "kaiming", "olora")))
        second["r"] = min(second["r"], 2) if quantized else second["r"]
        steps.append(("apply", ("other",), second))
    known = ["default", "other"] if second else ["default"]
    actions_more = one_of("merge", "unmerge", "enable", "disable", "state", "merge")
    more: list[tuple[str, dict[str, Any]]] = [(draw(actions_more), {}) for _ in range(draw(integer(0, 2)))]
    steps += [(action, named(draw, action, known), options) for action, options in [*actions, *more]]
    return dict(kind=kind, tied=tied, quantized=quantized, values=draw(VALUES), data=data, steps=steps,
                noise=draw(left_out(maybe(noise()))))


def named(draw: Any, action: str, known: list[str]) -> tuple[str, ...]:
    """The names of adapters that an action is told: some that are there, seldom one that is not."""
    if action in ("unmerge", "disable", "unload", "apply"):
        return ()
    alone = [(name,) for name in known]
    if action in ("remove", "spoil", "state", "load"):
        return draw(one_of(*alone, *alone, *alone, ("nobody",)))
    return draw(one_of((), (), *alone, *alone, tuple(known), tuple(known[::-1]), ("nobody",), ("default", "default")))


@case("finetune.apply_lora", play=play)
def apply_lora(draw):
    return scene(draw)


@case("finetune.merge_lora", play=play)
def merge_lora(draw):
    return scene(draw, *draw(one_of([], [("spoil", {})], [("disable", {})])), ("merge", {}), ("merge", {}))


@case("finetune.unmerge_lora", play=play)
def unmerge_lora(draw):
    return scene(draw, ("merge", {}), ("unmerge", {}))


@case("finetune.enable_adapters", play=play)
def enable_adapters(draw):
    return scene(draw, *draw(one_of([], [("merge", {})], [("disable", {})])), ("enable", {}))


@case("finetune.disable_adapters", play=play)
def disable_adapters(draw):
    return scene(draw, *draw(one_of([], [("merge", {})])), ("disable", {}))


@case("finetune.remove_adapter", play=play)
def remove_adapter(draw):
    return scene(draw, *draw(one_of([], [("merge", {})])), ("remove", {}))


@case("finetune.merge_and_unload", play=play)
def merge_and_unload(draw):
    return scene(draw, *draw(one_of([], [("merge", {})], [("disable", {})], [("enable", {})], [("spoil", {})])), ("unload", {}))


@case("finetune.adapter_state", play=play)
def adapter_state(draw):
    return scene(draw, *draw(one_of([], [("merge", {})])), ("state", {}))


@case("finetune.load_adapter_state", play=play)
def load_adapter_state(draw):
    fault = draw(one_of("none", "missing", "unknown", "shape", "integers", "nan", "huge", "none"))
    return scene(draw, *draw(one_of([], [], [("merge", {})])), ("load", dict(fault=fault)))
