"""Files of adapters: what is damaged, missing or for another model is named, and a crash leaves the old ones or the new."""

import json
import os
import random
import re
import warnings

import numpy as np
import pytest

from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from byhand.hugging_face.adapter import load_adapter, save_adapter
from tests.byhand.adapter_models import GPT_2, LLAMA, base_state, drawn, theirs

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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
