"""Directories of models: which model of ours they are for, the files of older versions, and what a copy of them carries along."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from byhand.configs.generation import GenerationConfig
from byhand.hugging_face.bert import bert_config_to_hugging_face
from byhand.hugging_face.directory import generation_config_in, hugging_face_kind, load_hugging_face, save_hugging_face
from byhand.hugging_face.t5 import t5_config_to_hugging_face
from byhand.model_source import open_model
from numpy_impl.models import bert
from tests.byhand.hugging_face_models import BERT, DISTILBERT, IDS, LLAMA, MODELS, logits, our_logits, ours_of, shaken, theirs_of

transformers = pytest.importorskip("transformers")


def spoil_config(path, **changes):
    values = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(values | changes))


def ours_from(path, kind, config):
    assert hugging_face_kind(path) == kind
    assert load_hugging_face(path)[0] == config
    return open_model(str(path)).model


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


def test_what_is_loaded_belongs_to_who_loaded_it(tmp_path):
    """No array is a view of the file."""
    path = save_hugging_face(tmp_path, LLAMA, ours_of("Llama", LLAMA).state_dict())
    before = (path / "model.safetensors").read_bytes()
    for array in load_hugging_face(path)[1].values():
        array += 1
    assert (path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("head", [None, "vocab_projector.weight"])
def test_the_head_of_a_distilbert_that_is_written_out_must_be_the_embedding(tmp_path, head):
    theirs = theirs_of("BertMaskedLM", DISTILBERT)
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    table = state["distilbert.embeddings.word_embeddings.weight"]
    save_file(state | {"vocab_projector.weight": table.clone()}, tmp_path / "model.safetensors")
    assert load_hugging_face(tmp_path)[0] == DISTILBERT
    if head:
        save_file(state | {head: table + 1}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=r"vocab_projector.weight to be distilbert.embeddings.word_embeddings.weight"):
            load_hugging_face(tmp_path)


def test_tokenizer_special_tokens_and_generation_config_are_carried_along(tmp_path):
    kind, config = MODELS["gpt2"]
    source = save_hugging_face(tmp_path / "source", config, ours_of(kind, config).state_dict())
    spoil_config(source, eos_token_id=7, bos_token_id=1, use_cache=False)
    generation = {"do_sample": True, "temperature": 0.5, "eos_token_id": [7, 8], "max_new_tokens": 9}
    files = {"tokenizer.json": b"{}", "vocab.txt": b"a", "generation_config.json": json.dumps(generation).encode(), "notes.txt": b"no"}
    for name, content in files.items():
        (source / name).write_bytes(content)
    copy = save_hugging_face(tmp_path / "copy", config, load_hugging_face(source)[1], source=source)
    assert {file.name for file in copy.iterdir()} == {"config.json", "model.safetensors", *files} - {"notes.txt"}
    assert all((copy / name).read_bytes() == files[name] for name in files if name != "notes.txt")
    values = json.loads((copy / "config.json").read_text())
    assert (values["eos_token_id"], values["bos_token_id"], "use_cache" in values) == (7, 1, False)
    assert generation_config_in(copy) == GenerationConfig(temperature=0.5, top_k=50, eos=(7, 8), max_new_tokens=9)
    (copy / "generation_config.json").unlink()
    assert generation_config_in(copy).eos == (7,)
    assert transformers.GPT2LMHeadModel.from_pretrained(copy, local_files_only=True).generation_config.eos_token_id == 7
    save_hugging_face(source, config, load_hugging_face(source)[1], source=source)                # onto itself
    assert (source / "tokenizer.json").read_bytes() == b"{}"


def test_the_generation_config_that_transformers_writes_is_read(tmp_path):
    kind, config = MODELS["llama"]
    theirs = theirs_of(kind, config)
    theirs.generation_config = transformers.GenerationConfig(num_beams=3, max_length=20, length_penalty=0.5, eos_token_id=2, pad_token_id=2)
    theirs.save_pretrained(tmp_path)
    found = generation_config_in(tmp_path, prompt_length=5)
    assert (found.beams, found.max_new_tokens, found.length_penalty, found.eos, found.pad, found.temperature) == (3, 15, 0.5, (2,), 2, 0.0)


@pytest.mark.parametrize(("change", "message"), [
    (dict(n_embd=None), "a value for n_embd"),
    (dict(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx from False"),
    (dict(tie_word_embeddings=False), "tie_word_embeddings from True"),
    (dict(attn_pdrop=0.2), "one dropout for all places"),
    (dict(activation_function="gelu_nwe"), "did you mean 'gelu_new'"),
])
def test_a_gpt2_that_ours_is_not_is_refused(tmp_path, change, message):
    config = MODELS["gpt2"][1]
    save_hugging_face(tmp_path, config, ours_of("GPT2", config).state_dict())
    spoil_config(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        load_hugging_face(tmp_path)
