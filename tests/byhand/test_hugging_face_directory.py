"""Directories of models: what transformers writes we read, what we write transformers reads, and what is no model is named."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
import torch

from byhand.configs.bert import BertConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.rope import RopeConfig
from byhand.configs.t5 import T5Config
from byhand.hugging_face.bert import BERT_TYPES, bert_config_to_hugging_face
from byhand.hugging_face.directory import hugging_face_kind, load_hugging_face, save_hugging_face
from byhand.hugging_face.gpt2 import gpt2_config_to_hugging_face
from byhand.hugging_face.llama import llama_config_to_hugging_face
from byhand.hugging_face.t5 import t5_config_to_hugging_face
from numpy_impl.models import bert
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama
from numpy_impl.models.t5 import T5

transformers = pytest.importorskip("transformers")

LLAMA = LlamaConfig(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, n_kv_heads=1, d_hidden=20)
YARN = RopeConfig(width=4, type="yarn", factor=4.0, original_length=16)
BERT = BertConfig(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, d_hidden=20, padding=2, classes=4, dropout=0.0)
T5_1_0 = T5Config(vocabulary=11, d_model=12, n_heads=3, encoder_layers=2, decoder_layers=3, d_hidden=20, head_width=5, buckets=8,
                  max_distance=6, start=3, dropout=0.0)
CLASSES = {"GPT2": GPT2, "Llama": Llama, "T5": T5} | {kind: getattr(bert, kind) for kind in BERT_TYPES}
# what it is: our class, its config
MODELS = {
    "gpt2": ("GPT2", GPT2Config(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, d_hidden=20, dropout=0.0)),
    "llama": ("Llama", LLAMA),
    "llama, tied, biased, yarn": (
        "Llama", dataclasses.replace(LLAMA, tied=True, attention_bias=True, mlp_bias=True, rope=YARN, max_length=64)
    ),
    "mistral": ("Llama", dataclasses.replace(LLAMA, window=3)),
    "qwen2": ("Llama", dataclasses.replace(LLAMA, attention_bias="qkv", tied=True)),
    "qwen3": ("Llama", dataclasses.replace(LLAMA, qk_norm=True, head_width=6, rope=RopeConfig(width=6, base=1e6), window=5)),
    "bert": ("Bert", BERT),
    "bert, masked": ("BertMaskedLM", BERT),
    "bert, sequences": ("BertSequenceClassifier", BERT),
    "bert, tokens": ("BertTokenClassifier", dataclasses.replace(BERT, classes=3, padding=None, activation="gelu_tanh")),
    "t5": ("T5", T5_1_0),
    "t5 v1.1": ("T5", dataclasses.replace(T5_1_0, activation="geglu_tanh", tied=False)),
}
models = pytest.mark.parametrize(("kind", "config"), MODELS.values(), ids=MODELS)
IDS = np.random.default_rng(0).integers(0, 11, (2, 9))
TARGET = np.random.default_rng(1).integers(0, 11, (2, 7))


def theirs_of(kind, config):
    """A random model of transformers with the sizes of a config of ours."""
    if isinstance(config, BertConfig):
        values = bert_config_to_hugging_face(config, kind)
    else:
        write = {GPT2Config: gpt2_config_to_hugging_face, LlamaConfig: llama_config_to_hugging_face, T5Config: t5_config_to_hugging_face}
        values = write[type(config)](config)
    cls = getattr(transformers, values["architectures"][0])
    model = cls(cls.config_class(**values)).eval()
    if kind == "T5" and not config.tied:  # version 5 of transformers ties a new head whatever the config says
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.shared.weight))
    return shaken(model)


def shaken(theirs):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    return theirs


def ours_from(path, kind, config):
    assert hugging_face_kind(path) == kind
    found, state = load_hugging_face(path)
    assert found == config
    model = CLASSES[kind](found, dtype=np.float32)
    model.load_state_dict(state)
    return model


def logits(theirs):
    """Of an encoder without a head, its states."""
    target = dict(decoder_input_ids=torch.tensor(TARGET)) if theirs.config.is_encoder_decoder else {}
    with torch.no_grad():
        return theirs(input_ids=torch.tensor(IDS), **target)[0].numpy()


def our_logits(model):
    return model(IDS, TARGET) if isinstance(model, T5) else model(IDS)


@pytest.mark.parametrize("shard", [None, "2KB"], ids=["one file", "shards"])
@models
def test_what_transformers_saves_is_read(tmp_path, kind, config, shard):
    theirs = theirs_of(kind, config)
    theirs.save_pretrained(tmp_path, **({} if shard is None else {"max_shard_size": shard}))
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard is not None)
    np.testing.assert_allclose(our_logits(ours_from(tmp_path, kind, config)), logits(theirs), rtol=0, atol=1e-5)


@models
def test_what_is_saved_transformers_reads(tmp_path, kind, config):
    model = CLASSES[kind](config, rng=np.random.default_rng(0))
    for value in model.state_dict().values():
        value[...] = 0.3 * np.random.default_rng(value.size).standard_normal(value.shape)
    path = save_hugging_face(tmp_path / "new" / "directory", config, model.state_dict(), kind=kind)
    cls = getattr(transformers, json.loads((path / "config.json").read_text())["architectures"][0])
    theirs, told = cls.from_pretrained(path, output_loading_info=True, local_files_only=True)
    if kind == "Bert":                                                                  # ours has no pooler, and nothing here reads theirs
        assert set(told.pop("missing_keys")) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not any(told.values()), told
    assert next(theirs.parameters()).dtype == torch.float32
    np.testing.assert_allclose(our_logits(model), logits(theirs), rtol=0, atol=1e-5)
    again = ours_from(path, kind, config).state_dict()
    assert all(again[name].tobytes() == value.tobytes() for name, value in model.state_dict().items())


@models
def test_nothing_is_written_twice(tmp_path, kind, config):
    state = CLASSES[kind](config).state_dict()
    path = save_hugging_face(tmp_path, config, state, kind=kind)
    written = safetensors.numpy.load_file(path / "model.safetensors")
    assert sum(array.size for array in written.values()) == sum(array.size for array in state.values())


def test_the_kind_of_a_bert_may_be_asked_for(tmp_path):
    """Files of pre-training serve the masked language model, those of every BERT its encoder."""
    theirs = shaken(transformers.BertForPreTraining(transformers.BertConfig(**bert_config_to_hugging_face(BERT))).eval())
    theirs.save_pretrained(tmp_path)
    np.testing.assert_allclose(ours_from(tmp_path, "BertMaskedLM", BERT)(IDS), logits(theirs), rtol=0, atol=1e-5)
    encoder = bert.Bert(BERT)
    encoder.load_state_dict(load_hugging_face(tmp_path, kind="Bert")[1])
    np.testing.assert_allclose(encoder(IDS), logits(theirs.bert), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"names of a BertForTokenClassification .*missing \['classifier.bias', 'classifier.weight'\]"):
        load_hugging_face(tmp_path, kind="BertTokenClassifier")
    with pytest.raises(ValueError, match="did you mean 'BertTokenClassifier'"):
        load_hugging_face(tmp_path, kind="BertTokenClasifier")
    spoil_config(tmp_path, architectures=None)                                          # as in files older than this entry
    assert hugging_face_kind(tmp_path) == "Bert" and not any(name.startswith("bert.") for name in load_hugging_face(tmp_path)[1])


@pytest.mark.parametrize(("architectures", "message"), [
    (["BertForQuestionAnswering"], "architectures from 'BertModel', .*'BertForQuestionAnswering'"),
    (["BertModel", "BertForMaskedLM"], "one name as architectures"),
    ("BertModel", "one name as architectures"),
    ([{}], "one name as architectures"),
])
def test_a_bert_of_another_head_is_refused(tmp_path, architectures, message):
    save_hugging_face(tmp_path, BERT, bert.BertMaskedLM(BERT).state_dict())
    spoil_config(tmp_path, architectures=architectures)
    for read in (hugging_face_kind, load_hugging_face):
        with pytest.raises(ValueError, match=message):
            read(tmp_path)


def test_a_new_t5_of_version_1_1_that_transformers_has_tied_is_read(tmp_path):
    """It scales nothing, and its file has no head: version 5 of transformers ties what is new and leaves out what is tied."""
    config = MODELS["t5 v1.1"][1]
    cls = transformers.T5ForConditionalGeneration
    theirs = shaken(cls(transformers.T5Config(**t5_config_to_hugging_face(config))).eval())
    if theirs.lm_head.weight is not theirs.shared.weight:
        pytest.skip("this version of transformers does not tie it")
    theirs.save_pretrained(tmp_path)
    ours = ours_from(tmp_path, "T5", config)
    np.testing.assert_allclose(our_logits(ours), logits(theirs), rtol=0, atol=1e-5)
    path = save_hugging_face(tmp_path / "again", config, ours.state_dict())
    np.testing.assert_allclose(our_logits(ours), logits(cls.from_pretrained(path, local_files_only=True)), rtol=0, atol=1e-5)


def test_bfloat16_comes_as_float32_of_the_same_value(tmp_path):
    theirs = theirs_of("Llama", LLAMA).bfloat16()
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
    with pytest.raises(ValueError, match="the config of a GPT-2, Llama, Mixtral, BERT or T5"):
        save_hugging_face(tmp_path, {}, state)
    with pytest.raises(ValueError, match="arrays of one dtype"):
        save_hugging_face(tmp_path, LLAMA, state | {"norm.weight": np.ones(12)})
    with pytest.raises(ValueError, match=r"missing \['norm.weight'\]"):
        save_hugging_face(tmp_path, LLAMA, {name: value for name, value in state.items() if name != "norm.weight"})
    with pytest.raises(ValueError, match="kind from 'Llama'; got kind='BertMaskedLM'"):
        save_hugging_face(tmp_path, LLAMA, state, kind="BertMaskedLM")
    with pytest.raises(ValueError, match="names of our BertMaskedLM; missing"):
        save_hugging_face(tmp_path, BERT, bert.BertTokenClassifier(BERT).state_dict())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("change", "message"), [
    (dict(n_embd=None), "a value for n_embd"),
    (dict(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx from False"),
    (dict(tie_word_embeddings=False), "tie_word_embeddings from True"),
    (dict(attn_pdrop=0.2), "one dropout for all places"),
    (dict(activation_function="gelu_nwe"), "did you mean 'gelu_new'"),
])
def test_a_gpt2_that_ours_is_not_is_refused(tmp_path, change, message):
    config = MODELS["gpt2"][1]
    save_hugging_face(tmp_path, config, GPT2(config).state_dict())
    spoil_config(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        load_hugging_face(tmp_path)
