"""What is no model of the hub's, or not a safe one, is named before anything is read or built."""

import json
import os
import pickle

import numpy as np
import pytest
import safetensors.numpy

from byhand.configs.bert import BertConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.finetuning.base import open_base
from byhand.hugging_face import directory
from byhand.hugging_face.directory import generation_config_in, load_hugging_face, save_hugging_face
from byhand.hugging_face.on_disk import OnDisk
from byhand.hugging_face.shapes import demand_shapes
from byhand.model_source import open_model
from numpy_impl.models.llama import Llama
from tests.byhand.hugging_face_models import BERT, DISTILBERT, LLAMA, MODELS, class_of


@pytest.fixture
def saved(tmp_path):
    return save_hugging_face(tmp_path / "model", LLAMA, Llama(LLAMA).state_dict())


@pytest.fixture(autouse=True)
def _nothing_is_read(monkeypatch):
    """Whatever is refused is refused before an array is read."""
    def refuse(*_):
        raise AssertionError("an array was read")

    monkeypatch.setattr(OnDisk, "_mapped", refuse)


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was loaded')",)


def spoil_config(path, **changes):
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(values | changes))


def arrays(path, **changes):
    state = safetensors.numpy.load_file(path / "model.safetensors")
    for name, change in changes.items():
        state[name.replace("__", ".")] = change(state[name.replace("__", ".")])
    safetensors.numpy.save_file(state, path / "model.safetensors")


def cut(path, length):
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:length])


def index(path, **places):
    (path / "model.safetensors").rename(path / "model-00001.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def only_pickled(path, name="pytorch_model.bin"):
    (path / "model.safetensors").unlink()
    (path / name).write_bytes(pickle.dumps(Trap()))


def pickle_in_disguise(path):
    (path / "model.safetensors").write_bytes(pickle.dumps(Trap(), protocol=4))


def header(path, change, behind=b""):
    """What the file says of its arrays is changed, what they are is not."""
    file = path / "model.safetensors"
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    text = change(whole[8 : 8 + length].decode()).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :] + behind)


def twice(text):
    told = json.dumps(json.loads(text)["model.norm.weight"])
    return text.rstrip()[:-1] + f', "model.norm.weight": {told}}}'


def moved(text, name="model.norm.weight", other="model.layers.0.input_layernorm.weight"):
    """One array lies where another does."""
    entries = json.loads(text)
    entries[name]["data_offsets"] = entries[other]["data_offsets"]
    return json.dumps(entries)


