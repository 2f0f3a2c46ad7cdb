"""MixLoRA's experts in files, one each: written together, read when a token needs one, and let go when memory is short."""

import collections
import dataclasses
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from byhand.checks import choice, demand, fail, ids_below, same_names, same_shape, size
from byhand.configs.mixlora import MixLoRAConfig
from byhand.hugging_face.on_disk import open_arrays
from byhand.manifest import nothing_else, read_manifest, replace_files, settled

ABOUT = "mixlora.json"
_ROUTERS, _ATTENTION = "routers.safetensors", "attention.safetensors"
_EXPERT = re.compile(r"(.+)\.experts\.(\d+)\.(\w+\.lora_[AB])")


def save_experts(directory: str | os.PathLike, *, config: MixLoRAConfig, state: Mapping[str, NDArray], base: str | None = None) -> Path:
    """Write what MixLoRA trained into a directory: a file for each expert of each layer, one for the routers, one for attention's adapters.

    The files change together, held by a manifest of their SHA-256: whenever the writing is interrupted, `ExpertFiles` finds all of the old
    ones or all of the new ones. One file's content is in memory at a time, beside `state`.

    Parameters
    ----------
    directory   made if there is none; it may hold experts of the same layers, which are replaced, and nothing else
    config      of the experts
    state       every trained array by its name in the model, ``blocks.0.mlp.experts.3.up_proj.lora_A``, ``blocks.0.mlp.router.weight`` …
    base        what it was trained on, for people to read

    Raises
    ------
    ValueError   if an expert is missing, or the directory holds something else or cannot be written to
    """
    who, directory = "save_experts", Path(directory)
    contents = _Contents(state, dataclasses.asdict(config), base)
    for layer, experts in contents.layers.items():
        demand(who, sorted(experts) == list(range(config.n_experts)), f"experts 0 to {config.n_experts - 1} of {layer}",
               experts=sorted(experts))
    demand(who, bool(contents.layers), "a state with experts", names=sorted(state)[:3])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        nothing_else(who, directory, contents)
        replace_files(directory, contents)
    except OSError as error:
        raise ValueError(f"{who} needs a directory it can write to; {error.filename or directory}: {error.strerror}") from error
    return directory


