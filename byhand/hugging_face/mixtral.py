"""Between our Mixtral's parameter names and those of Hugging Face's files, of Mixtral, Qwen2-MoE (Qwen1.5-MoE) and Qwen3-MoE.

Ours holds the experts of a block as stacks: gate_proj and up_proj (E, F, D), down_proj (E, D, F). Files hold every expert's matrices by
themselves, as the models of transformers 4 do; those of transformers 5 hold gate over up as one stack (E, 2F, D). Both are read, the
former is written, as `save_pretrained` of either version does.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, same_shape
from byhand.configs.mixtral import MixtralConfig
from byhand.hugging_face.combined import Stacked
from byhand.hugging_face.llama import by_names, exactly, llama_names
from byhand.hugging_face.mixtral_config import mixtral_kind

_OF_MIXTRAL = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
_PARTS = tuple(_OF_MIXTRAL)


def mixtral_from_hugging_face(state: Mapping[str, NDArray], config: MixtralConfig) -> dict[str, Any]:
    """The state of a transformers Mixtral (Qwen2-MoE, Qwen3-MoE) under our names, for `Mixtral(config).load_state_dict`.

    Parameters
    ----------
    state    of the model or its file, experts one by one or stacked: NumPy arrays, or arrays on disk; of the latter also the stacks that
             come back are read only when they are used, one expert at a time
    config   says which names there must be

    Raises
    ------
    ValueError   if a name is missing or unknown, a matrix of an expert has another shape, or the head is not the token embedding although
                 the config says so
    """
    who = "mixtral_from_hugging_face"
    kind = mixtral_kind(who, config)
    stacks = expert_names(config, kind)
    one_by_one = {f"{ours}.{e}": theirs for ours, experts in stacks.items() for e, theirs in enumerate(experts)}
    own: dict[str, Any] = by_names(who, _apart(who, state, config, kind), mixtral_names(config) | one_by_one, tied=config.tied)
    for ours, experts in stacks.items():
        parts = [own.pop(f"{ours}.{e}") for e in range(config.n_experts)]
        same_shape(who, _shape(config, ours), **dict(zip(experts, parts, strict=True)))
        own[ours] = np.stack(parts) if all(isinstance(part, np.ndarray) for part in parts) else Stacked(parts)
    return own


def _apart(who: str, state: Mapping[str, NDArray], config: MixtralConfig, kind: str) -> dict[str, Any]:
    """The arrays under the names of files, also where they come from a model of transformers 5, which has stacked the experts'."""
    apart: dict[str, Any] = {}
    for name, array in state.items():
        prefix, stacked, part = name.rpartition(".mlp.experts.")
        if stacked and part in ("gate_up_proj", "down_proj"):
            rows, columns = _shape(config, part)
            same_shape(who, (config.n_experts, 2 * rows if part == "gate_up_proj" else rows, columns), **{name: array})
            for e in range(config.n_experts):
                split = {"gate_proj": array[e][:rows], "up_proj": array[e][rows:]} if part == "gate_up_proj" else {part: array[e]}
                ones = {f"{prefix}.{_expert(kind, e, own)}": rows_of for own, rows_of in split.items()}
                demand(who, not any(one in state for one in ones), f"an expert's matrices in {name} or by themselves, not both", expert=e)
                apart |= ones
        elif kind == "mixtral" and name.endswith(".mlp.gate.weight"):
            apart[name.replace(".mlp.", ".block_sparse_moe.")] = array
        else:
            apart[name] = array
    return apart


def mixtral_to_hugging_face(state: Mapping[str, NDArray], config: MixtralConfig) -> dict[str, NDArray]:
    """The way back: our Mixtral's state under the names of files, every expert by itself (a view of its stack), a tied head included.

    Raises
    ------
    ValueError   if a name is missing or unknown, or transformers has no model of these options
    """
    who = "mixtral_to_hugging_face"
    stacks, names = expert_names(config, mixtral_kind(who, config)), mixtral_names(config)
    exactly(who, "our Mixtral of this config", [*names, *stacks], state)
    same = {theirs: state[ours] for ours, theirs in names.items()}
    for ours, experts in stacks.items():
        same_shape(who, (config.n_experts, *_shape(config, ours)), **{ours: state[ours]})
        same |= {theirs: state[ours][e] for e, theirs in enumerate(experts)}
    return same | ({"lm_head.weight": state["tokens.weight"]} if config.tied else {})


def mixtral_names(config: MixtralConfig) -> dict[str, str]:
    """our name -> their name in files, of every parameter of this config but the experts' stacks."""
    sparse = _sparse(config)
    blocks = tuple(f"{ours}.mlp." for ours, _ in sparse)
    names = {ours: theirs for ours, theirs in llama_names(config).items() if not ours.startswith(blocks)}
    mixture = "block_sparse_moe" if config.d_shared is None and not config.qk_norm else "mlp"
    for ours, theirs in sparse:
        names[f"{ours}.mlp.router.weight"] = f"{theirs}.{mixture}.gate.weight"
        if config.d_shared is not None:
            names |= {f"{ours}.mlp.shared.{part}.weight": f"{theirs}.mlp.shared_expert.{part}.weight" for part in _PARTS}
            names[f"{ours}.mlp.shared_gate.weight"] = f"{theirs}.mlp.shared_expert_gate.weight"
    return names


def expert_names(config: MixtralConfig, kind: str) -> dict[str, list[str]]:
    """our name of each stack -> their names in files of its matrices, one for each expert."""
    return {f"{ours}.mlp.experts.{part}": [f"{theirs}.{_expert(kind, e, part)}" for e in range(config.n_experts)]
            for ours, theirs in _sparse(config) for part in _PARTS}


def _expert(kind: str, e: int, part: str) -> str:
    """What follows a layer's name in that of an expert's matrix."""
    return f"block_sparse_moe.experts.{e}.{_OF_MIXTRAL[part]}.weight" if kind == "mixtral" else f"mlp.experts.{e}.{part}.weight"


def _shape(config: MixtralConfig, name: str) -> tuple[int, int]:
    """Of one expert's matrix."""
    assert config.d_expert                                                  # __post_init__ has filled it in
    return (config.d_model, config.d_expert) if name.endswith("down_proj") else (config.d_expert, config.d_model)


def _sparse(config: MixtralConfig) -> list[tuple[str, str]]:
    """(our name, their name) of the blocks that have experts."""
    return [(f"blocks.{i}", f"model.layers.{i}") for i in range(config.n_layers) if i not in config.dense]
