"""Every family of models: a directory that transformers wrote, loaded on both sides of ours, and one of ours, loaded by transformers."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import load_file, save_file

from byhand.hugging_face.directory import hugging_face_kind, load_hugging_face, save_hugging_face
from byhand.model_source import open_model
from tests.byhand.hugging_face_models import (
    IDS,
    MODELS,
    close,
    logits,
    logits_and_gradients,
    our_logits,
    our_logits_and_gradients,
    ours_of,
    read_by_transformers,
    theirs_of,
)

transformers = pytest.importorskip("transformers")

models = pytest.mark.parametrize(("kind", "config"), MODELS.values(), ids=MODELS)
SAVED = {"one file": {}, "shards": {"max_shard_size": "2KB"}}


def same_as_theirs(path, kind, config, theirs):
    """The directory is what it was, and on both sides ours compute what transformers' model does."""
    assert hugging_face_kind(path) == kind
    assert load_hugging_face(path)[0] == config
    want, wanted = logits_and_gradients(theirs, kind, config)
    for side in ("numpy", "torch"):
        model = open_model(str(path), side=side).model
        found, grads = our_logits_and_gradients(model)
        close(found, want, side)
        assert grads.keys() == wanted.keys()
        for name, grad in grads.items():
            close(grad, wanted[name], f"{side}, {name}")
    # what the scores do not depend on has no gradient: a key's bias adds the same to all scores of a query
    assert all(np.abs(grad).max() > 1e-6 or "k_proj.bias" in name for name, grad in wanted.items())


@pytest.mark.parametrize("shard", SAVED.values(), ids=SAVED)
@models
def test_what_transformers_saves_computes_the_same_and_has_the_same_gradients(tmp_path, kind, config, shard):
    theirs = theirs_of(kind, config)
    theirs.save_pretrained(tmp_path, **shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == bool(shard)
    same_as_theirs(tmp_path, kind, config, theirs)


@models
def test_bfloat16_is_read_as_the_numbers_it_holds(tmp_path, kind, config):
    theirs_of(kind, config).bfloat16().save_pretrained(tmp_path)
    same_as_theirs(tmp_path, kind, config, read_by_transformers(tmp_path)[0])           # the angles of the one that was saved are cut too


def test_a_file_of_several_dtypes_is_read(tmp_path):
    kind, config = MODELS["gpt2"]
    theirs = theirs_of(kind, config)
    theirs.save_pretrained(tmp_path)
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    state = {name: tensor.to(dtypes[i % 4]) for i, (name, tensor) in enumerate(load_file(tmp_path / "model.safetensors").items())}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    theirs.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    found = {str(array.dtype) for array in load_hugging_face(tmp_path)[1].values()}
    assert found == {"float16", "float32", "float64"}
    same_as_theirs(tmp_path, kind, config, theirs)


@pytest.mark.parametrize("max_shard", [None, 2000], ids=SAVED)
@models
def test_what_is_saved_transformers_reads(tmp_path, kind, config, max_shard):
    model = ours_of(kind, config)
    path = save_hugging_face(tmp_path / "new" / "directory", config, model.state_dict(), kind=kind, max_shard=max_shard)
    assert (path / "model.safetensors").exists() == (max_shard is None)
    theirs, told = read_by_transformers(path)
    if kind == "Bert" and config.segments:                                              # ours has no pooler, and nothing here reads theirs
        assert set(told.pop("missing_keys")) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not any(told.values()), told
    np.testing.assert_allclose(our_logits(model), logits(theirs), rtol=0, atol=1e-5)
    found, again = load_hugging_face(path)
    assert found == config
    assert all(again[name].tobytes() == value.tobytes() for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("kind", "config"), [MODELS[name] for name in ("gpt2", "qwen3", "mixtral", "distilbert", "t5 v1.1")])
def test_half_precision_is_saved_as_both_read_it(tmp_path, kind, config, dtype):
    path = save_hugging_face(tmp_path, config, ours_of(kind, config).state_dict(), kind=kind, dtype=dtype)
    assert {str(tensor.dtype) for tensor in load_file(path / "model.safetensors").values()} == {f"torch.{dtype}"}
    theirs, _ = read_by_transformers(path)
    np.testing.assert_allclose(our_logits(open_model(str(path)).model), logits(theirs), rtol=0, atol=1e-5)


@models
def test_nothing_is_written_twice(tmp_path, kind, config):
    state = ours_of(kind, config).state_dict()
    path = save_hugging_face(tmp_path, config, state, kind=kind)
    written = safetensors.numpy.load_file(path / "model.safetensors")
    assert sum(array.size for array in written.values()) == sum(array.size for array in state.values())


@models
def test_configs_of_both_versions_are_read(tmp_path, kind, config):
    """transformers 5 writes dtype and rope_parameters; what ours writes has the names of version 4, rope_theta and rope_scaling, too."""
    path = save_hugging_face(tmp_path, config, ours_of(kind, config).state_dict(), kind=kind)
    ours = json.loads((path / "config.json").read_text())
    assert ours["dtype"] == ours["torch_dtype"] == "float32"
    theirs, _ = read_by_transformers(path)
    theirs.config.save_pretrained(tmp_path)
    assert "torch_dtype" not in json.loads((path / "config.json").read_text())
    assert load_hugging_face(path)[0] == config
    if "rope_theta" in ours:
        assert "rope_parameters" not in ours and "rope_parameters" in json.loads((path / "config.json").read_text())


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "mixtral", "distilbert, masked", "t5"])
def test_a_model_of_any_dtype_is_opened_on_either_side(tmp_path, name):
    kind, config = MODELS[name]
    path = save_hugging_face(tmp_path, config, ours_of(kind, config).state_dict(), kind=kind, dtype="bfloat16")
    one = open_model(str(path), dtype="float64").model
    other = open_model(str(path), side="torch", dtype="float64").model
    assert {str(value.dtype) for value in one.state_dict().values()} == {"float64"}
    assert {str(value.dtype) for value in other.state_dict().values()} == {"torch.float64"}
    np.testing.assert_allclose(our_logits_and_gradients(other)[0], our_logits(one), rtol=0, atol=1e-12)
    half = open_model(str(path), side="torch", dtype="bfloat16").model
    state = one.state_dict()
    assert all(np.array_equal(tensor.double().numpy(), state[name]) for name, tensor in half.state_dict().items())


def test_padding_is_left_out_by_distilbert_as_by_ours(tmp_path):
    kind, config = MODELS["distilbert, tokens"]
    theirs = theirs_of(kind, config)
    theirs.save_pretrained(tmp_path)
    mask = np.arange(9) < np.array([[9], [4]])
    with torch.no_grad():
        want = theirs(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(mask).long()).logits.numpy()
    np.testing.assert_allclose(open_model(str(tmp_path)).model(IDS, mask=mask)[mask], want[mask], rtol=0, atol=1e-5)
