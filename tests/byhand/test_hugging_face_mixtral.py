"""Mixtral against transformers' own Mixtral, Qwen2-MoE and Qwen3-MoE: what they compute, what their files hold, and what is refused."""

import dataclasses
import importlib
import json
import math
import re
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from byhand import cli
from byhand.configs.lora import LoRAConfig
from byhand.configs.mixtral import MIXTRAL_PRESETS, MixtralConfig
from byhand.configs.rope import RopeConfig
from byhand.finetuning.base import open_base
from byhand.finetuning.memory import plan_memory
from byhand.hugging_face.adapter import save_adapter
from byhand.hugging_face.directory import hugging_face_kind, load_hugging_face, save_hugging_face
from byhand.hugging_face.mixtral import expert_names, mixtral_from_hugging_face, mixtral_to_hugging_face
from byhand.hugging_face.mixtral_config import MIXTRAL_TYPES, mixtral_config_from_hugging_face, mixtral_config_to_hugging_face
from byhand.hugging_face.on_disk import OnDisk, Stacked, open_arrays
from byhand.model_source import open_model
from numpy_impl.finetune.manager import adapter_state, apply_lora
from numpy_impl.layers.module import flatten
from numpy_impl.models.mixtral import Mixtral
from torch_impl.models.mixtral import Mixtral as TorchMixtral

transformers = pytest.importorskip("transformers")

TINY = MixtralConfig(vocabulary=11, max_length=16, d_model=24, n_layers=3, n_heads=6, n_kv_heads=2, d_hidden=20, n_experts=5, k=2,
                     balance=0.1, jointly=True)
QWEN2 = dataclasses.replace(TINY, attention_bias="qkv", d_expert=10, d_shared=14, shared_gate=True, renormalise=False, k=3, dense=(1,))
QWEN3 = dataclasses.replace(TINY, qk_norm=True, d_expert=10, renormalise=False, head_width=8, rope=RopeConfig(width=8, base=1e6))
CONFIGS = {
    "mixtral": TINY,
    "mixtral, tied, window, geglu": dataclasses.replace(TINY, tied=True, window=3, activation="geglu", jitter=0.1),
    "mixtral, every expert": dataclasses.replace(TINY, k=5),
    "mixtral, one expert": dataclasses.replace(TINY, k=1, n_experts=3),
    "qwen2": QWEN2,
    "qwen2, unbiased, window, to one": dataclasses.replace(QWEN2, attention_bias=False, window=4, renormalise=True, dense=(), tied=True),
    "qwen3": QWEN3,
    "qwen3, biased, window, to one": dataclasses.replace(QWEN3, attention_bias=True, window=2, renormalise=True, dense=(0, 2)),
}
models = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
three = pytest.mark.parametrize("config", [TINY, QWEN2, QWEN3], ids=MIXTRAL_TYPES)
LAST = {"mixtral": "block_sparse_moe.experts.4.w2.weight", "qwen2_moe": "mlp.experts.4.down_proj.weight"}


def theirs_of(config):
    """A random model of transformers that computes its experts one after the other."""
    values = mixtral_config_to_hugging_face(config)
    cls = getattr(transformers, values["architectures"][0])
    theirs = cls(cls.config_class(**values, attn_implementation="eager", experts_implementation="eager", use_cache=False)).eval()
    assert theirs.config._experts_implementation == "eager"
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():       # biases and norms start as constants: they too must be told apart
            parameter.normal_(std=0.2)
            if "norm" in name:
                parameter.add_(1)
    return theirs


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


def arrays(state):
    return {name: value.detach().numpy() for name, value in state.items()}


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
    for rows in (4, slice(None, None, 2)):
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
    with pytest.raises(ValueError, match=f"{lost}: No such file"):
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


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


SMALL = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--text", __file__, "--steps", "2", "--lr", "0.05"]


@pytest.fixture(params=["mixtral", "qwen2_moe"])
def directory(tmp_path, request):
    """A model of bytes that transformers has saved, and its config."""
    config = dataclasses.replace({"mixtral": TINY, "qwen2_moe": QWEN2}[request.param], vocabulary=256, max_length=64)
    theirs = theirs_of(config)
    theirs.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs", config, theirs


