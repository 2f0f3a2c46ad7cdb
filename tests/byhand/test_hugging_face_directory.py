"""Directories of models: which model of ours they are for, the files of older versions, and what a copy of them carries along."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from byhand.configs.generation import GenerationConfig
from byhand.hugging_face.bert_config import bert_config_to_hugging_face
from byhand.hugging_face.directory import generation_config_in, hugging_face_kind, load_hugging_face, save_hugging_face
from byhand.hugging_face.families import family_told
from byhand.hugging_face.t5 import t5_config_to_hugging_face
from byhand.model_source import open_model, presets
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
    files = {"tokenizer.json": b"{}", "vocab.txt": b"a", "generation_config.json": json.dumps(generation).encode(), "notes.txt": b"no",
             "modules.json": b"[]", "1_Pooling/config.json": b"{}"}
    (source / "1_Pooling").mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    copy = save_hugging_face(tmp_path / "copy", config, load_hugging_face(source)[1], source=source)
    there = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    assert there == {"config.json", "model.safetensors", *files} - {"notes.txt"}
    assert all((copy / name).read_bytes() == files[name] for name in files if name != "notes.txt")
    values = json.loads((copy / "config.json").read_text())
    assert (values["eos_token_id"], values["bos_token_id"], "use_cache" in values) == (7, 1, False)
    assert generation_config_in(copy) == GenerationConfig(temperature=0.5, top_k=50, eos=(7, 8), max_new_tokens=9)
    (copy / "generation_config.json").unlink()
    assert generation_config_in(copy).eos == (7,)
    assert transformers.GPT2LMHeadModel.from_pretrained(copy, local_files_only=True).generation_config.eos_token_id == 7
    save_hugging_face(source, config, load_hugging_face(source)[1], source=source)                # onto itself
    assert (source / "tokenizer.json").read_bytes() == b"{}"
    for name in ("tokenizer.json", "1_Pooling"):
        (source / name).rename(tmp_path / name)
        (source / name).symlink_to(tmp_path / name)
        with pytest.raises(ValueError, match=f"files beside each other in .*got '{name}', which is "):
            save_hugging_face(tmp_path / "other", config, load_hugging_face(source)[1], source=source)
        (source / name).unlink()
        assert not (tmp_path / "other").exists()


def test_a_text_is_tokenized_as_it_is_whatever_a_batch_needs(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "[PAD]": 2, "[UNK]": 3}, "[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.enable_padding(length=9)
    words.enable_truncation(2)
    save_hugging_face(tmp_path, LLAMA, ours_of("Llama", LLAMA).state_dict())
    words.save(str(tmp_path / "tokenizer.json"))
    assert open_model(str(tmp_path)).tokenize("a b a a") == ([0, 1, 0, 0], ["a", "b", "a", "a"])


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
    (dict(attn_pdrop=[]), r"attn_pdrop in \[0, 1\]; got attn_pdrop=\[\]"),
    (dict(n_layer=1), r"names of a GPT-2; missing \[\], unknown \['h.1.attn"),
    (dict(n_layer=5), r"names of a GPT-2; missing \['h.\d.attn"),
])
def test_a_gpt2_that_ours_is_not_is_refused(tmp_path, change, message):
    config = MODELS["gpt2"][1]
    save_hugging_face(tmp_path, config, ours_of("GPT2", config).state_dict())
    spoil_config(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        load_hugging_face(tmp_path)


@pytest.mark.parametrize(("name", "change", "message"), [
    ("bert", dict(id2label=2), "id2label as names by number"),
    ("bert", dict(hidden_dropout_prob={}), r"hidden_dropout_prob in \[0, 1\]"),
    ("distilbert", dict(id2label=True), "id2label as names by number"),
    ("distilbert", dict(dropout=[0.1]), r"dropout in \[0, 1\]"),
    ("mixtral", dict(rope_parameters=3), "dictionary"),
    ("t5", dict(dense_act_fn="gelu"), "dense_act_fn from 'relu'; got dense_act_fn='gelu'"),
    ("t5", dict(is_gated_act=True), "is_gated_act from False"),
    ("t5 v1.1", dict(dense_act_fn="gelu"), "dense_act_fn from 'gelu_new'"),
    ("t5 v1.1", dict(is_gated_act=False), "is_gated_act from True"),
])
def test_other_options_and_other_types_are_refused(tmp_path, name, change, message):
    kind, config = MODELS[name]
    save_hugging_face(tmp_path, config, ours_of(kind, config).state_dict(), kind=kind)
    spoil_config(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        load_hugging_face(tmp_path)


def of_llama(**changes):
    return dict(architectures=["LlamaForCausalLM"], attention_bias=False, attention_dropout=0.0, hidden_act="silu", model_type="llama",
                rms_norm_eps=1e-05, rope_scaling=None, rope_theta=10000.0, tie_word_embeddings=False, torch_dtype="bfloat16",
                use_cache=True, vocab_size=32000) | changes


PUBLISHED = {
    "smollm2-135m": (134_515_008, of_llama(
        hidden_size=576, intermediate_size=1536, is_llama_config=True, max_position_embeddings=8192, num_attention_heads=9,
        num_hidden_layers=30, num_key_value_heads=3, pretraining_tp=1, rope_interleaved=False, rope_theta=100000, tie_word_embeddings=True,
        vocab_size=49152)),
    "tinyllama-1.1b": (1_100_048_384, of_llama(
        hidden_size=2048, intermediate_size=5632, max_position_embeddings=2048, num_attention_heads=32, num_hidden_layers=22,
        num_key_value_heads=4, pretraining_tp=1)),
    "mistral-7b": (7_241_732_096, of_llama(
        architectures=["MistralForCausalLM"], model_type="mistral", hidden_size=4096, intermediate_size=14336, sliding_window=4096,
        max_position_embeddings=32768, num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=8)),
    "Qwen2.5-0.5B": (494_032_768, of_llama(
        architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=896, intermediate_size=4864, max_position_embeddings=32768,
        max_window_layers=24, num_attention_heads=14, num_hidden_layers=24, num_key_value_heads=2, rms_norm_eps=1e-06, rope_theta=1e6,
        sliding_window=32768, use_sliding_window=False, tie_word_embeddings=True, vocab_size=151936)),
    "Qwen3-0.6B": (596_049_920, of_llama(
        architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=128, hidden_size=1024, intermediate_size=3072,
        max_position_embeddings=40960, max_window_layers=28, num_attention_heads=16, num_hidden_layers=28, num_key_value_heads=8,
        rms_norm_eps=1e-06, rope_theta=1000000, sliding_window=None, use_sliding_window=False, tie_word_embeddings=True,
        vocab_size=151936)),
    "gpt2": (124_439_808, dict(
        activation_function="gelu_new", architectures=["GPT2LMHeadModel"], attn_pdrop=0.1, bos_token_id=50256, embd_pdrop=0.1,
        eos_token_id=50256, initializer_range=0.02, layer_norm_epsilon=1e-05, model_type="gpt2", n_ctx=1024, n_embd=768, n_head=12,
        n_layer=12, n_positions=1024, resid_pdrop=0.1, summary_activation=None, vocab_size=50257)),
    "all-MiniLM-L6-v2": (22_565_376, dict(
        architectures=["BertModel"], attention_probs_dropout_prob=0.1, gradient_checkpointing=False, hidden_act="gelu",
        hidden_dropout_prob=0.1, hidden_size=384, intermediate_size=1536, layer_norm_eps=1e-12, max_position_embeddings=512,
        model_type="bert", num_attention_heads=12, num_hidden_layers=6, pad_token_id=0, position_embedding_type="absolute",
        type_vocab_size=2, use_cache=True, vocab_size=30522)),
    "distilbert-base-uncased": (66_362_880, dict(
        activation="gelu", architectures=["DistilBertForMaskedLM"], attention_dropout=0.1, dim=768, dropout=0.1, hidden_dim=3072,
        initializer_range=0.02, max_position_embeddings=512, model_type="distilbert", n_heads=12, n_layers=6, pad_token_id=0,
        qa_dropout=0.1, seq_classif_dropout=0.2, sinusoidal_pos_embds=False, tie_weights_=True, vocab_size=30522)),
    "t5-small": (60_506_624, dict(
        architectures=["T5ForConditionalGeneration"], d_ff=2048, d_kv=64, d_model=512, decoder_start_token_id=0, dropout_rate=0.1,
        eos_token_id=1, initializer_factor=1.0, is_encoder_decoder=True, layer_norm_epsilon=1e-06, model_type="t5", n_positions=512,
        num_heads=8, num_layers=6, output_past=True, pad_token_id=0, relative_attention_num_buckets=32, vocab_size=32128)),
    "flan-t5-small": (76_961_152, dict(
        architectures=["T5ForConditionalGeneration"], d_ff=1024, d_kv=64, d_model=512, decoder_start_token_id=0, dropout_rate=0.1,
        eos_token_id=1, feed_forward_proj="gated-gelu", is_encoder_decoder=True, layer_norm_epsilon=1e-06, model_type="t5",
        num_decoder_layers=8, num_heads=6, num_layers=8, pad_token_id=0, relative_attention_max_distance=128,
        relative_attention_num_buckets=32, tie_word_embeddings=False, vocab_size=32128)),
}


@pytest.mark.parametrize(("name", "count", "values"), [(name, *told) for name, told in PUBLISHED.items()], ids=PUBLISHED)
def test_published_configs_are_read_as_the_models_they_are_of(tmp_path, name, count, values):
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = family_told("test", tmp_path, values).read_config(values)
    assert config.parameters == count
    if name in presets():
        assert config == presets()[name]
    kind = hugging_face_kind(tmp_path)
    assert kind == {"all-MiniLM-L6-v2": "Bert", "distilbert-base-uncased": "BertMaskedLM"}.get(name, type(config).__name__[:-6])
