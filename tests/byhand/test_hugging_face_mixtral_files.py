"""Files of mixtures of experts: every bit of transformers' and of ours, experts that are read alone, and what is refused."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import save_file

from byhand.hugging_face.combined import Stacked
from byhand.hugging_face.directory import hugging_face_kind, load_hugging_face, save_hugging_face
from byhand.hugging_face.mixtral import mixtral_from_hugging_face, mixtral_to_hugging_face
from byhand.hugging_face.mixtral_config import MIXTRAL_TYPES, mixtral_config_to_hugging_face
from byhand.hugging_face.on_disk import OnDisk, open_arrays
from numpy_impl.models.mixtral import Mixtral
from tests.byhand.mixtral_models import CONFIGS, LAST, QWEN2, QWEN3, TINY, arrays, theirs_of

transformers = pytest.importorskip("transformers")

models = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
three = pytest.mark.parametrize("config", [TINY, QWEN2, QWEN3], ids=MIXTRAL_TYPES)


@pytest.mark.parametrize("shard", [None, "2KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("lazily", [False, True], ids=["at once", "lazily"])
@three
def test_files_of_transformers_are_read_and_written_bit_for_bit(tmp_path, config, lazily, shard):
    theirs = theirs_of(config)
    theirs.save_pretrained(tmp_path / "theirs", **({} if shard is None else {"max_shard_size": shard}))
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists() == (shard is not None)
    assert hugging_face_kind(tmp_path / "theirs") == "Mixtral"
    found, state = load_hugging_face(tmp_path / "theirs", lazily=lazily)
    assert found == config
    assert {type(array) for array in state.values()} == ({OnDisk, Stacked} if lazily else {np.ndarray})
    model = Mixtral(config)
    model.load_state_dict(state)
    for name, want in mixtral_from_hugging_face(arrays(theirs.state_dict()), config).items():
        assert model.state_dict()[name].tobytes() == want.tobytes(), name

    ours = save_hugging_face(tmp_path / "ours", found, state if lazily else model.state_dict())
    written, read = safetensors.numpy.load_file(ours / "model.safetensors"), {}
    for file in (tmp_path / "theirs").glob("*.safetensors"):
        read |= safetensors.numpy.load_file(file)
    assert written.keys() == read.keys()
    assert all(array.tobytes() == read[name].tobytes() for name, array in written.items())
    again, told = type(theirs).from_pretrained(ours, output_loading_info=True, local_files_only=True)
    assert not any(told.values()), told
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("lazily", [False, True], ids=["at once", "lazily"])
@three
def test_the_stacks_of_transformers_5_are_read_from_a_file_too(tmp_path, config, lazily):
    theirs = theirs_of(config)
    state = arrays(theirs.state_dict())
    assert state["model.layers.2.mlp.experts.gate_up_proj"].shape == (5, 2 * config.d_expert, 24)
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(mixtral_config_to_hugging_face(config)))
    _, found = load_hugging_face(tmp_path, lazily=lazily)
    theirs.save_pretrained(tmp_path / "apart")
    for name, want in load_hugging_face(tmp_path / "apart")[1].items():
        assert np.asarray(found[name]).tobytes() == want.tobytes(), name
    if lazily:
        stack = found["blocks.2.mlp.experts.up_proj"]
        assert isinstance(stack[3], OnDisk) and np.array_equal(stack[3], np.asarray(stack)[3])


@three
def test_names_without_the_prefix_of_a_causal_model_are_read_too(config):
    state = arrays(theirs_of(dataclasses.replace(config, tied=True)).model.state_dict())
    assert "embed_tokens.weight" in state
    found = mixtral_from_hugging_face(state, dataclasses.replace(config, tied=True))
    assert found.keys() == Mixtral(dataclasses.replace(config, tied=True)).state_dict().keys()


def test_bfloat16_comes_as_float32_of_the_same_value(tmp_path):
    theirs = theirs_of(TINY).bfloat16()
    theirs.save_pretrained(tmp_path)
    state = load_hugging_face(tmp_path)[1]
    assert {str(array.dtype) for array in state.values()} == {"float32"}
    assert np.array_equal(state["blocks.1.mlp.experts.down_proj"], theirs.model.layers[1].mlp.experts.down_proj.detach().float().numpy())


@pytest.mark.parametrize("lazily", [False, True], ids=["at once", "lazily"])
def test_experts_never_stand_twice_in_memory(tmp_path, lazily):
    """One stack, and one expert of it that is just read, besides the model; of files read lazily nothing at all before that."""
    config = dataclasses.replace(TINY, d_model=120, d_hidden=1000, n_experts=16, n_layers=2)
    model = Mixtral(config)
    save_hugging_face(tmp_path, config, model.state_dict())
    whole = sum(array.nbytes for array in model.state_dict().values())
    expert = 4 * 120 * 1000
    stack, slack = 16 * expert, 300_000                         # slack: the names and headers, and what is no expert
    tracemalloc.start()
    try:
        _, state = load_hugging_face(tmp_path, lazily=lazily)
        opened = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        model.load_state_dict(state)
        loaded = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert opened < (slack if lazily else whole + expert + slack)
    assert loaded < (stack + expert if lazily else 0) + slack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_rows_of_an_array_on_disk_are_read_alone(tmp_path, dtype):
    tensor = torch.arange(24).to(dtype).reshape(4, 3, 2)
    save_file({"before": torch.ones(5), "w": tensor}, tmp_path / "model.safetensors")
    array, want = open_arrays(tmp_path / "model.safetensors")["w"], (tensor.float() if dtype == torch.bfloat16 else tensor).numpy()
    for rows in (0, -1, slice(1, 3), slice(2, None), slice(3, 3)):
        assert isinstance(array[rows], OnDisk) and array[rows].shape == want[rows].shape
        assert np.array_equal(array[rows], want[rows])
    assert np.array_equal(array[2][1:], want[2][1:])
    for part in (lambda a: a[::2], lambda a: a[1].T, lambda a: a[..., 1:], lambda a: a.T[1:, 2]):
        assert isinstance(part(array), OnDisk) and part(array).shape == part(want).shape and np.array_equal(part(array), part(want))
    for rows in (4, (0, 3), (0, 0, 0, 0)):
        with pytest.raises(IndexError):
            array[rows]
    mixed = Stacked([array[0], np.full((3, 2), 0.5)])
    assert mixed.dtype == np.float64 and np.array_equal(mixed, np.stack([want[0], np.full((3, 2), 0.5)]))


def drop(name):
    return lambda state: state.pop(name)


@pytest.mark.parametrize(("config", "change", "message"), [
    (TINY, drop(f"model.layers.1.{LAST['mixtral']}"), rf"missing \['model.layers.1.{LAST['mixtral']}'\], unknown \[\]"),
    (QWEN2, drop(f"model.layers.2.{LAST['qwen2_moe']}"), rf"missing \['model.layers.2.{LAST['qwen2_moe']}'\], unknown \[\]"),
    (QWEN2, drop("model.layers.0.mlp.shared_expert_gate.weight"), r"missing \['model.layers.0.mlp.shared_expert_gate.weight'\]"),
    (TINY, lambda s: s.update({"model.layers.0.block_sparse_moe.experts.5.w1.weight": s["lm_head.weight"]}), r"unknown \['.*experts.5.w1"),
    (TINY, lambda s: s.update({f"model.layers.1.{LAST['mixtral']}": np.ones((24, 19), np.float32)}),
     rf"needs model.layers.1.{LAST['mixtral']} of shape \(24, 20\); got .*\(24, 19\)"),
    (QWEN3, lambda s: s.update({"model.layers.1.mlp.experts.0.up_proj.weight": np.ones((24, 10), np.float32)}),
     r"needs model.layers.1.mlp.experts.0.up_proj.weight of shape \(10, 24\); got .*\(24, 10\)"),
])
def test_what_is_no_model_of_the_config_is_refused(tmp_path, config, change, message):
    path = save_hugging_face(tmp_path, config, Mixtral(config).state_dict())
    state = safetensors.numpy.load_file(path / "model.safetensors")
    change(state)
    safetensors.numpy.save_file(state, path / "model.safetensors")
    for lazily in (False, True):
        with pytest.raises(ValueError, match=message):
            load_hugging_face(path, lazily=lazily)


def test_a_stack_of_another_shape_and_a_missing_file_are_named(tmp_path):
    theirs = theirs_of(TINY)
    state = arrays(theirs.state_dict())
    with pytest.raises(ValueError, match=r"needs model.layers.0.mlp.experts.gate_up_proj of shape \(5, 40, 24\); got .*\(4, 40, 24\)"):
        mixtral_from_hugging_face(state | {"model.layers.0.mlp.experts.gate_up_proj": np.ones((4, 40, 24))}, TINY)
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    lost = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"][f"model.layers.1.{LAST['mixtral']}"]
    (tmp_path / lost).unlink()
    with pytest.raises(ValueError, match=f"a directory without {lost}"):
        load_hugging_face(tmp_path, lazily=True)


@pytest.mark.parametrize(("change", "message"), [
    (drop("blocks.1.mlp.experts.up_proj"), r"names of our Mixtral of this config; missing \['blocks.1.mlp.experts.up_proj'\]"),
    (lambda state: state.update({"blocks.1.mlp.experts.up_proj": np.ones((6, 20, 24))}), r"up_proj of shape \(5, 20, 24\); got .*\(6, 20"),
])
def test_what_is_not_ours_is_refused(change, message):
    state = Mixtral(TINY).state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        mixtral_to_hugging_face(state, TINY)


