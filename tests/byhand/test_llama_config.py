"""A Llama's configuration: what it refuses, what it fills in, and that its presets train."""

import dataclasses
import json

import pytest

from byhand import cli
from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig
from byhand.configs.rope import RopeConfig
from byhand.run_config import resolve
from byhand.training_config import PRESETS, TrainingConfig

SIZES = dict(vocabulary=5, max_length=4, d_model=12, n_layers=1, n_heads=6)


@pytest.mark.parametrize(("change", "message"), [
    (dict(vocabulary=0), r"vocabulary as an integer >= 1; got vocabulary=0"),
    (dict(max_length=2.0), r"max_length as an integer >= 1"),
    (dict(d_model=True), r"d_model as an integer >= 1"),
    (dict(n_layers=0), r"n_layers as an integer >= 1"),
    (dict(n_heads=-1), r"n_heads as an integer >= 1"),
    (dict(n_heads=5), r"d_model to be a multiple of n_heads, or a head_width; got d_model 12 of type int, n_heads 5 of type int"),
    (dict(n_kv_heads=0), r"n_kv_heads as an integer >= 1"),
    (dict(n_kv_heads=4), r"n_heads to be a multiple of n_kv_heads; got n_heads 6 of type int, n_kv_heads 4 of type int"),
    (dict(d_hidden=0), r"d_hidden as an integer >= 1"),
    (dict(head_width=0), r"head_width as an integer >= 1"),
    (dict(rope=4), r"rope as a RopeConfig; got rope 4 of type int"),
    (dict(rope=RopeConfig(width=4)), r"a rope for this width of heads; got rope 4 of type int, head_width 2"),
    (dict(window=0), r"window as an integer >= 1"),
    (dict(attention_bias="all"), r"attention_bias from False, True, 'qkv'"),
    (dict(mlp_bias="no"), r"mlp_bias as True or False"),
    (dict(qk_norm=1), r"qk_norm as True or False"),
    (dict(tied=None), r"tied as True or False"),
    (dict(dropout=1.5), r"dropout in \[0, 1\]; got dropout=1.5"),
    (dict(norm_eps=0.0), r"norm_eps > 0 and finite"),
    (dict(activation=3), r"activation by name"),
    (dict(n_kv_head=2), r"known keys; got 'n_kv_head' \(did you mean 'n_kv_heads'\?\)"),
])
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^LlamaConfig needs {message}"):
        LlamaConfig.from_dict(SIZES | change)


def test_an_odd_head_is_refused_by_its_rope():
    with pytest.raises(ValueError, match="RopeConfig needs an even width"):
        LlamaConfig(**SIZES | dict(n_heads=4))


@pytest.mark.parametrize(("d_model", "d_hidden"), [(96, 256), (97, 512), (576, 1536), (2048, 5632), (4096, 11008)])
def test_the_hidden_width_is_that_of_the_published_models(d_model, d_hidden):
    assert LlamaConfig(**SIZES | dict(d_model=d_model, head_width=2)).d_hidden == d_hidden


@pytest.mark.parametrize("config", LLAMA_PRESETS.values(), ids=LLAMA_PRESETS)
def test_a_config_survives_being_written_down(config):
    written = json.dumps(dataclasses.asdict(config))
    assert LlamaConfig.from_dict(json.loads(written)) == config


def test_every_scaling_survives_being_written_down():
    rope = RopeConfig(width=2, type="longrope", factor=2.0, original_length=4, short_factor=(1.0,), long_factor=(2.0,))
    config = LlamaConfig(**SIZES, rope=rope)
    assert LlamaConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_presets_of_all_families_train_and_gpt2_is_the_default(tmp_path):
    assert isinstance(resolve(TrainingConfig, preset="llama-nano", dropout=0.25).model, LlamaConfig)
    assert resolve(TrainingConfig, preset="llama-nano", dropout=0.25).model.dropout == 0.25
    assert resolve(TrainingConfig, ).preset == "gpt2-1m" and {"gpt2-nano", "llama-1m"} <= PRESETS.keys()
    with pytest.raises(ValueError, match=r"length <= 128, the longest sequence of llama-nano"):
        resolve(TrainingConfig, preset="llama-nano", length=129)


def test_a_llama_trains_alike_in_both_implementations(tmp_path):
    (tmp_path / "text.txt").write_text("def add(a, b):\n    return a + b\n" * 60)
    options = ["--backend", "both", "--dtype", "float64", "--steps", "4", "--batch", "2", "--length", "16", "--validation-batches", "1",
               "--sample", "4", "--text", str(tmp_path / "text.txt")]
    assert cli.main(["train", "--preset", "llama-nano", "--out", str(tmp_path / "run"), *options]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for one, other in zip(records[::2], records[1::2], strict=True):
        for name in ("loss", "grad_norm", "param_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-9, abs=0)
    assert cli.main(["train", "--config", str(tmp_path / "run" / "config.json"), "--out", str(tmp_path / "again")]) == 0
