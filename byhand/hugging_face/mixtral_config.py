"""Between our Mixtral's config and config.json of Hugging Face's files, of Mixtral, Qwen2-MoE (Qwen1.5-MoE) and Qwen3-MoE."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byhand.checks import choice, demand, fail, size
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.hugging_face.llama import llama_config_from_hugging_face, llama_config_to_hugging_face

MIXTRAL_TYPES = {"mixtral": "MixtralForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM"}
_WITHOUT_EXPERTS = {"mixtral": "mistral", "qwen2_moe": "qwen2", "qwen3_moe": "qwen3"}       # the same attention, norms and tables
_NEEDED = {"mixtral": [], "qwen2_moe": ["moe_intermediate_size", "shared_expert_intermediate_size"],
           "qwen3_moe": ["moe_intermediate_size"]}


def mixtral_config_from_hugging_face(values: Mapping[str, Any]) -> MixtralConfig:
    """The config.json of a Mixtral, Qwen2-MoE or Qwen3-MoE, as transformers 4 and 5 write it, as ours.

    The balance loss is transformers' own: of all layers jointly, weighed by router_aux_loss_coef, and only added where the file says
    output_router_logits; where it does not, as in most files, `balance` is 0. router_jitter_noise becomes `jitter`, although that of
    transformers also reaches the experts' input.

    Raises
    ------
    ValueError   if model_type is none of these, something is missing, or the model has what ours has not: windows in some layers only,
                 another activation

    Examples
    --------
    >>> sizes = dict(vocab_size=256, max_position_embeddings=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    >>> sizes |= dict(model_type="mixtral", intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, router_aux_loss_coef=0.02)
    >>> config = mixtral_config_from_hugging_face(sizes)
    >>> config.d_expert, config.n_experts, config.rope.base, config.balance
    (24, 4, 1000000.0, 0.0)
    >>> mixtral_config_from_hugging_face(sizes | dict(output_router_logits=True)).balance
    0.02
    """
    who = "mixtral_config_from_hugging_face"
    kind = values.get("model_type")
    choice(who, MIXTRAL_TYPES, model_type=kind)
    counts = [values[name] for name in ("num_experts", "num_local_experts") if values.get(name) is not None]   # version 5 writes either
    missing = [name for name in ["num_experts_per_tok", *_NEEDED[str(kind)]] if values.get(name) is None]
    missing += [] if counts else ["num_local_experts" if kind == "mixtral" else "num_experts"]
    demand(who, not missing, f"a value for {', '.join(missing)}", keys=sorted(values))
    demand(who, counts[0] == counts[-1], "num_experts and num_local_experts to agree", counts=counts)

    plainly = {**values, "model_type": _WITHOUT_EXPERTS[str(kind)], "sliding_window": None, "use_sliding_window": False}
    if kind == "mixtral":                                                   # has other values than Mistral where the file has none
        plainly.setdefault("rms_norm_eps", 1e-5)
        rope = values["rope_parameters"] if isinstance(values.get("rope_parameters"), Mapping) else {}
        if plainly.get("rope_theta") is None and "rope_theta" not in rope:
            plainly["rope_theta"] = 1e6
    plain = llama_config_from_hugging_face(plainly)
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)} | {"window": _window(who, values)}
    if kind == "qwen2_moe" and not values.get("qkv_bias", True):
        fields["attention_bias"] = False
    step, only = values.get("decoder_sparse_step", 1), values.get("mlp_only_layers") or []
    size(who, decoder_sparse_step=step)
    demand(who, isinstance(only, list), "mlp_only_layers as a list", mlp_only_layers=only)
    dense = [i for i in range(plain.n_layers) if i in only or (i + 1) % step] if kind != "mixtral" else ()
    with_loss = bool(values.get("output_router_logits", False))
    return MixtralConfig(
        **fields,
        n_experts=counts[0],
        k=values["num_experts_per_tok"],
        d_expert=plain.d_hidden if kind == "mixtral" else values["moe_intermediate_size"],
        d_shared=values["shared_expert_intermediate_size"] if kind == "qwen2_moe" else None,
        shared_gate=kind == "qwen2_moe",
        dense=tuple(dense),
        renormalise=kind == "mixtral" or values.get("norm_topk_prob", False),
        jitter=values.get("router_jitter_noise", 0.0) if kind == "mixtral" else 0.0,
        balance=values.get("router_aux_loss_coef", 0.001) if with_loss else 0.0,
        jointly=with_loss,
    )


def _window(who: str, values: Mapping[str, Any]) -> int | None:
    """How many keys a query sees; None for all."""
    kind, window = values["model_type"], values.get("sliding_window")
    if window is None or kind == "mixtral" or not values.get("use_sliding_window", False):
        return window if kind == "mixtral" else None
    types: list[str] = (values.get("layer_types") or []) if kind == "qwen2_moe" else ["sliding_attention"]
    demand(who, len(set(types)) == 1, "layer_types, the same for all layers, with use_sliding_window", layer_types=types)
    return window if types[0] == "sliding_attention" else None


def mixtral_config_to_hugging_face(config: MixtralConfig) -> dict[str, Any]:
    """The way back: a config.json that transformers 4 and 5 read, of the model_type that has what the config asks for.

    A balance loss over all layers jointly is written, and switched on by output_router_logits. Of what acts in training only,
    transformers has no other: a balance loss by layer or sequence, a z-loss, dropout and the jitter of another model than Mixtral are
    left out.

    Raises
    ------
    ValueError   if no model of transformers has it: a shared expert without a gate, a capacity, sigmoid scores …

    Examples
    --------
    >>> sizes = dict(vocabulary=256, max_length=64, d_model=8, n_layers=2, n_heads=2, d_hidden=24, n_experts=4)
    >>> ours = MixtralConfig(**sizes, d_expert=6, d_shared=12, shared_gate=True, attention_bias="qkv", dense=(0,))
    >>> theirs = mixtral_config_to_hugging_face(ours)
    >>> theirs["model_type"], theirs["moe_intermediate_size"], theirs["mlp_only_layers"]
    ('qwen2_moe', 6, [0])
    >>> mixtral_config_from_hugging_face(theirs) == ours
    True
    """
    who = "mixtral_config_to_hugging_face"
    kind = mixtral_kind(who, config)
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(LlamaConfig)} | {"window": None}
    if kind == "qwen2_moe":
        fields["attention_bias"] = "qkv"
    elif kind == "mixtral":
        fields["d_hidden"] = config.d_expert                                # it has no other feed-forward layers
    values = llama_config_to_hugging_face(LlamaConfig(**fields))
    values |= {"architectures": [MIXTRAL_TYPES[kind]], "model_type": kind, "sliding_window": config.window}
    values["num_local_experts" if kind == "mixtral" else "num_experts"] = config.n_experts
    values["num_experts_per_tok"] = config.k
    with_loss = config.jointly and config.balance > 0
    values |= {"output_router_logits": True, "router_aux_loss_coef": config.balance} if with_loss else {"output_router_logits": False}
    if kind == "mixtral":
        del values["attention_bias"], values["mlp_bias"]
        return values | {"router_jitter_noise": config.jitter}
    values |= {"moe_intermediate_size": config.d_expert, "norm_topk_prob": _to_one(config), "use_sliding_window": config.window is not None,
               "decoder_sparse_step": 1, "mlp_only_layers": sorted(set(config.dense))}
    if kind == "qwen2_moe":
        values |= {"shared_expert_intermediate_size": config.d_shared, "qkv_bias": bool(config.attention_bias),
                   "layer_types": ["full_attention" if config.window is None else "sliding_attention"] * config.n_layers}
    return values


def mixtral_kind(who: str, config: MixtralConfig) -> str:
    """The one model_type that has these options; `who` complains where none has."""
    kind = "qwen3_moe" if config.qk_norm else "mixtral" if config.d_shared is None else "qwen2_moe"
    has: dict[str, tuple[Any, ...]] = dict(score=("softmax",), scale=(1.0,), groups=(1,), correction=(False,), choice=("token",),
                                           capacity_factor=(None,), noisy=(False,), mlp_bias=(False,))
    if kind == "mixtral":
        has |= {"attention_bias": (False,), "dense": ((),)}
    elif kind == "qwen2_moe":
        has |= {"attention_bias": ("qkv", False), "shared_gate": (True,)}
    else:
        has |= {"attention_bias": (True, False), "d_shared": (None,)}
    others = [f"{name}={getattr(config, name)!r}" for name, options in has.items() if getattr(config, name) not in options]
    others += ["weights that do not sum to one (renormalise=False)"] if kind == "mixtral" and not _to_one(config) else []
    if others:
        fail(who, f"the options of one of transformers' models, {', '.join(MIXTRAL_TYPES)}", f"beside those of {kind} {', '.join(others)}")
    return kind


def _to_one(config: MixtralConfig) -> bool:
    """Whether a token's weights sum to one: a softmax over the chosen alone is that over all, divided by the sum of the chosen."""
    return config.renormalise or not config.before
