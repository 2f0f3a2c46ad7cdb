"""Adapters between our models and peft: what either writes the other reads, and the models then say the same."""

import json
import math
import warnings

import numpy as np
import pytest

from byhand import checkpoint
from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from byhand.hugging_face.adapter import load_adapter, save_adapter
from byhand.hugging_face.adapter_maps import adapter_to_peft
from numpy_impl.finetune.manager import adapter_state, apply_lora, load_adapter_state
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama
from tests.byhand.adapter_models import GPT_2, LLAMA, base_state, drawn, theirs

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IDS = np.array([[1, 4, 2, 9, 0], [3, 3, 7, 10, 5]])


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def merged(base, lora, adapter):
    """The base's state with the adapter merged into it by the formulas of LoRA and DoRA."""
    state = {name: np.array(array) for name, array in base.items()}
    for name in {name.rpartition(".")[0] for name in adapter if name.endswith("lora_A")}:
        options = lora.options(name)
        scale = options["alpha"] / (math.sqrt(options["r"]) if lora.rslora else options["r"])
        delta = scale * adapter[f"{name}.lora_B"] @ adapter[f"{name}.lora_A"]
        moved = state[f"{name}.weight"] + (delta.T if name == "tokens" else delta)
        if lora.dora:
            axis = 0 if name == "tokens" else 1
            norm = np.linalg.norm(moved, axis=axis, keepdims=True)
            moved = moved / norm * np.expand_dims(adapter[f"{name}.magnitude"], axis)
        state[f"{name}.weight"] = moved
    return state | {name: array for name, array in adapter.items() if name.endswith(".bias")}


def logits(config, state):
    model = (Llama if isinstance(config, LlamaConfig) else GPT2)(config, dtype=np.float64)
    model.load_state_dict(state)
    return model(IDS)