def test_a_directory_is_opened_by_the_commands(directory, capsys):
    path, config, theirs = directory
    base = open_base(str(path))
    assert base.config == config and isinstance(base.state["blocks.0.mlp.experts.up_proj"], Stacked)
    assert run("generate", path, "--prompt", "abc", "--count", 8) == cli.OK
    said = re.search(r"\| (abc.*)", capsys.readouterr().out, re.DOTALL)
    assert said
    ids = torch.tensor([list(b"abc")])
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, theirs(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    model = open_model(str(path)).model
    assert type(model) is Mixtral
    ours = list(b"abc")
    for _ in range(8):
        ours.append(int(model(np.array([ours]))[0, -1].argmax()))
    assert ours == ids[0].tolist()


def test_a_directory_is_fine_tuned_alike_in_both_and_merged_for_transformers(directory, tmp_path, capsys):
    path, _, theirs = directory
    both = ["--backend", "both", "--dtype", "float64", "--targets", "q_proj,v_proj", *SMALL]
    assert run("finetune", "--base", path, "--out", tmp_path / "run", *both) == cli.OK
    printed = capsys.readouterr().out
    assert "The curves lie on each other" in printed and "NOT what they were" not in printed
    assert run("merge", "--adapter", tmp_path / "run", "--out", tmp_path / "merged") == cli.OK
    merged = type(theirs).from_pretrained(tmp_path / "merged", experts_implementation="eager", local_files_only=True)
    ids = np.arange(20, 40)[None]
    with torch.no_grad():
        want = merged(input_ids=torch.tensor(ids)).logits.numpy()
        plain = theirs(input_ids=torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(open_model(str(tmp_path / "merged")).model(ids), want, rtol=0, atol=1e-5)
    assert np.abs(want - plain).max() > 1e-3


def test_the_jitter_of_a_base_acts_alike_in_both_when_it_is_fine_tuned(tmp_path, capsys):
    losses = []
    for jitter in (0.0, 0.3):
        theirs_of(dataclasses.replace(TINY, vocabulary=256, max_length=64, jitter=jitter)).save_pretrained(tmp_path / f"{jitter}")
        out = tmp_path / f"run-{jitter}"
        assert run("finetune", "--base", tmp_path / f"{jitter}", "--backend", "both", "--dtype", "float64", "--out", out, *SMALL) == cli.OK
        assert "The curves lie on each other" in capsys.readouterr().out
        losses.append(json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert abs(losses[0] - losses[1]) > 1e-6


def test_a_memory_plan_for_experts_is_refused():
    with pytest.raises(ValueError, match="plan_memory needs the config of a GPT-2 or a Llama, without experts"):
        plan_memory(MIXTRAL_PRESETS["mixtral-nano"])


def test_a_base_in_four_bits_is_kept_and_opened(directory, tmp_path, capsys):
    path, config, _ = directory
    assert run("quantize", path, "--out", tmp_path / "small") == cli.OK
    base = open_base(str(tmp_path / "small"))
    assert base.config == config and base.quantized is not None
    assert run("generate", tmp_path / "small", "--prompt", "abc", "--count", 2) == cli.OK


def test_peft_loads_an_adapter_of_ours(directory, tmp_path):
    peft = pytest.importorskip("peft")
    path, config, theirs = directory
    model = Mixtral(config)
    model.load_state_dict(load_hugging_face(path)[1])
    targets = ("q_proj", "o_proj") if config.d_shared is None else ("q_proj", "shared.up_proj", "shared.down_proj")
    lora = LoRAConfig(r=2, targets=targets)
    rng = np.random.default_rng(0)
    apply_lora(model, lora, rng=rng)
    for name, array in model.parameters().items():
        if "lora_B" in name:
            array[...] = rng.standard_normal(array.shape)
    save_adapter(tmp_path / "adapter", config=lora, model_config=config, state=adapter_state(model))
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    ids = np.arange(20, 40)[None]
    with torch.no_grad():
        want = adapted(input_ids=torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(model(ids), want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("preset", ["mixtral-nano", "deepseek-nano"])
def test_presets_are_trained_and_are_bases(preset, tmp_path, capsys):
    small = ["--batch", "2", "--length", "16", "--validation-batches", "1", "--sample", "0", "--text", __file__, "--steps", "2"]
    assert run("train", "--preset", preset, "--backend", "both", "--dtype", "float64", "--out", tmp_path / "run", *small) == cli.OK
    assert "The curves lie on each other" in capsys.readouterr().out
    base = open_base(str(tmp_path / "run"))
    assert dataclasses.replace(base.config, dropout=0.0) == MIXTRAL_PRESETS[preset]
    assert run("generate", tmp_path / "run", "--count", 3) == cli.OK


def test_experts_have_names_of_their_own():
    """Every number of the model is in exactly one file entry."""
    for config, kind in zip((TINY, QWEN2, QWEN3), MIXTRAL_TYPES, strict=True):
        written = mixtral_to_hugging_face(Mixtral(config).state_dict(), config)
        assert sum(math.prod(array.shape) for array in written.values()) == config.parameters
        assert all(len(set(names)) == config.n_experts for names in expert_names(config, kind).values())