class ExpertFiles:
    """The experts that `save_experts` wrote, each read when it is asked for: ``files("blocks.0.mlp", 3)``, the `loader` of apply_mixlora.

    At most `memory` bytes of experts are held; to make room, the one goes first that was asked for longest ago. Whoever asks lets go of
    an expert before the next one, so that nothing else keeps it. Every file is compared with its SHA-256 whenever it is read.

    directory         where they are
    memory            bytes, of one expert at least; None: no limit

    config, layers    the MixLoRAConfig, and the names of the layers
    shared            the routers' weights and attention's adapters, by name
    loads             how many files were read so far
    resident, peak    bytes of experts held now, and at most so far

    Raises
    ------
    ValueError   naming the file that is missing, damaged, or none of the directory's; or if memory is too small for an expert

    Examples
    --------
    >>> import tempfile
    >>> state = {f"mlp.experts.{e}.up_proj.lora_A": np.full((2, 3), e) for e in range(3)} | {"mlp.router.weight": np.ones((3, 3))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = ExpertFiles(save_experts(folder, config=MixLoRAConfig(n_experts=3), state=state), memory=100)
    ...     [files("mlp", e)["up_proj.lora_A"].sum().item() for e in (0, 1, 0, 2, 0, 1)], files.loads, files.peak
    ([0, 6, 0, 12, 0, 6], 4, 96)
    """

    def __init__(self, directory: str | os.PathLike, *, memory: int | None = None):
        who = "ExpertFiles"
        self.directory, self.memory = Path(directory), memory
        if memory is not None:
            size(who, memory=memory)
        self._files: Mapping[str, Mapping[str, Any]] = read_manifest(who, self.directory)["files"]
        nothing_else(who, self.directory, self._files)
        demand(who, ABOUT in self._files, f"{ABOUT} in the manifest of {self.directory}", files=sorted(self._files)[:3])
        about = json.loads(self._settled(ABOUT).read_bytes())
        self.config = MixLoRAConfig.from_dict(about["config"])
        self.layers: tuple[str, ...] = tuple(about["layers"])
        for layer in self.layers:
            for e in range(self.config.n_experts):
                self._there(layer, e)                             # one that is missing is named before any work is done
        self.shared = {name: np.asarray(array) for file in (_ROUTERS, _ATTENTION) if file in self._files
                       for name, array in open_arrays(self._settled(file)).items()}
        self._held: collections.OrderedDict[tuple[str, int], dict[str, NDArray]] = collections.OrderedDict()
        self.loads = self.resident = self.peak = 0

    def __call__(self, layer: str, e: int) -> dict[str, NDArray]:
        """The arrays of expert e of that layer by name, ``up_proj.lora_A`` …"""
        choice("ExpertFiles", self.layers, layer=layer)
        ids_below("ExpertFiles", self.config.n_experts, expert=np.asarray(e))
        if (layer, e) in self._held:
            self._held.move_to_end((layer, e))
            return self._held[layer, e]
        header = open_arrays(self._settled(self._there(layer, e)))
        needed = _bytes(header)
        if self.memory is not None:
            demand("ExpertFiles", needed <= self.memory, f"memory for an expert, {needed} bytes", memory=self.memory)
            while self.resident + needed > self.memory:
                _, gone = self._held.popitem(last=False)
                self.resident -= _bytes(gone)
                del gone                                          # before the next one is read into its place
        arrays = {name: np.asarray(array) for name, array in header.items()}
        self._held[layer, e] = arrays
        self.loads += 1
        self.resident += needed
        self.peak = max(self.peak, self.resident)
        return arrays

    def attach(self, model: Any) -> list[str]:
        """Put MixLoRA with these experts on a plain model of either side; returns the names of its layers.

        Raises
        ------
        ValueError   if the files are for another model
        """
        who = f"ExpertFiles of {self.directory}"
        by_hand = hasattr(model, "unfreeze")
        if by_hand:
            from numpy_impl.finetune.apply_mixlora import apply_mixlora
        else:
            from torch_impl.finetune.apply_mixlora import apply_mixlora  # type: ignore[assignment]
        layers = apply_mixlora(model, self.config, loader=self)
        demand(who, layers == list(self.layers), "the feed-forward layers of the model it was trained on", layers=layers)
        own = model.parameters() if by_hand else {name: p.data for name, p in model.named_parameters() if p.requires_grad}
        same_names(who, own, files=self.shared)
        for name, array in own.items():
            same_shape(who, array.shape, **{name: self.shared[name]})
        for name, array in own.items():
            array[...] = self.shared[name] if by_hand else array.new_tensor(self.shared[name])
        return layers

    def _there(self, layer: str, e: int) -> str:
        """The name of an expert's file, which exists, if only beside its place, where an interrupted writing may have left it."""
        name = _name(layer, e)
        demand("ExpertFiles", name in self._files, f"expert {e} of {layer} in the manifest of {self.directory}", file=name)
        if not (self.directory / name).exists() and not (self.directory / f".{name}.new").exists():
            fail("ExpertFiles", f"expert {e} of {layer}, the file {name} of {self.directory}", "none of that name")
        return name

    def _settled(self, name: str) -> Path:
        """Where a file's content lies, which is as it was written."""
        return settled("ExpertFiles", self.directory / name, self._files[name])


class _Contents(Mapping[str, bytes]):
    """What the files are to hold by name, each made when it is looked at."""

    def __init__(self, state: Mapping[str, NDArray], config: dict[str, Any], base: str | None):
        self.layers: dict[str, dict[int, dict[str, NDArray]]] = {}
        routers: dict[str, NDArray] = {}
        attention: dict[str, NDArray] = {}
        for name, array in state.items():
            found = _EXPERT.fullmatch(name)
            if found:
                self.layers.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = array
            else:
                (routers if name.endswith(".router.weight") else attention)[name] = array
        self._groups = {_name(layer, e): arrays for layer, experts in self.layers.items() for e, arrays in experts.items()}
        self._groups |= {_ROUTERS: routers} | ({_ATTENTION: attention} if attention else {})
        self._about = dict(config=config, layers=list(self.layers), base=base)

    def __getitem__(self, name: str) -> bytes:
        if name == ABOUT:
            return (json.dumps(self._about, indent=2) + "\n").encode()
        return safetensors.numpy.save({key: np.ascontiguousarray(array) for key, array in self._groups[name].items()}, {"format": "pt"})

    def __iter__(self) -> Iterator[str]:
        yield from (ABOUT, *self._groups)

    def __len__(self) -> int:
        return 1 + len(self._groups)


def _name(layer: str, e: int) -> str:
    return f"{layer}.expert-{e:03d}.safetensors"


def _bytes(arrays: Mapping[str, Any]) -> int:
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())
