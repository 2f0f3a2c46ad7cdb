"""Experts in files: the same bits as in memory, no more of them there than allowed, and what is said of files that are not whole."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from byhand.configs.llama import LlamaConfig
from byhand.configs.mixlora import MixLoRAConfig
from byhand.finetuning.expert_files import ExpertFiles, save_experts
from numpy_impl.finetune.apply_mixlora import apply_mixlora
from numpy_impl.models.llama import Llama
from torch_impl.finetune.apply_mixlora import apply_mixlora as torch_apply_mixlora
from torch_impl.models.llama import Llama as TorchLlama

SIZES = LlamaConfig(vocabulary=11, max_length=16, d_model=16, n_layers=2, n_heads=2, d_hidden=24)
MIXLORA = MixLoRAConfig(n_experts=6, r=3, attention=("q_proj",))
ONE = 3 * 3 * (16 + 24) * 4        # bytes of an expert
IDS = np.random.default_rng(0).integers(0, 11, (2, 9))


def plain(side=Llama, **options):
    """The base, of the same numbers every time."""
    rng = np.random.default_rng(3)
    model = side(SIZES, **options)
    for array in model.state_dict().values():
        values = (rng.standard_normal(tuple(array.shape)) * 0.5).astype(np.float32)
        array[...] = values if side is Llama else torch.from_numpy(values)
    return model


@pytest.fixture(scope="module")
def whole():
    """A model that holds all its experts."""
    model, rng = plain(), np.random.default_rng(4)
    apply_mixlora(model, MIXLORA)
    for array in model.parameters().values():
        array[...] = rng.standard_normal(array.shape) * 0.3
    return model


@pytest.fixture(scope="module")
def saved(whole, tmp_path_factory):
    return save_experts(tmp_path_factory.mktemp("experts") / "adapter", config=MIXLORA, state=whole.parameters(), base="a test")


@pytest.fixture
def directory(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "adapter")


@pytest.mark.parametrize("room", [1, 2, 5, None])
def test_from_files_it_computes_the_same_bits_within_its_memory(room, whole, saved):
    files, model = ExpertFiles(saved, memory=None if room is None else room * ONE + 8), plain()
    assert files.attach(model) == ["blocks.0.mlp", "blocks.1.mlp"]
    assert not any("experts" in name for name in model.state_dict())
    for _ in range(2):
        assert model(IDS).tobytes() == whole(IDS).tobytes()
    assert files.peak == files.resident == min(room or 12, 12) * ONE              # these tokens need all twelve
    assert files.loads == (12 if room is None else 24)                           # one after the other, the next is always one that went


@pytest.mark.parametrize("side", [Llama, TorchLlama])
def test_experts_of_another_precision_become_the_models_own(side, whole, saved, tmp_path):
    wide = {name: array.astype(np.float64) for name, array in whole.parameters().items()}
    model, want = plain(side), plain(side)
    ExpertFiles(save_experts(tmp_path / "wide", config=MIXLORA, state=wide)).attach(model)
    ExpertFiles(saved).attach(want)
    ids = IDS if side is Llama else torch.from_numpy(IDS)
    with torch.no_grad():
        assert np.array_equal(model(ids), want(ids))


@pytest.mark.parametrize("side", [Llama, TorchLlama])
def test_a_model_with_experts_in_files_refuses_a_backward(side, saved):
    model, ids = plain(side), IDS if side is Llama else torch.from_numpy(IDS)
    ExpertFiles(saved).attach(model)
    loss = model.loss(ids, ids)
    with pytest.raises(ValueError, match="a loader, which is for inference"):
        loss[1]() if side is Llama else loss.backward()


def test_only_experts_that_have_tokens_are_read(whole, saved):
    files, model = ExpertFiles(saved), plain()
    files.attach(model)
    routed = []
    whole.watch = lambda routes: routed.extend(routes)
    whole.loss(IDS[:1, :2], IDS[:1, 1:3])
    whole.watch = None
    active = sum(int(one.chosen.any((0, 1)).sum()) for one in routed)
    model(IDS[:1, :2])
    assert files.loads == active < 8 and files.resident == active * ONE


def test_torch_computes_the_same_bits_too(whole, saved):
    full, model, files = plain(TorchLlama), plain(TorchLlama), ExpertFiles(saved, memory=2 * ONE)
    torch_apply_mixlora(full, MIXLORA)
    full.load_state_dict({name: torch.from_numpy(array) for name, array in whole.state_dict().items()}, strict=True)
    files.attach(model)
    with torch.no_grad():
        assert torch.equal(model(torch.from_numpy(IDS)), full(torch.from_numpy(IDS)))
    assert files.peak == 2 * ONE and files.loads == 12


def test_a_missing_expert_is_named_with_its_directory(directory):
    name = "blocks.1.mlp.expert-004.safetensors"
    opened = ExpertFiles(directory)
    (directory / name).unlink()
    for act in (lambda: ExpertFiles(directory), lambda: opened("blocks.1.mlp", 4)):
        with pytest.raises(ValueError, match="expert 4 of blocks.1.mlp, the file blocks.1.mlp.expert-004.safetensors of " + str(directory)):
            act()
    assert opened("blocks.1.mlp", 3)


@pytest.mark.parametrize("harm", ["cut", "flip"])
def test_a_damaged_expert_is_named_when_it_is_read(harm, directory):
    path = directory / "blocks.0.mlp.expert-002.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 16
    path.write_bytes(content if harm == "flip" else content[:-5])
    files = ExpertFiles(directory)
    assert files("blocks.0.mlp", 1)
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.expert-002\.safetensors"):
        files("blocks.0.mlp", 2)
    assert files.loads == 1 and files.resident == ONE


@pytest.mark.parametrize("name", ["mixlora.json", "routers.safetensors", "attention.safetensors", "manifest.json"])
def test_what_else_is_damaged_is_named_at_once(name, directory):
    content = bytearray((directory / name).read_bytes())
    content[-3] ^= 16
    (directory / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        ExpertFiles(directory)


def test_what_will_not_do(whole, saved, directory, tmp_path):
    with pytest.raises(ValueError, match=f"memory for an expert, {ONE} bytes"):
        ExpertFiles(saved, memory=ONE - 1)("blocks.0.mlp", 0)
    with pytest.raises(ValueError, match=r"memory as an integer >= 1"):
        ExpertFiles(saved, memory=0)
    with pytest.raises(ValueError, match=r"did you mean 'blocks\.0\.mlp'"):
        ExpertFiles(saved)("blocks.0.ml", 0)
    with pytest.raises(ValueError, match=r"expert in \[0, 5\]"):
        ExpertFiles(saved)("blocks.0.mlp", 6)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        ExpertFiles(tmp_path)
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        ExpertFiles(directory)
    with pytest.raises(ValueError, match=r"notes\.txt"):
        save_experts(directory, config=MIXLORA, state=whole.parameters())
    some = {name: array for name, array in whole.parameters().items() if "experts.3" not in name}
    with pytest.raises(ValueError, match=r"experts 0 to 5 of blocks.0.mlp; got experts \[0, 1, 2, 4, 5\]"):
        save_experts(tmp_path / "new", config=MIXLORA, state=some)
    assert not (tmp_path / "new").exists()
    wider = Llama(LlamaConfig(vocabulary=11, max_length=16, d_model=32, n_layers=2, n_heads=2, d_hidden=24))
    with pytest.raises(ValueError, match=r"router\.weight of shape|q_proj.*of shape"):
        ExpertFiles(saved).attach(wider)
    deeper = Llama(LlamaConfig(vocabulary=11, max_length=16, d_model=16, n_layers=3, n_heads=2, d_hidden=24))
    with pytest.raises(ValueError, match="layers of the model it was trained on"):
        ExpertFiles(saved).attach(deeper)


def test_an_interrupted_replacement_leaves_all_of_the_old_or_all_of_the_new(tmp_path, monkeypatch):
    config, model, replace, calls, seen = MixLoRAConfig(n_experts=2, k=1, r=1), plain(), os.replace, 0, set()
    apply_mixlora(model, config, rng=np.random.default_rng(0))
    old = {name: array.copy() for name, array in model.parameters().items()}

    def found(files):
        held = {f"{layer}.experts.{e}.{name}": array for layer in files.layers for e in range(2) for name, array in files(layer, e).items()}
        return files.shared | held

    def same(state, other):
        return state.keys() == other.keys() and all(np.array_equal(array, other[name]) for name, array in state.items())

    new = {name: array + 1 for name, array in old.items()}
    while True:
        calls += 1
        left, trial = [calls], save_experts(tmp_path / f"trial{calls}", config=config, state=old)

        def dies(*args, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return replace(*args)

        monkeypatch.setattr(os, "replace", dies)
        try:
            save_experts(trial, config=config, state=new)
            break
        except KeyboardInterrupt:
            pass
        finally:
            monkeypatch.setattr(os, "replace", replace)
        state = found(ExpertFiles(trial))
        seen.add(same(state, old))
        assert same(state, old) or same(state, new)
        save_experts(trial, config=config, state=old)
        assert same(found(ExpertFiles(trial)), old)
    assert seen == {True, False} and calls > 10


WORKER = """
import json, sys
import numpy as np
from pathlib import Path
from byhand.configs.llama import LlamaConfig
from byhand.finetuning.expert_files import ExpertFiles
from byhand.finetuning.memory_worker import _REFS, _peak
from numpy_impl.models.llama import Llama

