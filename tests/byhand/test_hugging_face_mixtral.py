"""Mixtral against transformers' own Mixtral, Qwen2-MoE and Qwen3-MoE: what they compute, and what configs say."""

import dataclasses
import importlib
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from byhand.configs.mixtral import MIXTRAL_PRESETS, MixtralConfig
from byhand.hugging_face.directory import save_hugging_face
from byhand.hugging_face.mixtral import expert_names, mixtral_from_hugging_face, mixtral_to_hugging_face
from byhand.hugging_face.mixtral_config import MIXTRAL_TYPES, mixtral_config_from_hugging_face, mixtral_config_to_hugging_face
from numpy_impl.layers.module import flatten
from numpy_impl.models.mixtral import Mixtral
from tests.byhand.mixtral_models import CONFIGS, QWEN2, QWEN3, TINY, arrays, theirs_of
from torch_impl.models.mixtral import Mixtral as TorchMixtral

transformers = pytest.importorskip("transformers")

models = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
three = pytest.mark.parametrize("config", [TINY, QWEN2, QWEN3], ids=MIXTRAL_TYPES)


class Double:
    """torch, in which float32 is float64: transformers computes norms, routers and angles in what it calls float32."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture(params=["float32", "float64"])
def dtype(request, monkeypatch):
    """In float64 transformers too, throughout."""
    if request.param == "float64":
        for place in [f"transformers.models.{kind}.modeling_{kind}" for kind in MIXTRAL_TYPES] + ["transformers.modeling_rope_utils"]:
            monkeypatch.setattr(importlib.import_module(place), "torch", Double())
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return request.param


def results(side, config, state, ids, targets, real, dtype):
    """(logits, what the loss adds for the routers, gradients) of one side of ours."""
    if side == "numpy":
        model = Mixtral(config, dtype=dtype)
        model.load_state_dict(state)
        loss, backward = model.loss(ids, targets, real=real)
        return model(ids), loss - model.loss(ids, targets, run="inference")[0], flatten(backward())
    model = TorchMixtral(config, dtype=getattr(torch, dtype))
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)
    ids, targets, real = (None if array is None else torch.tensor(array) for array in (ids, targets, real))
    loss = model.loss(ids, targets, real=real)
    loss.backward()
    added = loss - model.loss(ids, targets, run="inference")
    return model(ids).detach().numpy(), added.detach().numpy(), arrays({name: p.grad for name, p in model.named_parameters()})


@pytest.mark.parametrize("padded", [False, True], ids=["no mask", "mask"])
@pytest.mark.parametrize("side", ["numpy", "torch"])
@models
def test_logits_auxiliary_loss_and_gradients_are_those_of_transformers(config, side, padded, dtype):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 11, (3, 9))
    targets = np.roll(ids, -1, axis=1)
    targets[:, -1] = targets[0, 3:5] = -100
    real = None
    if padded:                                                  # at the end, where nothing real sees it
        real = np.arange(9) < np.array([[9], [6], [2]])
        targets[:, :-1][~real[:, 1:]] = -100
    theirs = theirs_of(config).to(getattr(torch, dtype))
    mask = None if real is None else torch.tensor(real).long()
    out = theirs(input_ids=torch.tensor(ids), attention_mask=mask, output_router_logits=True)
    added = config.balance * out.aux_loss
    (F.cross_entropy(out.logits.flatten(0, 1), torch.tensor(targets).flatten()) + added).backward()
    wanted = mixtral_from_hugging_face(arrays({name: p.grad for name, p in theirs.named_parameters()}), config)

    state = mixtral_from_hugging_face(arrays(theirs.state_dict()), config)
    logits, our_added, grads = results(side, config, state, ids, targets, real, dtype)
    atol = {"float32": 1e-5, "float64": 1e-12}[dtype]
    seen = slice(None) if real is None else real
    assert logits.dtype == dtype
    np.testing.assert_allclose(logits[seen], out.logits.detach().numpy()[seen], rtol=0, atol=atol)
    np.testing.assert_allclose(our_added, added.detach(), rtol=0, atol=atol)
    assert grads.keys() == wanted.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name], rtol=0, atol=atol, err_msg=name)
    assert all(np.abs(grad).max() > 0 for name, grad in grads.items() if "experts" in name or "router" in name)


@models
def test_a_config_survives_transformers_shape_and_being_written_down(config):
    assert MixtralConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    ours = dataclasses.replace(config, dropout=0.1, z=0.01)                                     # which transformers has not
    values = mixtral_config_to_hugging_face(ours)
    assert mixtral_config_from_hugging_face(json.loads(json.dumps(values))) == config
    theirs = getattr(transformers, values["architectures"][0]).config_class(**values)
    assert mixtral_config_from_hugging_face(theirs.to_dict()) == config


@three
def test_the_balance_loss_is_switched_as_transformers_switches_it(config):
    assert mixtral_config_to_hugging_face(config)["output_router_logits"] is True
    for without in (dataclasses.replace(config, balance=0.0, jointly=False), dataclasses.replace(config, jointly=False)):
        values = mixtral_config_to_hugging_face(without)        # transformers has none that takes each layer by itself
        assert values["output_router_logits"] is False
        assert mixtral_config_from_hugging_face(values) == dataclasses.replace(config, balance=0.0, jointly=False)


MIXTRAL_8X7B = dict(
    architectures=["MixtralForCausalLM"], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=4096,
    initializer_range=0.02, intermediate_size=14336, max_position_embeddings=32768, model_type="mixtral", num_attention_heads=32,
    num_experts_per_tok=2, num_hidden_layers=32, num_key_value_heads=8, num_local_experts=8, output_router_logits=False, rms_norm_eps=1e-05,
    rope_theta=1000000.0, router_aux_loss_coef=0.02, sliding_window=None, tie_word_embeddings=False, torch_dtype="bfloat16",
    use_cache=True, vocab_size=32000,
)
QWEN1_5_MOE = dict(
    architectures=["Qwen2MoeForCausalLM"], attention_dropout=0.0, decoder_sparse_step=1, hidden_act="silu", hidden_size=2048,
    initializer_range=0.02, intermediate_size=5632, max_position_embeddings=8192, max_window_layers=21, model_type="qwen2_moe",
    moe_intermediate_size=1408, norm_topk_prob=False, num_attention_heads=16, num_experts=60, num_experts_per_tok=4, num_hidden_layers=24,
    num_key_value_heads=16, output_router_logits=False, rms_norm_eps=1e-06, rope_theta=1000000.0, router_aux_loss_coef=0.001,
    shared_expert_intermediate_size=5632, sliding_window=32768, tie_word_embeddings=False, torch_dtype="bfloat16", use_cache=True,
    use_sliding_window=False, vocab_size=151936,
)


@pytest.mark.parametrize(("name", "values"), [("mixtral-8x7b", MIXTRAL_8X7B), ("qwen1.5-moe-a2.7b", QWEN1_5_MOE)])
def test_the_published_files_are_the_presets(name, values):
    config = MIXTRAL_PRESETS[name]
    assert mixtral_config_from_hugging_face(values | dict(output_router_logits=True)) == config
    assert mixtral_config_from_hugging_face(values) == dataclasses.replace(config, balance=0.0, jointly=False)
    theirs = getattr(transformers, values["architectures"][0])
    with torch.device("meta"):                                  # shapes without memory
        model = theirs(theirs.config_class(**mixtral_config_to_hugging_face(config)))
    assert sum(p.numel() for p in model.parameters()) == config.parameters


@pytest.mark.parametrize(("change", "message"), [
    (dict(model_type="mixtrl"), "model_type from 'mixtral', .*did you mean 'mixtral'"),
    (dict(hidden_act="gelu_new"), "hidden_act from 'silu', 'gelu', 'relu'"),
    (dict(num_local_experts=None), "a value for num_local_experts"),
    (dict(num_experts_per_tok=None), "a value for num_experts_per_tok"),
    (dict(num_experts_per_tok=6), "k no larger than n_experts"),
    (dict(num_experts=6), "num_experts and num_local_experts to agree"),
    (dict(num_hidden_layers=None), "a value for num_hidden_layers"),
    (dict(model_type="qwen2_moe"), "a value for moe_intermediate_size, shared_expert_intermediate_size"),
    (dict(model_type="qwen3_moe", moe_intermediate_size=8, decoder_sparse_step=0), "decoder_sparse_step as an integer >= 1"),
    (dict(model_type="qwen3_moe", moe_intermediate_size=8, mlp_only_layers=1), "mlp_only_layers as a list"),
])
def test_configs_of_other_models_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        mixtral_config_from_hugging_face(mixtral_config_to_hugging_face(TINY) | change)


@pytest.mark.parametrize("change", [
    dict(score="sigmoid"), dict(scale=2.0), dict(n_experts=6, groups=2), dict(correction=True), dict(capacity_factor=1.0), dict(noisy=True),
    dict(choice="sinkhorn"), dict(d_shared=8), dict(dense=(0,)), dict(mlp_bias=True), dict(attention_bias="qkv"), dict(renormalise=False),
    dict(qk_norm=True, attention_bias="qkv"), dict(activation="bilinear"),
])
def test_what_transformers_has_not_is_not_written(tmp_path, change):
    config = dataclasses.replace(TINY, **change)
    with pytest.raises(ValueError, match="_config_to_hugging_face needs"):
        save_hugging_face(tmp_path / "new", config, Mixtral(config).state_dict())
    assert not (tmp_path / "new").exists()


def test_a_softmax_over_the_chosen_alone_is_written_as_weights_that_sum_to_one():
    rng, config = np.random.default_rng(0), dataclasses.replace(TINY, before=False, renormalise=False)
    model = Mixtral(config, dtype=np.float64, rng=rng)
    other = mixtral_config_from_hugging_face(mixtral_config_to_hugging_face(config))
    assert (other.before, other.renormalise) == (True, True)
    same = Mixtral(other, dtype=np.float64)
    same.load_state_dict(model.state_dict())
    ids = rng.integers(0, 11, (2, 7))
    np.testing.assert_allclose(same(ids), model(ids), rtol=0, atol=1e-12)


def test_which_layers_are_sparse_and_which_see_how_far():
    values = mixtral_config_to_hugging_face(dataclasses.replace(QWEN2, window=4, dense=()))
    read = mixtral_config_from_hugging_face
    assert read(values).dense == () and read(values).window == 4
    assert read(values | dict(decoder_sparse_step=2)).dense == (0, 2)
    assert read(values | dict(decoder_sparse_step=2, mlp_only_layers=[1])).dense == (0, 1, 2)
    assert read(values | dict(use_sliding_window=False)).window is None
    assert read(values | dict(layer_types=["full_attention"] * 3)).window is None
    for types in (None, ["sliding_attention", "full_attention", "full_attention"]):
        with pytest.raises(ValueError, match="layer_types, the same for all layers"):
            read(values | dict(layer_types=types))


def test_experts_have_names_of_their_own():
    """Every number of the model is in exactly one file entry."""
    for config, kind in zip((TINY, QWEN2, QWEN3), MIXTRAL_TYPES, strict=True):
        written = mixtral_to_hugging_face(Mixtral(config).state_dict(), config)
        assert sum(math.prod(array.shape) for array in written.values()) == config.parameters
        assert all(len(set(names)) == config.n_experts for names in expert_names(config, kind).values())
