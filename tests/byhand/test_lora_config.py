"""LoRA's configuration: what it refuses, which modules it means, and that peft means the same ones."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byhand.configs.lora import LoRAConfig, lora_plus_groups
from byhand.configs.targets import by_key, matches
from numpy_impl.optim.adamw import AdamW

BLOCK = {"norm1": "RMSNorm", "attn": "GroupedQueryAttention", "attn.q_proj": "Linear", "attn.k_proj": "Linear", "attn.v_proj": "Linear",
         "attn.o_proj": "Linear4bit", "norm2": "RMSNorm", "mlp": "GatedFeedForward", "mlp.up_proj": "Linear", "mlp.down_proj": "Linear"}
MODULES = {"tokens": "Embedding", "blocks": "Stack"} | {
    name: kind for i in range(3) for name, kind in {f"blocks.{i}": "LlamaBlock", **{f"blocks.{i}.{n}": k for n, k in BLOCK.items()}}.items()
} | {"norm": "RMSNorm", "head": "Linear"}


@pytest.mark.parametrize(("values", "message"), [
    (dict(r=-1), r"r as an integer >= 0; got r=-1"),
    (dict(r=1.5), r"r as an integer >= 0"),
    (dict(alpha=0), r"alpha > 0 and finite; got alpha=0"),
    (dict(alpha=float("inf")), r"alpha > 0 and finite"),
    (dict(alpha="1e-4"), r"alpha > 0 and finite; got alpha='1e-4'"),
    (dict(alpha=2e30), r"alpha in \[0, 1e\+30\]; got alpha=2e\+30"),
    (dict(alpha_pattern={"v_proj": 2e30}), r"alpha_pattern\['v_proj'\] in \[0, 1e\+30\]"),
    (dict(targets=()), r"at least one target"),
    (dict(targets=3), r"targets as a list of names or a regular expression"),
    (dict(targets=("q_proj", "")), r"targets as a list of names or a regular expression"),
    (dict(exclude=[1]), r"exclude as a list of names or a regular expression"),
    (dict(rslora=1), r"rslora as True or False"),
    (dict(dora=None), r"dora as True or False"),
    (dict(dropout=1.5), r"dropout in \[0, 1\]"),
    (dict(bias="lora"), r"bias from 'none', 'all', 'lora_only'; got bias='lora'"),
    (dict(start="pisa"), r"start from .*got start='pisa' \(did you mean 'pissa'\?\)"),
    (dict(rank_pattern=[4]), r"rank_pattern as a dict"),
    (dict(rank_pattern={"q_proj": 2.0}), r"rank_pattern\['q_proj'\] as an integer >= 0"),
    (dict(alpha_pattern={"q_proj": 0}), r"alpha_pattern\['q_proj'\] > 0"),
    (dict(layers=()), r"layers as block numbers"),
    (dict(layers="0"), r"layers as block numbers"),
    (dict(layers=(0, -1)), r"layer as an integer >= 0; got layer=-1"),
    (dict(lora_plus=0), r"lora_plus > 0"),
    (dict(rnak=2), r"known keys; got 'rnak'"),
])
def test_bad_values_are_refused(values, message):
    with pytest.raises(ValueError, match=f"^LoRAConfig needs {message}"):
        LoRAConfig.from_dict(values)


@pytest.mark.parametrize("values", [dict(targets="q_proj("), dict(exclude="*"), dict(rank_pattern={"(": 2}), dict(alpha_pattern={"+": 2})])
def test_what_is_no_regular_expression_is_refused(values):
    with pytest.raises(ValueError, match=r"^LoRAConfig.s .* needs a regular expression; got"):
        LoRAConfig(**values)


def test_a_config_survives_being_written_down():
    config = LoRAConfig(r=0, targets=["q_proj", "*_proj"], exclude=r".*\.1\..*", rank_pattern={"v_proj": 2}, alpha_pattern={"^blocks": 3.5},
                        layers=1, start="loftq", lora_plus=16.0)
    assert LoRAConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert config.targets == ("q_proj", "*_proj") and config.layers == (1,) and hash(config) == hash(dataclasses.replace(config))
    assert LoRAConfig.from_dict({}) == LoRAConfig()


def test_numpys_integers_are_written_down_too():
    config = LoRAConfig(r=np.int64(4), alpha=np.float64(3), rank_pattern={"v_proj": np.int32(2)}, layers=[np.int64(0), 1])
    assert json.loads(json.dumps(dataclasses.asdict(config))) == json.loads(json.dumps(dataclasses.asdict(
        LoRAConfig(r=4, alpha=3.0, rank_pattern={"v_proj": 2}, layers=(0, 1)))))
    assert LoRAConfig(layers=np.int64(1)) == LoRAConfig(layers=1)


def test_a_config_does_not_share_its_patterns():
    pattern = {"v_proj": 2}
    config = LoRAConfig(rank_pattern=pattern)
    pattern["v_proj"] = 3
    assert config.rank("v_proj") == 2


def block(i, *names):
    return [f"blocks.{i}.{name}" for name in names]


@pytest.mark.parametrize(("values", "names"), [
    (dict(targets=("v_proj", "q_proj"), layers=(2,)), block(2, "attn.q_proj", "attn.v_proj")),
    (dict(targets=("attn.?_proj",), exclude=("k_proj", "v_proj"), layers=0), block(0, "attn.q_proj", "attn.o_proj")),
    (dict(targets=("blocks.1.*",), exclude="blocks.1.attn.*"), block(1, "mlp.up_proj", "mlp.down_proj")),
    (dict(targets=("tokens", "head")), ["tokens", "head"]),
    (dict(targets=("head", "blocks.0.attn.q_proj")), [*block(0, "attn.q_proj"), "head"]),
    (dict(targets=r"blocks\.[02]\.mlp\.up_proj"), [*block(0, "mlp.up_proj"), *block(2, "mlp.up_proj")]),
    (dict(targets="all-linear"), [n for n, kind in MODULES.items() if kind.startswith("Linear") and n != "head"]),
    (dict(targets=("*",)), [n for n, kind in MODULES.items() if kind in ("Linear", "Linear4bit", "Embedding")]),
])
def test_targets_mean_these_modules(values, names):
    assert LoRAConfig(**values).select(MODULES) == names


@pytest.mark.parametrize(("values", "message"), [
    (dict(targets=("q_proj", "v_porj")), r"targets that match some of the model's modules; got 'v_porj'.*near: v_proj"),
    (dict(targets="q_proj"), r"targets that match .* a string is a regular expression for a whole name.*got 'q_proj' \(near: q_proj"),
    (dict(targets=("norm1",)), r"targets of the kinds Linear, .*; got 'norm1', which means RMSNorm"),
    (dict(targets=r"blocks\.\d"), r"targets of the kinds Linear, .*which means LlamaBlock"),
    (dict(targets=("q_proj",), exclude=("attn.*",)), r"a target that exclude and layers leave"),
    (dict(targets=("*",), exclude=("tokens", "lm_head")), r"exclude that matches some of the model's modules; got 'lm_head' \(near: head"),
    (dict(targets=("*",), exclude=("norm1",)), r"exclude that matches some of the model's modules; got 'norm1'"),
    (dict(targets=("*",), exclude="q_proj"), r"exclude that matches .* a string is a regular expression .*got 'q_proj' \(near: q_proj"),
    (dict(layers=(1, 3)), r"layers among \[0, 1, 2\], the blocks with a target; got layer 3"),
    (dict(targets=("head",), layers=(0,)), r"layers among \[\]"),
    (dict(rank_pattern={"v_proj": 1, "o_proj": 2}), r"pattern keys that match a target; got 'o_proj' \(near: .*q_proj"),
    (dict(layers=(0,), alpha_pattern={"blocks.1.*": 2}), r"pattern keys that match a target; got 'blocks.1.\*'"),
])
def test_what_means_nothing_is_named_with_what_is_near(values, message):
    with pytest.raises(ValueError, match=f"^apply_lora needs {message}"):
        LoRAConfig(**values).select(MODULES, function="apply_lora")


def test_a_model_without_linear_layers_has_no_all_linear():
    with pytest.raises(ValueError, match="a model with a Linear for the targets 'all-linear'"):
        LoRAConfig(targets="all-linear").select({"tokens": "Embedding", "head": "Linear"})


def test_the_first_key_that_matches_counts():
    config = LoRAConfig(r=8, alpha=16, rank_pattern={"blocks.0.attn.q_proj": 1, "q_proj": 2, "^v.*": 3}, alpha_pattern={r"attn\..*": 4})
    assert [config.rank(f"blocks.{i}.attn.q_proj") for i in (0, 1)] == [1, 2]
    assert (config.rank("blocks.0.attn.v_proj"), config.rank("v_proj")) == (8, 3)
    assert config.options("blocks.0.attn.k_proj")["alpha"] == 4 and config.options("attn")["alpha"] == 16


PARTS = st.sampled_from(["q_proj", "v_proj", "proj", "blocks", "0", "1", "10", "attn", "xq_proj"])
DOTTED = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
KEYS = st.one_of(DOTTED, st.sampled_from([".*proj", "^blocks", r"blocks\.\d", r"attn\..*", "(q|v)_proj", "blocks.1"]))


@given(DOTTED, st.lists(KEYS, max_size=4, unique=True))
def test_keys_and_targets_mean_what_peft_means(name, keys):
    other = pytest.importorskip("peft.utils.other")
    tuners = pytest.importorskip("peft.tuners.tuners_utils")
    peft = pytest.importorskip("peft")
    found = other.get_pattern_key(keys, name)
    assert by_key({key: key for key in keys}, name, None) == (found if found in keys else None)
    plain = [key for key in keys if not set(key) & set("*?[(^\\")]
    if plain:
        config = peft.LoraConfig(target_modules=plain)
        assert matches(name, tuple(plain)) == bool(tuners.check_target_module_exists(config, name))
    if keys:
        config = peft.LoraConfig(target_modules=keys[0])
        assert matches(name, keys[0]) == bool(tuners.check_target_module_exists(config, name))


@given(st.lists(PARTS, min_size=2, max_size=5).map(".".join), st.integers(0, 10))
def test_layers_count_as_in_peft(name, layer):
    tuners = pytest.importorskip("peft.tuners.tuners_utils")
    peft = pytest.importorskip("peft")
    name += ".q_proj"
    config = peft.LoraConfig(target_modules=["q_proj"], layers_to_transform=[layer])
    ours = LoRAConfig(targets=["q_proj"], layers=layer)
    try:
        chosen = ours.select({name: "Linear"}) == [name]
    except ValueError:
        chosen = False
    assert chosen == bool(tuners.check_target_module_exists(config, "model." + name))   # peft asks for a part before the list's name


def test_lora_plus_scales_the_rate_of_b_alone():
    params = {f"q_proj.adapters.default.lora_{x}": np.ones(2) for x in "AB"} | {"norm.bias": np.ones(2)}
    optimizer = AdamW(params, lr=0.01, weight_decay=0.0, groups=lora_plus_groups(params, 4))
    optimizer.step({name: np.ones(2) for name in params})
    moved = {name.rpartition(".")[2]: 1 - value[0] for name, value in params.items()}
    assert moved["lora_B"] == pytest.approx(4 * moved["lora_A"]) and moved["bias"] == moved["lora_A"] > 0
    assert lora_plus_groups(params, None) == []
    with pytest.raises(ValueError, match="a parameter called lora_B"):
        lora_plus_groups(["norm.bias"], 4)
    with pytest.raises(ValueError, match="ratio > 0"):
        lora_plus_groups(params, 0.0)