directory, memory = sys.argv[1], int(sys.argv[2])
config = LlamaConfig(vocabulary=50, max_length=64, d_model=256, n_layers=2, n_heads=4, d_hidden=512)
model = Llama(config, rng=np.random.default_rng(0))
files = ExpertFiles(directory, memory=memory or None)
files.attach(model)
ids = np.random.default_rng(1).integers(0, 50, (1, 60))
_REFS.write_text("5")
before = _peak()
logits = model(ids)
print(json.dumps([logits.tobytes().hex(), _peak() - before, files.peak, files.loads]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux tells the peak")
def test_a_directory_larger_than_the_memory_allowed_stays_outside(tmp_path):
    config = MixLoRAConfig(n_experts=24, r=256)
    one, rng = 3 * 256 * (256 + 512) * 4, np.random.default_rng(2)
    model = Llama(LlamaConfig(vocabulary=50, max_length=64, d_model=256, n_layers=2, n_heads=4, d_hidden=512))
    apply_mixlora(model, config)
    for name, array in model.parameters().items():
        array[...] = rng.standard_normal(array.shape) * (1 if "router" in name else 0.02)
    save_experts(tmp_path / "adapter", config=config, state=model.parameters())

    def measured(memory):
        command = [sys.executable, "-c", WORKER, tmp_path / "adapter", str(memory)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(done.stdout)

    logits, peak, resident, loads = measured(0)
    assert resident == loads * one and loads > 20 and peak > 0.9 * resident        # more than 47 MB
    again, small_peak, small_resident, small_loads = measured(3 * one)
    assert again == logits and small_resident == 3 * one and small_loads == loads
    assert small_peak < 3 * one + (8 << 20) < 0.25 * peak
