"""BERT and its heads against transformers' own, and the sizes that people know."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.configs.bert import BERT_PRESETS, BertConfig
from byhand.hugging_face.bert import bert_from_hugging_face, bert_names, bert_to_hugging_face
from byhand.hugging_face.bert_config import BERT_TYPES, bert_config_from_hugging_face, bert_config_to_hugging_face
from byhand.noise import Noise
from numpy_impl.layers.module import flatten
from numpy_impl.models import bert as ours
from numpy_impl.optim.adamw import AdamW
from torch_impl.models import bert as twins

transformers = pytest.importorskip("transformers")

TINY = BertConfig(
    vocabulary=11, max_length=8, d_model=12, n_layers=2, n_heads=3, d_hidden=20, segments=3, padding=2, classes=4, dropout=0.0
)
HEADS = [kind for kind in BERT_TYPES if kind != "Bert"]
RNG = np.random.default_rng(0)
IDS = RNG.integers(3, 11, (3, 7))
KNOWN = np.arange(7) < np.array([[7], [2], [5]])
IDS[~KNOWN] = TINY.padding
SEGMENTS = RNG.integers(0, 3, (3, 7))


def targets_of(kind):
    if kind == "BertSequenceClassifier":
        return np.array([3, 0, 1])
    targets = np.random.default_rng(1).integers(0, 11 if kind == "BertMaskedLM" else 4, (3, 7))
    targets[~KNOWN] = targets[0, 2:4] = -100
    return targets


def arrays(state):
    return {name: value.detach().numpy() for name, value in state.items()}


def theirs_of(kind, config=TINY):
    """A random model of transformers, in float64, without dropout."""
    cls = getattr(transformers, BERT_TYPES[kind])
    values = bert_config_to_hugging_face(config, kind)
    model = cls(transformers.BertConfig(**values, attn_implementation="eager")).double().train()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start as constants: they too must be told apart
            parameter.normal_(std=0.4)
    return model


def of_sides(kind, state):
    """Our model of this state, and its twin."""
    model = getattr(ours, kind)(TINY, dtype=np.float64)
    model.load_state_dict(state)
    twin = getattr(twins, kind)(TINY, dtype=torch.float64)
    twin.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)
    return model, twin


@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["one segment", "segments"])
@pytest.mark.parametrize("kind", HEADS)
def test_logits_and_gradients_are_those_of_transformers(kind, segments):
    theirs, targets = theirs_of(kind), targets_of(kind)
    inputs = dict(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(KNOWN.astype(int)))
    want = theirs(**inputs, token_type_ids=None if segments is None else torch.tensor(segments)).logits
    want_loss = F.cross_entropy(want.flatten(0, -2), torch.tensor(targets).flatten())
    want_loss.backward()
    wanted = bert_from_hugging_face(arrays({n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}), TINY, kind)

    model, twin = of_sides(kind, bert_from_hugging_face(arrays(theirs.state_dict()), TINY, kind))
    loss, backward = model.loss(IDS, targets, segments=segments, mask=KNOWN)
    results = [(model(IDS, segments=segments, mask=KNOWN), loss, flatten(backward()))]
    options = dict(segments=None if segments is None else torch.tensor(segments), mask=torch.tensor(KNOWN))
    loss = twin.loss(torch.tensor(IDS), torch.tensor(targets), **options)
    loss.backward()
    grads = arrays({name: p.grad for name, p in twin.named_parameters()})
    results.append((twin(torch.tensor(IDS), **options).detach().numpy(), loss.detach().numpy(), grads))

    for logits, loss, grads in results:
        np.testing.assert_allclose(logits, want.detach(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(loss, want_loss.detach(), rtol=0, atol=1e-12)
        assert grads.keys() == wanted.keys()
        for name, grad in grads.items():
            np.testing.assert_allclose(grad, wanted[name], rtol=0, atol=1e-9, err_msg=name)
            assert np.abs(grad).max() > 1e-6 or "k_proj.bias" in name, name


def test_the_encoder_alone_is_bert_model():
    theirs = theirs_of("Bert")
    dh = np.random.default_rng(3).standard_normal((3, 7, 12))
    want = theirs(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(KNOWN.astype(int)), token_type_ids=torch.tensor(SEGMENTS))
    want.last_hidden_state.backward(torch.tensor(dh))
    model, twin = of_sides("Bert", bert_from_hugging_face(arrays(theirs.state_dict()), TINY, "Bert"))
    h, backward = model.forward(IDS, segments=SEGMENTS, mask=KNOWN)
    np.testing.assert_allclose(h, want.last_hidden_state.detach(), rtol=0, atol=1e-10)
    h = twin(torch.tensor(IDS), segments=torch.tensor(SEGMENTS), mask=torch.tensor(KNOWN))
    np.testing.assert_allclose(h.detach(), want.last_hidden_state.detach(), rtol=0, atol=1e-10)
    grads = flatten(backward(dh))
    for name, other in bert_names(TINY, "Bert").items():
        np.testing.assert_allclose(grads[name], theirs.get_parameter(other.removeprefix("bert.")).grad, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", BERT_TYPES)
def test_names_map_there_and_back(kind):
    theirs = theirs_of(kind)
    state = {name: value for name, value in arrays(theirs.state_dict()).items() if kind != "Bert" or not name.startswith("pooler")}
    back = bert_to_hugging_face(bert_from_hugging_face(state, TINY, kind), TINY, kind)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    assert bert_names(TINY, kind).keys() == getattr(ours, kind)(TINY).state_dict().keys()


def test_the_files_of_pre_training_are_read_too():
    config = transformers.BertConfig(**bert_config_to_hugging_face(TINY))
    state = arrays(transformers.BertForPreTraining(config).state_dict())
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for name, v in state.items()}
    old["bert.embeddings.position_ids"] = np.arange(8)[None]
    for kind in ("Bert", "BertMaskedLM"):
        assert bert_from_hugging_face(old, TINY, kind).keys() == getattr(ours, kind)(TINY).state_dict().keys()


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("bert.encoder.layer.1.output.dense.bias"), r"missing \['bert.encoder.layer.1.output.dense.bias'\], unknown"),
    (lambda s: s.update({"bert.encoder.layer.2.output.dense.bias": 1}), r"unknown \['bert.encoder.layer.2.output.dense.bias'\]"),
    (lambda s: s.update({"cls.predictions.decoder.weight": s["cls.predictions.decoder.weight"] + 1}), "weight to be bert.embeddings"),
    (lambda s: s.update({"cls.predictions.decoder.bias": s["cls.predictions.bias"] + 1}), "decoder.bias to be cls.predictions.bias"),
])
def test_what_is_no_model_of_the_config_is_refused(change, message):
    state = arrays(theirs_of("BertMaskedLM").state_dict())
    change(state)
    with pytest.raises(ValueError, match=message):
        bert_from_hugging_face(state, TINY)


def test_what_is_not_ours_is_refused():
    state = ours.BertTokenClassifier(TINY).state_dict()
    with pytest.raises(ValueError, match=r"names of our BertTokenClassifier; missing \['head.bias'\], unknown \[\]"):
        bert_to_hugging_face({name: value for name, value in state.items() if name != "head.bias"}, TINY, "BertTokenClassifier")
    with pytest.raises(ValueError, match="did you mean 'BertMaskedLM'"):
        bert_to_hugging_face(state, TINY, "BertMaskdLM")


@pytest.mark.parametrize("config", [
    TINY, *BERT_PRESETS.values(), dataclasses.replace(TINY, padding=None, activation="gelu_tanh", classes=1),
])
def test_a_config_survives_transformers_and_being_written_down(config):
    assert BertConfig.from_dict(dataclasses.asdict(config)) == config
    assert bert_config_from_hugging_face(bert_config_to_hugging_face(config)) == config
    assert bert_config_from_hugging_face(transformers.BertConfig(**bert_config_to_hugging_face(config)).to_dict()) == config


@pytest.mark.parametrize(("change", "message"), [
    (dict(model_type="roberta"), "model_type from 'bert'"),
    (dict(hidden_size=None), "a value for hidden_size"),
    (dict(is_decoder=True), "is_decoder from False"),
    (dict(attention_probs_dropout_prob=0.3), "one dropout for all places"),
    (dict(classifier_dropout=0.3), "one dropout for all places"),
    (dict(hidden_act="quick_gelu"), "hidden_act from 'gelu'"),
])
def test_configs_of_other_models_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        bert_config_from_hugging_face(bert_config_to_hugging_face(TINY) | change)


@pytest.mark.parametrize(("change", "message"), [
    (dict(n_heads=5), "d_model to be a multiple of n_heads"),
    (dict(padding=11), "padding in \\[0, 10\\]"),
    (dict(padding=0.5), "padding as an integer"),
    (dict(segments=-1), "segments as an integer >= 0"),
    (dict(dropout=-0.1), "dropout in \\[0, 1\\]"),
])
def test_what_is_no_config_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(("name", "parameters"), [("bert-base", 109_482_240), ("bert-large", 335_141_888)])
def test_the_presets_have_the_published_sizes(name, parameters):
    config = BERT_PRESETS[name]
    with torch.device("meta"):  # shapes without memory
        encoder, classifier = twins.Bert(config), twins.BertSequenceClassifier(config)
    assert sum(p.numel() for p in encoder.parameters()) == config.parameters
    # What was published has a pooler.
    assert config.parameters + sum(p.numel() for p in classifier.pooler.parameters()) == parameters


def test_padding_is_not_seen():
    model = ours.BertTokenClassifier(TINY, rng=np.random.default_rng(0))
    other = np.where(KNOWN, IDS, 5)
    seen = KNOWN[..., None]
    assert np.array_equal(model(IDS, mask=KNOWN) * seen, model(other, mask=KNOWN) * seen)
    assert not np.allclose(model(IDS) * seen, model(other) * seen)


@pytest.mark.parametrize("kind", HEADS)
def test_recomputed_gradients_have_the_same_bits(kind):
    model, noise = getattr(ours, kind)(dataclasses.replace(TINY, dropout=0.3), rng=np.random.default_rng(0)), Noise(seed=2, step=7)
    results = [flatten(model.loss(IDS, targets_of(kind), mask=KNOWN, noise=noise, run=run)[1]()) for run in ("keep", "recompute")]
    assert results[0].keys() == model.parameters().keys()
    assert all(results[0][name].tobytes() == results[1][name].tobytes() for name in results[0])


def test_frozen_embeddings_get_no_gradient():
    model = ours.BertMaskedLM(TINY, rng=np.random.default_rng(0))
    model.freeze("bert.tokens.*", "bert.blocks.0.*", "bias")
    assert flatten(model.loss(IDS, targets_of("BertMaskedLM"))[1]()).keys() == model.parameters().keys()


def test_it_learns_to_fill_the_gaps_of_a_text():
    model, rng = ours.BertMaskedLM(TINY, rng=np.random.default_rng(0)), np.random.default_rng(1)
    optimizer, rows = AdamW(model.parameters(), lr=1e-2), np.arange(8)
    text = rng.integers(3, 10, (8, 7))
    gaps = rng.integers(0, 7, 8)
    ids, targets = text.copy(), np.full_like(text, -100)
    ids[rows, gaps], targets[rows, gaps] = 10, text[rows, gaps]         # 10 is [MASK]
    for _ in range(100):
        loss, backward = model.loss(ids, targets)
        optimizer.step(flatten(backward()))
    assert float(loss) < 0.05
    assert np.array_equal(model(ids)[rows, gaps].argmax(-1), text[rows, gaps])