def shards(path, **more):
    """Two of them, the second one with arrays that the index does not tell of."""
    (path / "model.safetensors").rename(path / "one.safetensors")
    own = safetensors.numpy.load_file(path / "one.safetensors")
    two = {name.replace("__", "."): own["model.norm.weight"] for name in more} | {"spare": np.ones(1)}
    safetensors.numpy.save_file(two, path / "two.safetensors")
    places = dict.fromkeys(own, "one.safetensors") | {"spare": "two.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def waiting(path):
    """A pipe that no one writes to."""
    (path / "model.safetensors").unlink()
    os.mkfifo(path / "model.safetensors")


def circle(path):
    index(path, lm_head="two.safetensors")
    (path / "two.safetensors").symlink_to("two.safetensors")


def linked(path, name):
    """The file lies elsewhere."""
    away = path.parent / "away"
    away.mkdir()
    (path / name).rename(away / name)
    (path / name).symlink_to(away / name)


def linked_shard(path):
    index(path, lm_head="model-00001.safetensors")
    linked(path, "model-00001.safetensors")


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: (path / "config.json").write_text("{"), r"needs JSON in .*config.json"),
    (lambda path: (path / "config.json").write_text("[" * 100_000), r"needs JSON in .*config.json"),
    (lambda path: (path / "config.json").write_text("[]"), r"names and values in .*config.json"),
    (lambda path: (path / "config.json").write_text("3"), r"names and values in .*config.json"),
    (lambda path: spoil_config(path, model_type="llma"), r"model_type from .*'llama'.*config.json; got 'llma' \(did you mean 'llama'"),
    (lambda path: spoil_config(path, model_type="mamba", architectures=["MambaForCausalLM"]),
     r"model_type from 'bert', 'distilbert', 'gpt2', 'llama', 'mistral', 'mixtral', 'qwen2', .* 't5' in .*model/config.json; got 'mamba', "
     r"architectures \['MambaForCausalLM'\]"),
    (lambda path: spoil_config(path, model_type=["llama"]), r"model_type from .*got \['llama'\]"),
    (lambda path: spoil_config(path, quantization_config={"bits": 4}), r"weights in floats .*got quantization_config"),
    (lambda path: spoil_config(path, num_hidden_layers=3), r"missing \['model.layers.2.input_layernorm.weight'"),
    (lambda path: spoil_config(path, num_hidden_layers=1), r"unknown \['model.layers.1.input_layernorm.weight'"),
    (lambda path: spoil_config(path, num_hidden_layers=50), r"'model.layers.\d+.\S+'\] and \d\d\d more"),
    (lambda path: cut(path, -1), r"a complete safetensors file in .*model.safetensors, which should hold"),
    (lambda path: cut(path, 4), r"a complete safetensors file in .*model.safetensors; got 4 bytes"),
    (lambda path: cut(path, 0), r"a complete safetensors file in .*model.safetensors; got 0 bytes"),
    (only_pickled, r"safetensors files; .*pytorch_model.bin is a pickle, which is never read.*\n *import transformers\n *transformers."
     r"LlamaForCausalLM.from_pretrained\(\".*model\"\).save_pretrained\(\".*model-safetensors\"\)"),
    (lambda path: only_pickled(path, "pytorch_model.bin.index.json"), r"is a pickle, which is never read"),
    (lambda path: only_pickled(path, "weights.pt"), r"weights.pt is a pickle, which is never read"),
    (lambda path: only_pickled(path, "model.pkl"), r"model.pkl is a pickle, which is never read"),
    (pickle_in_disguise, r"a complete safetensors file in .*model.safetensors; got a pickle, which is never read"),
    (lambda path: (path / "model.safetensors").rename(path / "lora.safetensors"), r"model.safetensors, or shards with .*only lora"),
    (lambda path: index(path, **{"lm_head.weight": "model-00002.safetensors"}),
     r"every shard that .*index.json lists, 1 files; got a directory without model-00002.safetensors"),
    (lambda path: index(path, **{"lm_haed.weight": "model-00001.safetensors"}), r"every array that .*no lm_haed.weight in model-00001"),
    (lambda path: index(path), r"a weight_map in .*index.json"),
    (lambda path: index(path, **{"lm_head.weight": 3}), r"a weight_map in .*index.json"),
    (lambda path: index(path, **{"lm_head.weight": "../model-00001.safetensors"}), r"files beside each other in .*got '../model-00001"),
    (lambda path: index(path, **{"lm_head.weight": "/etc/model.safetensors"}), r"files beside each other in .*got '/etc/model"),
    (lambda path: index(path, **{"lm_head.weight": "sub/model.safetensors"}), r"files beside each other in .*got 'sub/model"),
    (lambda path: index(path, **{"lm_head.weight": "pytorch_model.bin"}), r"pytorch_model.bin is a pickle, which is never read"),
    (lambda path: index(path, **{"lm_head.weight": "config.json"}), r"safetensors files in .*got file 'config.json'"),
    (linked_shard, r"files beside each other in .*or in the blobs of a hub cache; got 'model-00001.safetensors', which is .*away"),
    (lambda path: linked(path, "model.safetensors"), r"files beside each other in .*got 'model.safetensors', which is .*away"),
    (lambda path: linked(path, "config.json"), r"files beside each other in .*got 'config.json', which is .*away"),
    (lambda path: arrays(path, model__layers__1__mlp__up_proj__weight=lambda a: a[:, :-1].copy()),
     r"blocks.1.mlp.up_proj.weight of shape \(20, 12\); got shape \(20, 11\), from model.layers.1.mlp.up_proj.weight in .*safetensors"),
    (lambda path: header(path, str, b"more"), r"one behind the other, and nothing else; got the end of the file at byte"),
    (lambda path: header(path, moved), r"one behind the other, and nothing else; got model"),
    (lambda path: header(path, twice), r"'model.norm.weight' is there twice"),
    (waiting, r"a file on a disk, no pipe or device"),
    (circle, r"needs names of files in .*'two.safetensors'"),
    (lambda path: index(path, lm_head="a\0.safetensors"), r"needs names of files in .*null byte"),
    (lambda path: index(path, lm_head="a" * 300 + ".safetensors"), r"needs names of files in .*'a+': .*too long"),
    (lambda path: shards(path, model__norm__weight=1), r"in one of the files .*; got model.norm.weight in one.safetensors and in two.s"),
    (lambda path: shards(path, norm__weight=1), r"one array for model.norm.weight; got 'model.norm.weight' and 'norm.weight'"),
    (lambda path: spoil_config(path, num_hidden_layers=10**12), r"config.json of at most 100,000 layers.*got num_hidden_layers 1000000000"),
    (lambda path: spoil_config(path, num_hidden_layers=10**4, num_experts=11), r"config.json of at most 100,000 layers"),
    (lambda path: arrays(path, model__norm__weight=lambda a: a[None]), r"norm.weight of shape \(12,\); got shape \(1, 12\), from model"),
    (lambda path: arrays(path, lm_head__weight=lambda a: a.astype(np.int32)), r"head.weight of float64, float32, .*got int32, from lm"),
])
def test_what_is_no_model_is_named(saved, spoil, message):
    spoil(saved)
    for opens in (load_hugging_face, lambda path: open_model(str(path)), lambda path: load_hugging_face(path, lazily=True)):
        with pytest.raises(ValueError, match=message):
            opens(saved)


