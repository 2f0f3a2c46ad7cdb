"""Arrays that stay in their files: what they hold when they are read, and files that are no whole safetensors."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import save_file

from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.finetuning.base import open_base
from byhand.hugging_face.directory import load_hugging_face, save_hugging_face
from byhand.hugging_face.on_disk import OnDisk, open_arrays
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama


def test_every_dtype_comes_as_the_library_reads_it(tmp_path):
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]
    tensors = {str(dtype): torch.arange(-3, 3).to(dtype).reshape(2, 3) for dtype in dtypes}
    tensors["empty"], tensors["scalar"] = torch.zeros(0, 3), torch.tensor(2.5)
    save_file(tensors, tmp_path / "model.safetensors")
    found = open_arrays(tmp_path / "model.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        want = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        assert isinstance(found[name], OnDisk)
        assert found[name].shape == want.shape
        assert np.asarray(found[name]).dtype == want.dtype == found[name].dtype
        assert np.array_equal(np.asarray(found[name]), want)


@pytest.mark.parametrize("cut", [0, 4, 8, 30, 100, -1])
def test_a_file_that_is_cut_short_is_refused_before_anything_is_read(tmp_path, cut):
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"w": np.arange(100.0), "v": np.arange(10)}, file)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"load_hugging_face needs a .*safetensors"):
        open_arrays(file)


@pytest.mark.parametrize("shape", [[-1, -4], [2**70], [0, 2**70], [2**40, 2**40], [2.0, 2], ["4"], [True, 4], {"a": 4}, 4])
@pytest.mark.parametrize("end", [16, 16.0, -16])
def test_a_header_whose_sizes_are_none_is_refused_before_anything_is_read(tmp_path, shape, end):
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(ValueError, match=r"load_hugging_face needs a .*safetensors"):
        open_arrays(tmp_path / "model.safetensors")


def test_a_header_too_deep_to_read_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)
    with pytest.raises(ValueError, match=r"load_hugging_face needs a safetensors file"):
        open_arrays(tmp_path / "model.safetensors")


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_is_loaded_lazily_with_the_same_bits(tmp_path, tied):
    config = LlamaConfig(vocabulary=256, max_length=8, d_model=8, n_layers=2, n_heads=2, d_hidden=12, tied=tied)
    model = Llama(config, rng=np.random.default_rng(0))
    save_hugging_face(tmp_path, config, model.state_dict())
    _, state = load_hugging_face(tmp_path, lazily=True)
    assert all(isinstance(array, OnDisk) for array in state.values())
    other = Llama(config, rng=np.random.default_rng(1))
    other.load_state_dict(state)
    for name, array in model.state_dict().items():
        assert np.array_equal(other.state_dict()[name], array)
    assert isinstance(open_base(str(tmp_path)).state["norm.weight"], OnDisk)


def test_a_model_whose_arrays_are_cut_and_turned_is_read_at_once(tmp_path):
    config = GPT2Config(vocabulary=256, max_length=8, d_model=8, n_layers=1, n_heads=2)
    model = GPT2(config, rng=np.random.default_rng(0))
    save_hugging_face(tmp_path, config, model.state_dict())
    state = open_base(str(tmp_path)).state
    assert all(np.array_equal(state[name], array) for name, array in model.state_dict().items())
