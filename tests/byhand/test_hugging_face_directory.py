"""Directories of models: what transformers writes we read, what we write transformers reads, and what is no model is named."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.rope import RopeConfig
from byhand.hugging_face.directory import load_hugging_face, save_hugging_face
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama

transformers = pytest.importorskip("transformers")

LLAMA = LlamaConfig(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, n_kv_heads=1, d_hidden=20)
YARN = RopeConfig(width=4, type="yarn", factor=4.0, original_length=16)
CONFIGS = {
    "gpt2": GPT2Config(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, d_hidden=20, dropout=0.0),
    "llama": LLAMA,
    "llama, tied, biased, yarn": dataclasses.replace(LLAMA, tied=True, attention_bias=True, mlp_bias=True, rope=YARN, max_length=64),
    "mistral": dataclasses.replace(LLAMA, window=3),
    "qwen2": dataclasses.replace(LLAMA, attention_bias="qkv", tied=True),
    "qwen3": dataclasses.replace(LLAMA, qk_norm=True, head_width=6, rope=RopeConfig(width=6, base=1e6), window=5),
}
IDS = np.random.default_rng(0).integers(0, 11, (2, 9))


def theirs_of(config):
    """A random model of transformers with the sizes of a config of ours."""
    from byhand.hugging_face.gpt2 import gpt2_config_to_hugging_face
    from byhand.hugging_face.llama import llama_config_to_hugging_face

    write = gpt2_config_to_hugging_face if isinstance(config, GPT2Config) else llama_config_to_hugging_face
    values = write(config)
    cls = getattr(transformers, values["architectures"][0])
    torch.manual_seed(0)
    model = cls(cls.config_class(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def ours_from(path, config):
    found, state = load_hugging_face(path)
    assert found == config
    model = (GPT2 if isinstance(config, GPT2Config) else Llama)(found, dtype=np.float32)
    model.load_state_dict(state)
    return model


def logits(theirs):
    with torch.no_grad():
        return theirs(input_ids=torch.tensor(IDS)).logits.numpy()


@pytest.mark.parametrize("shard", [None, "2KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_transformers_saves_is_read(tmp_path, config, shard):
    theirs = theirs_of(config)
    theirs.save_pretrained(tmp_path, **({} if shard is None else {"max_shard_size": shard}))
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard is not None)
    np.testing.assert_allclose(ours_from(tmp_path, config)(IDS), logits(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_saved_transformers_reads(tmp_path, config):
    model = (GPT2 if isinstance(config, GPT2Config) else Llama)(config, rng=np.random.default_rng(0))
    for value in model.state_dict().values():
        value[...] = 0.3 * np.random.default_rng(value.size).standard_normal(value.shape)
    path = save_hugging_face(tmp_path / "new" / "directory", config, model.state_dict())
    theirs, told = transformers.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(told.values()), told
    assert next(theirs.parameters()).dtype == torch.float32
    np.testing.assert_allclose(model(IDS), logits(theirs), rtol=0, atol=1e-5)
    again = ours_from(path, config).state_dict()
    assert all(again[name].tobytes() == value.tobytes() for name, value in model.state_dict().items())


def test_bfloat16_comes_as_float32_of_the_same_value(tmp_path):
    theirs = theirs_of(LLAMA).bfloat16()
    theirs.save_pretrained(tmp_path)
    _, state = load_hugging_face(tmp_path)
    assert {str(array.dtype) for array in state.values()} == {"float32"}
    np.testing.assert_array_equal(state["head.weight"], theirs.lm_head.weight.detach().float().numpy())


@pytest.fixture
def saved(tmp_path):
    return save_hugging_face(tmp_path, LLAMA, Llama(LLAMA).state_dict())


def spoil_config(path, **changes):
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(values | changes))


def spoil_weights(path):
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:-1])


def only_pickled(path):
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def index(path, **places):
    (path / "model.safetensors").rename(path / "model-00001.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: (path / "config.json").unlink(), r"a file it can read; .*config.json: No such file"),
    (lambda path: (path / "config.json").write_text("{"), r"needs JSON in .*config.json"),
    (lambda path: (path / "config.json").write_text("[]"), r"names and values in .*config.json"),
    (lambda path: spoil_config(path, model_type="llma"), r"model_type from .*'llama'.*did you mean 'llama'"),
    (lambda path: spoil_config(path, num_hidden_layers=3), r"missing \['model.layers.2.input_layernorm.weight'"),
    (spoil_weights, r"a complete safetensors file; .*model.safetensors"),
    (only_pickled, r"a file it can read; .*model.safetensors: No such file.*pytorch_model.bin is there"),
    (lambda path: index(path, **{"lm_head.weight": "model-00002.safetensors"}), r"model-00002.safetensors: No such file"),
    (lambda path: index(path, **{"lm_haed.weight": "model-00001.safetensors"}), r"missing \['lm_haed.weight'\]"),
    (lambda path: index(path, **{"lm_head.weight": "../model-00001.safetensors"}), r"files beside"),
])
def test_what_is_no_model_is_named(saved, spoil, message):
    spoil(saved)
    with pytest.raises(ValueError, match=message):
        load_hugging_face(saved)


def test_what_cannot_be_saved_is_named(tmp_path):
    state = Llama(LLAMA).state_dict()
    with pytest.raises(ValueError, match="the config of a GPT-2 or a Llama"):
        save_hugging_face(tmp_path, {}, state)
    with pytest.raises(ValueError, match="arrays of one dtype"):
        save_hugging_face(tmp_path, LLAMA, state | {"norm.weight": np.ones(12)})
    with pytest.raises(ValueError, match=r"missing \['norm.weight'\]"):
        save_hugging_face(tmp_path, LLAMA, {name: value for name, value in state.items() if name != "norm.weight"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("change", "message"), [
    (dict(n_embd=None), "a value for n_embd"),
    (dict(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx from False"),
    (dict(tie_word_embeddings=False), "tie_word_embeddings from True"),
    (dict(attn_pdrop=0.2), "one dropout for all places"),
    (dict(activation_function="gelu_nwe"), "did you mean 'gelu_new'"),
])
def test_a_gpt2_that_ours_is_not_is_refused(tmp_path, change, message):
    save_hugging_face(tmp_path, CONFIGS["gpt2"], GPT2(CONFIGS["gpt2"]).state_dict())
    spoil_config(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        load_hugging_face(tmp_path)
