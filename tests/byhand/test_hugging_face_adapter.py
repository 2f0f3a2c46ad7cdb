"""Adapters between our models and peft: what either writes the other reads, and the models then say the same."""

import json
import math
import os
import random
import re
import warnings

import numpy as np
import pytest

from byhand import checkpoint
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from byhand.hugging_face import gpt2, llama
from byhand.hugging_face.adapter import load_adapter, save_adapter
from byhand.hugging_face.adapter_maps import adapter_to_peft
from byhand.hugging_face.adapter_places import places
from numpy_impl.finetune.manager import adapter_state, apply_lora, load_adapter_state
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IDS = np.array([[1, 4, 2, 9, 0], [3, 3, 7, 10, 5]])
LLAMA = LlamaConfig(vocabulary=11, max_length=16, d_model=8, n_layers=3, n_heads=2, n_kv_heads=1, d_hidden=12, attention_bias=True)
GPT_2 = GPT2Config(vocabulary=11, max_length=16, d_model=8, n_layers=2, n_heads=2, d_hidden=12, dropout=0.0)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def theirs(config, seed=0, **options):
    """A transformers model with random weights, in float64."""
    torch.manual_seed(seed)
    if isinstance(config, LlamaConfig):
        values = llama.llama_config_to_hugging_face(config)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values, **options))
    else:
        values = gpt2.gpt2_config_to_hugging_face(config)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**values, bos_token_id=0, eos_token_id=0))
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def base_state(model, config):
    state = {name: array.numpy().copy() for name, array in model.state_dict().items()}
    return llama.llama_from_hugging_face(state, config) if isinstance(config, LlamaConfig) else gpt2.gpt2_from_hugging_face(state)


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


def drawn(config, lora, base, seed=0):
    """A random state for an adapter of ours."""
    rng, state = np.random.default_rng(seed), {}
    kinds = {name: "Embedding" if place.embedding else "Linear" for place in places(config).values() for name in place.modules}
    for name in lora.select(kinds):
        rows, columns = base[f"{name}.weight"].shape[:: -1 if name == "tokens" else 1]
        r = lora.rank(name)
        state[f"{name}.lora_A"], state[f"{name}.lora_B"] = rng.standard_normal((r, columns)), rng.standard_normal((rows, r))
        if lora.dora:
            state[f"{name}.magnitude"] = rng.uniform(0.5, 2, rows)
        if lora.bias == "lora_only" and f"{name}.bias" in base and r:
            state[f"{name}.bias"] = rng.standard_normal(rows)
    if lora.bias == "all":
        state |= {name: rng.standard_normal(array.shape) for name, array in base.items() if name.endswith(".bias")}
    return state


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


@pytest.fixture
def saved(tmp_path):
    """A small adapter of peft's, to be spoilt."""
    tuned = peft.get_peft_model(theirs(LLAMA), peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    tuned.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (dict(peft_type="IA3"), "peft_type from 'LORA'; got peft_type='IA3'"),
        (dict(use_qalora=True), "an adapter without use_qalora"),
        (dict(lora_bias=True), "an adapter without lora_bias"),
        (dict(modules_to_save=["lm_head"]), "an adapter without modules_to_save"),
        (dict(megatron_config={"a": 1}), "an adapter without megatron_config"),
        (dict(layer_replication=[[0, 2]]), "an adapter without layer_replication"),
        (dict(something_new=3), "an adapter without something_new"),
        (dict(init_lora_weights="pissa"), "path_initial_model_for_weight_conversion"),
        (dict(target_modules=["q_proj"]), "the modules of this model that adapter_config.json means"),
        (dict(target_modules=["q_proj", "v_proj", "o_proj"]), r"missing.*o_proj"),
        (dict(target_modules=None), "target_modules"),
        (dict(target_modules="("), "names or expressions"),
        (dict(target_modules=[3]), "target_modules as a list of names"),
        (dict(layers_to_transform=[0, 1]), "unknown.*layers.2"),
        (dict(r=3), r"q_proj.lora_A of shape \(3, 8\)"),
        (dict(r="2"), "r as an integer"),
        (dict(lora_alpha=-1), "lora_alpha > 0"),
        (dict(rank_pattern={"v_proj": 5}), r"v_proj.lora_A of shape \(5, 8\)"),
        (dict(rank_pattern={"(": 5}), "regular expressions"),
        (dict(rank_pattern=[1]), "rank_pattern as a dict"),
        (dict(use_dora=True), r"missing \['magnitude'\]"),
        (dict(bias="all"), r"self_attn\.\w_proj\.\w*\.?bias, as bias='all'"),
        (dict(bias="some"), "bias from"),
        (dict(lora_dropout=2), "dropout in"),
    ],
)
def test_options_that_ours_have_not_are_named(saved, changes, complaint):
    file = saved / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=complaint):
        load_adapter(saved, LLAMA)