def shaken(model):
    """Every trainable parameter of a peft model somewhere else than where it started."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.5)
    return model.eval()


def near(got, want, tolerance=1e-5):             # transformers computes norms and rotary tables in float32, whatever the rest is in
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def equal(got, want):
    """Two states in float64, all but rounding."""
    assert got.keys() == want.keys()
    for name in want:
        near(got[name], want[name], 1e-13)


OPTIONS = {
    "plain": dict(target_modules=["q_proj", "v_proj"], r=3, lora_alpha=5),
    "rslora": dict(target_modules=["q_proj", "o_proj"], r=3, lora_alpha=5, use_rslora=True),
    "dora": dict(target_modules=["k_proj", "down_proj"], r=2, use_dora=True),
    "everything": dict(target_modules="all-linear", r=2, exclude_modules=["o_proj"]),
    "expression": dict(target_modules=r".*\.(q|k)_proj", r=2),
    "patterns": dict(target_modules=["q_proj", "gate_proj", "up_proj"], r=4, rank_pattern={"layers.1.self_attn.q_proj": 2, "up_proj": 1},
                     alpha_pattern={r"layers.[02].mlp.gate_proj": 20}),
    "layers": dict(target_modules=["q_proj", "up_proj"], r=2, layers_to_transform=[0, 2], layers_pattern="layers"),
    "one layer": dict(target_modules=["q_proj"], r=2, layers_to_transform=1),
    "all biases": dict(target_modules=["q_proj"], r=2, bias="all"),
    "own biases": dict(target_modules=["q_proj", "up_proj"], r=2, bias="lora_only"),
    "embeddings": dict(target_modules=["embed_tokens", "lm_head", "q_proj"], r=2),
    "embedding dora": dict(target_modules=["embed_tokens", "v_proj"], r=2, use_dora=True, use_rslora=True),
    "gaussian": dict(target_modules=["o_proj"], r=30, init_lora_weights="gaussian", lora_dropout=0.25),
}
GPT_2_OPTIONS = {
    "attention": dict(target_modules=["c_attn"], r=3, lora_alpha=5),
    "everything": dict(target_modules=["c_attn", "c_proj", "c_fc"], r=2, use_rslora=True),
    "dora": dict(target_modules=["c_attn", "mlp.c_proj"], r=2, use_dora=True),
    "biases": dict(target_modules=["c_attn", "attn.c_proj"], r=2, bias="all", layers_to_transform=[1]),
    "own biases": dict(target_modules=["c_attn"], r=2, bias="lora_only", rank_pattern={"h.1.attn.c_attn": 4}),
}
BOTH = [(LLAMA, name, options) for name, options in OPTIONS.items()] + [(GPT_2, name, options) for name, options in GPT_2_OPTIONS.items()]


@pytest.mark.parametrize(("config", "name", "options"), BOTH, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_what_peft_saves_is_read(tmp_path, config, name, options):
    model = theirs(config)
    base = base_state(model, config)
    tuned = shaken(peft.get_peft_model(model, peft.LoraConfig(**options)))
    tuned.save_pretrained(tmp_path)
    with torch.no_grad():
        want = tuned(torch.tensor(IDS)).logits.numpy()
    lora, state = load_adapter(tmp_path, config)
    ours = merged(base, lora, state)
    near(logits(config, ours), want)
    assert np.abs(logits(config, base) - want).max() > 1e-2                          # the adapter does something
    assert lora.dropout == options.get("lora_dropout", 0.0) and lora.start == options.get("init_lora_weights", "kaiming")

    # And written by us, read by peft on a fresh copy of the base: the same again, to the bit where nothing had to be joined.
    save_adapter(tmp_path / "ours", config=lora, model_config=config, state=state)
    again = peft.PeftModel.from_pretrained(theirs(config), tmp_path / "ours")
    with torch.no_grad():
        near(again(torch.tensor(IDS)).logits.numpy(), want)
    equal(base_state(again.merge_and_unload(), config), ours)
    lora2, state2 = load_adapter(tmp_path / "ours", config)
    assert lora2 == lora and state2.keys() == state.keys()
    assert all(np.array_equal(state2[name], state[name]) for name in state)


OURS = [
    (LLAMA, LoRAConfig(r=3, alpha=5)),
    (LLAMA, LoRAConfig(r=2, targets="all-linear", exclude=("k_proj",), rslora=True, dropout=0.5)),
    (LLAMA, LoRAConfig(r=4, targets=("*_proj",), rank_pattern={"q_proj": 2, "blocks.1.mlp.up_proj": 7, "v_proj": 0},
                       alpha_pattern={r"blocks.2\..*": 3, "down_proj": 0.5}, start="pissa", lora_plus=4.0)),
    (LLAMA, LoRAConfig(r=2, targets=("tokens", "head", "o_proj"), dora=True, layers=None, bias="lora_only")),
    (LLAMA, LoRAConfig(r=2, targets=r".*attn\..*", layers=(0, 2), bias="all")),
    (GPT_2, LoRAConfig(r=3, alpha=5)),                                   # the standard two of three: k has none
    (GPT_2, LoRAConfig(r=3, alpha=16, targets="all-linear", start="gaussian")),
    (GPT_2, LoRAConfig(r=3, targets=("q_proj", "k_proj", "v_proj", "o_proj"), rslora=True, dora=True, bias="all")),
    (GPT_2, LoRAConfig(r=2, targets=("v_proj", "down_proj"), dora=True, bias="lora_only", layers=1)),
    (GPT_2, LoRAConfig(r=4, targets=("q_proj", "k_proj", "v_proj"), rank_pattern={"k_proj": 1, "blocks.1.attn.v_proj": 0},
                       alpha_pattern={"v_proj": 3, "blocks.1.attn.k_proj": 40})),
    (GPT_2, LoRAConfig(r=2, targets=("tokens", "k_proj"), rslora=True, rank_pattern={"k_proj": 5})),
]


@pytest.mark.parametrize(("config", "lora"), OURS, ids=lambda v: type(v).__name__.removesuffix("Config"))
def test_what_we_save_is_read_by_peft(tmp_path, config, lora):
    model = theirs(config)
    base = base_state(model, config)
    state = drawn(config, lora, base)
    save_adapter(tmp_path, config=lora, model_config=config, state=state, base=base, base_name="some/base")
    tuned = peft.PeftModel.from_pretrained(model, tmp_path)
    with torch.no_grad():
        got = tuned(torch.tensor(IDS)).logits.numpy()
    full = merged(base, lora, {name: array for name, array in state.items() if array.size})
    tied = config is GPT_2 and "tokens" in lora.targets       # peft's head keeps the table without the adapter until they are merged
    if not tied:
        near(got, logits(config, full))

    # Every array of the file went into peft's model, and none of peft's kept its start.
    saved = peft.get_peft_model_state_dict(tuned, save_embedding_layers=False)
    import safetensors.numpy
    file = safetensors.numpy.load_file(tmp_path / "adapter_model.safetensors")
    assert set(file) == set(saved) and all(np.array_equal(file[name], saved[name].numpy()) for name in file)

    back, arrays = load_adapter(tmp_path, config)
    assert back == (lora if lora.start != "pissa" else LoRAConfig(**{**vars(lora), "start": "kaiming"}))
    assert arrays.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_allclose(arrays[name], array, rtol=1e-14, atol=0)
    (tmp_path / "manifest.json").unlink()                    # as any other reader sees the two files
    foreign, arrays = load_adapter(tmp_path, config)
    equal(merged(base, foreign, arrays), full)
    equal(base_state(tuned.merge_and_unload(), config), full)


@pytest.mark.parametrize(("config", "name"), [(LLAMA, name) for name in OPTIONS] + [(GPT_2, name) for name in GPT_2_OPTIONS])
def test_our_layers_say_what_peft_says(tmp_path, config, name):
    """Read from peft into our adapted layers, and written again from them."""
    model = theirs(config)
    base = base_state(model, config)
    tuned = shaken(peft.get_peft_model(model, peft.LoraConfig(**(OPTIONS if config is LLAMA else GPT_2_OPTIONS)[name])))
    tuned.save_pretrained(tmp_path)
    with torch.no_grad():
        want = tuned(torch.tensor(IDS)).logits.numpy()

    ours = (Llama if isinstance(config, LlamaConfig) else GPT2)(config, dtype=np.float64)
    ours.load_state_dict(base)
    lora, state = load_adapter(tmp_path, config)
    apply_lora(ours, lora)
    load_adapter_state(ours, state)
    near(ours(IDS), want)
    save_adapter(tmp_path / "again", config=lora, model_config=config, state=adapter_state(ours))
    again, arrays = load_adapter(tmp_path / "again", config)
    assert again == lora and arrays.keys() == state.keys() and all(np.array_equal(arrays[name], state[name]) for name in state)


def test_the_scale_of_what_is_joined_is_exact(tmp_path):
    lora = LoRAConfig(r=3, alpha=16)
    base = base_state(theirs(GPT_2), GPT_2)
    state = drawn(GPT_2, lora, base)
    save_adapter(tmp_path, config=lora, model_config=GPT_2, state=state)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert values["target_modules"] == ["c_attn"] and values["r"] == 6 and values["lora_alpha"] == 32 and values["rank_pattern"] == {}
    assert values["lora_alpha"] / values["r"] == 16 / 3 and values["init_lora_weights"] is True
    _, arrays = load_adapter(tmp_path, GPT_2)
    assert all(np.array_equal(arrays[name], state[name]) for name in state)


def test_of_several_patterns_the_first_counts_after_reading_too(tmp_path):
    lora = LoRAConfig(r=4, targets=("q_proj",), rank_pattern={"q_proj": 3, r"blocks.0.*": 2},
                      alpha_pattern={"q_proj": 3.5, "blocks.1.*": 9})
    state = drawn(LLAMA, lora, base_state(theirs(LLAMA), LLAMA))
    save_adapter(tmp_path, config=lora, model_config=LLAMA, state=state)
    back, _ = load_adapter(tmp_path, LLAMA)
    assert [back.options(f"blocks.{i}.attn.q_proj") for i in range(3)] == [lora.options(f"blocks.{i}.attn.q_proj") for i in range(3)]


def test_a_checkpoint_can_be_an_adapter_too(tmp_path):
    lora = LoRAConfig(r=2)
    model = theirs(LLAMA)
    base = base_state(model, LLAMA)
    state = drawn(LLAMA, lora, base)
    values, arrays = adapter_to_peft(lora, LLAMA, state)
    path = checkpoint.save(tmp_path, 1, arrays={"adapter_model": arrays, "optimizer": {}},
                           values={"adapter_config": values, "progress": {}})
    back, again = load_adapter(path, LLAMA)
    assert back == lora and all(np.array_equal(again[name], state[name]) for name in state)
    equal(base_state(peft.PeftModel.from_pretrained(model, path).merge_and_unload(), LLAMA), merged(base, lora, state))
    (path / "adapter_model.safetensors").write_bytes((path / "adapter_model.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors with the \d+ bytes that were written"):
        load_adapter(path, LLAMA)


def test_what_a_base_model_without_a_head_had_is_read(tmp_path):
    for config, part, targets in [(GPT_2, "transformer", ["c_attn"]), (LLAMA, "model", ["q_proj", "embed_tokens"])]:
        tuned = shaken(peft.get_peft_model(getattr(theirs(config), part), peft.LoraConfig(target_modules=targets, r=2)))
        tuned.save_pretrained(tmp_path / part)
        _, state = load_adapter(tmp_path / part, config)
        assert "blocks.0.attn.q_proj.lora_A" in state and ("tokens.lora_A" in state) == (config is LLAMA)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_half_precision_is_read(tmp_path, dtype):
    model = theirs(LLAMA).to(getattr(torch, dtype))
    tuned = shaken(peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2), autocast_adapter_dtype=False))
    tuned.save_pretrained(tmp_path)
    _, state = load_adapter(tmp_path, LLAMA)
    weight = tuned.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight
    assert weight.dtype == getattr(torch, dtype) and state["blocks.0.attn.q_proj.lora_A"].dtype == "float32"
    assert np.array_equal(state["blocks.0.attn.q_proj.lora_A"].astype("float64"), weight.detach().double().numpy())