def test_a_third_of_a_gpt2s_projection_is_told_with_the_whole(tmp_path):
    kind, config = MODELS["gpt2"]
    path = save_hugging_face(tmp_path, config, class_of(kind)(config).state_dict())
    arrays(path, transformer__h__0__attn__c_attn__weight=lambda a: a[:, :-3].copy())
    with pytest.raises(ValueError, match=r"blocks.0.attn.q_proj.weight of shape \(12, 12\); got shape \(11, 12\), from "
                       r"transformer.h.0.attn.c_attn.weight of shape \(12, 33\) in"):
        load_hugging_face(path)


@pytest.mark.parametrize("opens", [open_model, open_base])
@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model.pkl", "model.ckpt"])
def test_a_pickle_by_its_own_name_is_refused_with_how_to_convert_it(tmp_path, opens, name):
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    how = r"is a pickle, which is never read.*\n *import torch, safetensors.torch\n *safetensors.torch.save_file\("
    with pytest.raises(ValueError, match=how):
        opens(str(tmp_path / name))


def test_a_directory_without_a_config_is_named(saved):
    (saved / "config.json").unlink()
    with pytest.raises(ValueError, match=r"a file it can read; .*config.json: No such file"):
        load_hugging_face(saved)
    with pytest.raises(ValueError, match=r"the directory of a run, or of a model with its config.json"):
        open_model(str(saved))


def test_pickles_beside_safetensors_are_let_alone(saved, monkeypatch):
    monkeypatch.undo()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    assert load_hugging_face(saved)[0] == LLAMA