@pytest.mark.parametrize(
    ("base", "complaint"),
    [
        (dict(n_layers=2), r"unknown.*layers\.2"),
        (dict(n_layers=4), r"missing.*layers\.3"),
        (dict(d_model=12, head_width=4), r"lora_A of shape \(2, 12\)"),
        (dict(n_kv_heads=2), r"v_proj.lora_B of shape \(8, 2\)"),
    ],
)
def test_an_adapter_for_another_base_is_refused(saved, base, complaint):
    config = LlamaConfig(**{**dict(vocabulary=11, max_length=16, d_model=8, n_layers=3, n_heads=2, n_kv_heads=1, d_hidden=12), **base})
    with pytest.raises(ValueError, match=complaint):
        load_adapter(saved, config)
    with pytest.raises(ValueError, match="adapters for the modules of this model"):
        load_adapter(saved, GPT_2)
    with pytest.raises(ValueError, match="the config of a GPT-2 or Llama"):
        load_adapter(saved, LoRAConfig())


def test_damaged_and_missing_files_are_named(saved):
    weights = (saved / "adapter_model.safetensors").read_bytes()
    for size in range(0, len(weights), 7):
        (saved / "adapter_model.safetensors").write_bytes(weights[:size])
        with pytest.raises(ValueError, match=r"load_adapter needs a complete safetensors file; .*adapter_model\.safetensors"):
            load_adapter(saved, LLAMA)
    header = b'{"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}'
    (saved / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(ValueError, match=r"load_adapter needs .*adapter_model\.safetensors, a with a dtype.*'F8_E4M3'"):
        load_adapter(saved, LLAMA)
    (saved / "adapter_model.safetensors").write_bytes(weights)
    text = (saved / "adapter_config.json").read_bytes()
    for content in (text[:-20], b"[]", b"", b"\xff", b"[" * 100_000):
        (saved / "adapter_config.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"adapter_config\.json"):
            load_adapter(saved, LLAMA)
    (saved / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"adapter_config\.json: No such file"):
        load_adapter(saved, LLAMA)
    with pytest.raises(ValueError, match="No such file"):
        load_adapter(saved / "nothing", LLAMA)


def test_any_damage_to_our_own_files_is_seen(tmp_path):
    lora = LoRAConfig(r=1, targets=("q_proj",), layers=1)
    base = base_state(theirs(LLAMA), LLAMA)
    state = {name: array.astype("float32") for name, array in drawn(LLAMA, lora, base).items()}
    save_adapter(tmp_path, config=lora, model_config=LLAMA, state=state)
    rng = random.Random(0)
    for name in ("adapter_config.json", "adapter_model.safetensors", "manifest.json"):
        whole = (tmp_path / name).read_bytes()
        bits = rng.sample(range(8 * len(whole)), 100)
        spoilt = [bytes([*whole[: b // 8], whole[b // 8] ^ (1 << b % 8), *whole[b // 8 + 1 :]]) for b in bits]
        for content in [*spoilt, *(whole[:size] for size in rng.sample(range(len(whole)), 50)), whole + b" "]:
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
                load_adapter(tmp_path, LLAMA)
        (tmp_path / name).write_bytes(whole)
    assert load_adapter(tmp_path, LLAMA)[0] == lora


def test_a_crash_while_saving_leaves_the_old_adapter_or_the_new(tmp_path, monkeypatch):
    lora = LoRAConfig(r=1, targets=("q_proj",))
    base = base_state(theirs(LLAMA), LLAMA)
    first, second, third = (drawn(LLAMA, lora, base, seed) for seed in (1, 2, 3))

    class Killed(BaseException):
        pass

    def mortal(function, left):
        def call(*given, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*given, **options)

        return call

    outcomes = set()
    for last in range(100):
        path = tmp_path / str(last)
        save_adapter(path, config=lora, model_config=LLAMA, state=first)
        (path / "README.md").write_text("kept")
        old, done = first, False
        for new in (second, third):                          # the second crash finds what the first has left
            with monkeypatch.context() as patch:
                left = [last]
                for name in ("replace", "fsync"):
                    patch.setattr(os, name, mortal(getattr(os, name), left))
                try:
                    save_adapter(path, config=lora, model_config=LLAMA, state=new)
                    done = True
                except Killed:
                    pass
            _, state = load_adapter(path, LLAMA)
            which = [all(np.array_equal(state[name], known[name]) for name in state) for known in (old, new)]
            assert sum(which) == 1
            outcomes.add(which[1])
            old = new if which[1] else old
        save_adapter(path, config=lora, model_config=LLAMA, state=first)
        assert sorted(name for name in os.listdir(path) if name[0] != ".") == [
            "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json"]
        if done:
            break
    assert done and outcomes == {False, True}


@pytest.mark.parametrize(
    ("config", "lora", "change", "complaint"),
    [
        (LLAMA, LoRAConfig(r=2), {"blocks.0.attn.q_proj.lora_A": None}, r"missing \['blocks.0.attn.q_proj.lora_A'\]"),
        (LLAMA, LoRAConfig(r=2), {"blocks.9.attn.q_proj.lora_A": np.ones((2, 8))}, r"unknown \['blocks.9.attn.q_proj.lora_A'\]"),
        (LLAMA, LoRAConfig(r=2), {"blocks.0.attn.q_proj.lora_A": np.ones((3, 8))}, r"lora_A of shape \(2, 8\)"),
        (LLAMA, LoRAConfig(r=2), {"blocks.0.attn.q_proj.lora_B": np.ones((8, 2), int)}, "floats"),
        (LLAMA, LoRAConfig(r=2, bias="lora_only"), {"blocks.0.attn.q_proj.bias": np.ones(9)}, r"q_proj.bias of shape \(8,\)"),
        (LLAMA, LoRAConfig(r=2, targets=("q_prog",)), {}, "targets that match"),
        (LLAMA, LoRAConfig(r=0), {}, "a rank above 0"),
        (LLAMA, LoRAConfig(r=0, dora=True), {}, "magnitudes beside a rank above 0"),
        (GPT_2, LoRAConfig(r=2, dora=True), {}, r"blocks.0.attn.k_proj.weight in `base`"),
        (GPT_2, LoRAConfig(r=2, bias="lora_only"), {}, r"blocks.0.attn.k_proj.bias in `base`"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_nothing_is_written(tmp_path, config, lora, change, complaint):
    base = base_state(theirs(config), config)
    named = LoRAConfig(**{**vars(lora), "targets": ("q_proj", "v_proj")})
    state = drawn(config, named, base) | change
    state = {name: array for name, array in state.items() if array is not None}
    with pytest.raises(ValueError, match=complaint):
        save_adapter(tmp_path / "new", config=lora, model_config=config, state=state)
    assert not (tmp_path / "new").exists()
