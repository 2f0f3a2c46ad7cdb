"""Between our parameter names and those of Hugging Face's files: renaming, transposing, splitting and joining, nothing else."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

_PREFIX = "transformer."                        # GPT2LMHeadModel's files have it, GPT2Model's (the one published as "gpt2") do not
_BUFFERS = (".attn.bias", ".attn.masked_bias")  # the causal mask, which old files carry along


def gpt2_from_hugging_face(state: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The state of a transformers GPT-2 under our names, for `GPT2.load_state_dict`.

    Its Conv1D holds matrices as (in, out), ours are (out, in); its c_attn is our q_proj, k_proj and v_proj side by side. The arrays are
    views where possible.

    Parameters
    ----------
    state   of a GPT2Model or GPT2LMHeadModel, NumPy arrays

    Raises
    ------
    ValueError   if a name is missing or unknown, c_attn does not split in three, or lm_head is not the token embedding

    Examples
    --------
    >>> tables = {"wte.weight": np.zeros((5, 2)), "wpe.weight": np.zeros((3, 2))}
    >>> norm = {"ln_f.weight": np.ones(2), "ln_f.bias": np.zeros(2)}
    >>> list(gpt2_from_hugging_face(tables | norm))                     # a GPT-2 of no blocks
    ['tokens.weight', 'positions.weight', 'norm.weight', 'norm.bias']
    """
    state = {name.removeprefix(_PREFIX): array for name, array in state.items() if not name.endswith(_BUFFERS)}
    head = state.pop("lm_head.weight", None)
    layers = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("h.") and name.split(".")[1].isdigit()), default=-1)
    names = dict(_gpt2_names(layers))
    known = {theirs for theirs, *_ in names.values()}
    missing, unknown = sorted(known - state.keys()), sorted(state.keys() - known)
    if missing or unknown:
        raise ValueError(f"gpt2_from_hugging_face needs exactly the names of a GPT-2; missing {missing}, unknown {unknown}")
    if head is not None and not np.array_equal(head, state["wte.weight"]):
        raise ValueError("gpt2_from_hugging_face needs lm_head.weight to be wte.weight; this model has a head of its own")

    ours = {}
    for name, (theirs, part, transposed) in names.items():
        array = state[theirs]
        if part is not None:
            if array.shape[-1] % 3:
                raise ValueError(f"gpt2_from_hugging_face needs {theirs} with a multiple of 3 columns; got shape {array.shape}")
            array = np.split(array, 3, axis=-1)[part]
        ours[name] = array.T if transposed else array
    return ours


def gpt2_to_hugging_face(state: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The way back: our GPT-2's state under the names of transformers' GPT2LMHeadModel, its tied head included.

    Raises
    ------
    ValueError   if a name is missing or unknown
    """
    layers = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
    names = dict(_gpt2_names(layers))
    missing, unknown = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
    if missing or unknown:
        raise ValueError(f"gpt2_to_hugging_face needs exactly the names of our GPT-2; missing {missing}, unknown {unknown}")
    parts: dict[str, list[NDArray]] = {}
    for name, (theirs, _, transposed) in names.items():
        parts.setdefault(_PREFIX + theirs, []).append(state[name].T if transposed else state[name])
    joined = {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1) for name, arrays in parts.items()}
    return joined | {"lm_head.weight": state["tokens.weight"]}


def _gpt2_names(layers: int) -> Iterator[tuple[str, tuple[str, int | None, bool]]]:
    """our name -> (their name, which third of it or None for all, whether it is transposed)."""
    yield "tokens.weight", ("wte.weight", None, False)
    yield "positions.weight", ("wpe.weight", None, False)
    for i in range(layers):
        for end in ("weight", "bias"):
            turned = end == "weight"
            yield f"blocks.{i}.norm1.{end}", (f"h.{i}.ln_1.{end}", None, False)
            for part, letter in enumerate("qkv"):
                yield f"blocks.{i}.attn.{letter}_proj.{end}", (f"h.{i}.attn.c_attn.{end}", part, turned)
            yield f"blocks.{i}.attn.o_proj.{end}", (f"h.{i}.attn.c_proj.{end}", None, turned)
            yield f"blocks.{i}.norm2.{end}", (f"h.{i}.ln_2.{end}", None, False)
            yield f"blocks.{i}.mlp.up_proj.{end}", (f"h.{i}.mlp.c_fc.{end}", None, turned)
            yield f"blocks.{i}.mlp.down_proj.{end}", (f"h.{i}.mlp.c_proj.{end}", None, turned)
    for end in ("weight", "bias"):
        yield f"norm.{end}", (f"ln_f.{end}", None, False)