def test_links_within_a_hub_cache_are_followed_and_those_out_of_it_are_not(saved, monkeypatch):
    monkeypatch.undo()
    repository = saved.parent / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(saved.iterdir())):
        (repository / "blobs" / str(i)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    assert load_hugging_face(snapshot)[0] == open_model(str(snapshot)).model.config == LLAMA
    (saved.parent / "there").symlink_to(snapshot)                               # by which way one comes to it does not matter
    assert load_hugging_face(saved.parent / "there")[0] == LLAMA
    other = saved.parent / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (repository / "blobs" / "1").rename(other / "1")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(other / "1")
    with pytest.raises(ValueError, match="files beside each other"):
        load_hugging_face(snapshot)


def test_a_generation_config_elsewhere_or_damaged_is_refused(saved):
    (saved / "generation_config.json").write_text("[]")
    with pytest.raises(ValueError, match="generation_config_in needs names and values"):
        generation_config_in(saved)
    linked(saved, "generation_config.json")
    with pytest.raises(ValueError, match="generation_config_in needs files beside each other"):
        generation_config_in(saved)


def test_weights_that_are_not_finite_are_weights(saved, monkeypatch):
    monkeypatch.undo()
    def spoilt(a):
        a[:, ::3], a[:, 1::3] = np.nan, np.inf
        return a

    arrays(saved, lm_head__weight=spoilt)
    found = load_hugging_face(saved)[1]["head.weight"]
    assert np.isnan(found[:, ::3]).all() and np.isinf(found[:, 1::3]).all()


def test_a_file_that_changes_after_it_was_opened_is_named(saved, monkeypatch):
    monkeypatch.undo()
    file = saved / "model.safetensors"

    def write():
        save_hugging_face(saved, LLAMA, Llama(LLAMA).state_dict())

    for change in (write, lambda: os.truncate(file, 100), file.unlink):
        write()
        state = load_hugging_face(saved, lazily=True)[1]
        change()
        with pytest.raises(ValueError, match=r"model.safetensors as it was opened, to read lm_head.weight"):
            np.asarray(state["head.weight"])


def test_every_array_of_every_family_has_the_shape_that_is_asked_for():
    for kind, config in MODELS.values():
        demand_shapes("test", class_of(kind)(config).state_dict(), config)


def test_what_cannot_be_saved_is_named(tmp_path):
    state = Llama(LLAMA).state_dict()
    for change, message in (
        (dict(config={}), "the config of a GPT-2, Llama, Mixtral, BERT or T5"),
        (dict(state=state | {"norm.weight": np.ones(12)}), r"arrays of one dtype, or a dtype to write; got .*'float32', 'float64'"),
        (dict(state={name: value for name, value in state.items() if name != "norm.weight"}), r"missing \['norm.weight'\]"),
        (dict(kind="BertMaskedLM"), "kind from 'Llama'; got kind='BertMaskedLM'"),
        (dict(config=BERT, state=class_of("BertTokenClassifier")(BERT).state_dict()), "names of our BertMaskedLM; missing"),
        (dict(config=BERT, kind="BertSequenceClassifer"), "did you mean 'BertSequenceClassifier'"),
        (dict(dtype="float8"), "dtype from 'float32', 'float16', 'bfloat16', 'float64'; got dtype='float8'"),
        (dict(max_shard=0), "max_shard as a number of bytes"),
        (dict(max_shard=1.5), "max_shard as a number of bytes"),
        (dict(state=state | {"norm.weight": np.full(12, 1e5, "f4")}, dtype="float16"),
         r"numbers that float16 can hold in model.norm.weight, at most 65504; got 1e\+05"),
        (dict(state=state | {"norm.weight": np.full(12, 3.4e38, "f4")}, dtype="bfloat16"), "numbers that bfloat16 can hold in model.norm"),
    ):
        arguments = dict(config=LLAMA, state=state) | change
        with pytest.raises(ValueError, match=message):
            save_hugging_face(tmp_path / "new", **arguments)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("config", "message"), [
    (BertConfig(11, 16, 12, 2, 3, pooler="relu"), "pooler from 'tanh'; got pooler='relu'"),
    (BertConfig(11, 16, 12, 2, 3, segments=0), "pooler from 'relu'; got pooler='tanh'"),
    (BertConfig(11, 16, 12, 2, 3, segments=0, pooler="relu", norm_eps=1e-5), "norm_eps from 1e-12"),
    (BertConfig(11, 16, 12, 2, 3, segments=0, pooler="relu", activation="gelu_sigmoid"), "activation from 'gelu'"),
    (GPT2Config(11, 16, 12, 2, 3, activation="gelu_sigmoid"), "activation from 'gelu_tanh'"),
])
def test_what_transformers_has_not_is_not_written(tmp_path, config, message):
    kind = "BertSequenceClassifier" if isinstance(config, BertConfig) else "GPT2"
    with pytest.raises(ValueError, match=message):
        save_hugging_face(tmp_path / "new", config, class_of(kind)(config).state_dict(), kind=kind)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("change", "message"), [
    (dict(dim=None), "a value for dim"),
    (dict(attention_dropout=0.3), "one dropout for all places"),
    (dict(activation="gelu_nwe"), "did you mean 'gelu_new'"),
    (dict(tie_word_embeddings=False), "tie_word_embeddings from True"),
    (dict(architectures=["DistilBertForQuestionAnswering"]), "architectures from 'DistilBertModel'"),
    (dict(architectures=["BertModel"]), "architectures from 'DistilBertModel'"),
])
def test_a_distilbert_that_ours_is_not_is_refused(tmp_path, change, message):
    path = save_hugging_face(tmp_path, DISTILBERT, class_of("BertMaskedLM")(DISTILBERT).state_dict())
    spoil_config(path, **change)
    with pytest.raises(ValueError, match=message):
        load_hugging_face(path)


def test_a_bert_without_a_table_of_segments_is_no_bert(tmp_path):
    path = save_hugging_face(tmp_path, BERT, class_of("BertMaskedLM")(BERT).state_dict())
    spoil_config(path, type_vocab_size=0)
    with pytest.raises(ValueError, match="type_vocab_size as an integer >= 1"):
        load_hugging_face(path)
    assert directory.hugging_face_kind(path) == "BertMaskedLM"
