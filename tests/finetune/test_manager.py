"""Adapters of whole models: what peft chooses, what a step of training moves, what merging returns, and that a refusal changes nothing."""

import importlib
import math
from typing import Any

import numpy as np
import pytest

from byhand.configs.bert import BertConfig
from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig, lora_plus_groups
from byhand.configs.t5 import T5Config
from byhand.configs.transformer import TransformerConfig
from byhand.finetuning.ranks import ranks_for_parameters, ranks_for_share
from byhand.finetuning.report import efficiency_report, freeze_report
from byhand.finetuning.sizes import inventory, weight_shapes
from numpy_impl.finetune.manager import (
    adapter_state,
    apply_lora,
    disable_adapters,
    enable_adapters,
    load_adapter_state,
    merge_and_unload,
    merge_lora,
    remove_adapter,
    unmerge_lora,
)
from numpy_impl.layers.conv import Conv2d
from numpy_impl.layers.module import flatten
from numpy_impl.layers.stack import Stack
from numpy_impl.models.llama import Llama
from numpy_impl.optim.adamw import AdamW
from numpy_impl.quantize.linear_4bit import Linear4bit
from numpy_impl.quantize.quantize_linears import quantize_linears

SIZES = LlamaConfig(vocabulary=13, max_length=8, d_model=8, n_layers=2, n_heads=2, d_hidden=12, attention_bias=True)
IDS, TARGETS = np.array([[1, 5, 2, 7, 12]]), np.array([[5, 2, 7, 12, 0]])


def llama(dtype=np.float32, **changes):
    return Llama(LlamaConfig(**vars(SIZES) | dict(rope=None) | changes), dtype=dtype, rng=np.random.default_rng(0))


def adapted(config, model=None, seed=1):
    """A model whose adapters all do something."""
    model = model or llama()
    apply_lora(model, config, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    if config.start in ("kaiming", "gaussian"):
        load_adapter_state(model, {k: rng.normal(1.0 if "mag" in k else 0.0, 0.3, v.shape) for k, v in adapter_state(model).items()})
    return model


def snapshot(model):
    """Everything that a refusal might change."""
    return ([(name, type(module).__name__) for name, module in model.modules()],
            {name: array.tobytes() for name, array in model.state_dict().items()}, sorted(model.parameters()))


ALL = LoRAConfig(r=2, alpha=4, targets="all-linear")


def test_peft_chooses_the_same_modules_ranks_scalings_and_biases():
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    sizes = transformers.LlamaConfig(vocab_size=13, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
                                     attention_bias=True)
    for bias in ("none", "all", "lora_only"):
        theirs = peft.get_peft_model(transformers.LlamaForCausalLM(sizes), peft.LoraConfig(
            r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "up_proj"], exclude_modules=["layers.1.self_attn.v_proj"], bias=bias,
            use_rslora=True, rank_pattern={r"layers\.0\.self_attn\..*": 2, "q_proj": 3}, alpha_pattern={"up_proj": 5.0}))

        def ours(name):
            name = name.removeprefix("base_model.model.").removeprefix("model.").replace("layers.", "blocks.")
            return name.replace("self_attn", "attn").replace("base_layer", "base").replace("embed_tokens", "tokens")

        model = llama()
        names = apply_lora(model, LoRAConfig(
            r=4, alpha=6, targets=["q_proj", "v_proj", "up_proj"], exclude=["blocks.1.attn.v_proj"], bias=bias, rslora=True,
            rank_pattern={r"blocks\.0\.attn\..*": 2, "q_proj": 3}, alpha_pattern={"up_proj": 5.0}))
        wanted = {ours(name): (module.r["default"], module.scaling["default"]) for name, module in theirs.named_modules()
                  if hasattr(module, "lora_A")}
        found = dict(model.modules())
        assert {name: (found[name].adapters["default"].r, found[name].scaling("default")) for name in names} == wanted
        biases = {ours(name) for name, parameter in theirs.named_parameters() if parameter.requires_grad and name.endswith("bias")}
        assert {name for name in model.parameters() if name.endswith("bias")} == biases
        assert sum(array.size for array in model.parameters().values()) == theirs.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("options", [dict(), dict(dora=True), dict(lora_plus=4.0), dict(start="pissa"), dict(bias="all"),
                                     dict(quantized=True)])
def test_training_moves_adapters_and_nothing_else(options):
    options = dict(options)
    model = llama()
    if options.pop("quantized", False):
        quantize_linears(model, block=8)
    config = LoRAConfig(r=2, targets="all-linear", **options)
    names = apply_lora(model, config, rng=np.random.default_rng(0))
    params = model.parameters()
    optimizer = AdamW(params, lr=0.002, groups=lora_plus_groups(params, config.lora_plus))
    before = {name: array.copy() for name, array in model.state_dict().items()}
    losses = []
    for step in range(3):
        loss, backward = model.loss(IDS, TARGETS)
        grads = flatten(backward())
        losses.append(float(loss))
        assert grads.keys() == params.keys() and all(np.isfinite(grad).all() for grad in grads.values())
        if step:
            # a shift of all scores of a query by the same amount changes nothing, so the bias of keys has no gradient
            assert all(grad.any() for name, grad in grads.items() if not name.endswith("k_proj.base.bias"))
        optimizer.step(grads)
    for name, array in model.state_dict().items():
        moved = array.tobytes() != before[name].tobytes()
        assert moved == (name in params) or name.endswith("k_proj.base.bias"), name
    assert losses[2] < losses[0] and len(names) == 14


@pytest.mark.parametrize("config", [ALL, LoRAConfig(r=3, targets=["tokens", "head", "q_proj"], dora=True, bias="all"),
                                    LoRAConfig(r=2, targets="all-linear", start="olora")])
def test_merging_keeps_the_output_and_unmerging_every_bit(config):
    model = adapted(config, llama(np.float64))
    y, before = model(IDS), snapshot(model)
    merge_lora(model)
    np.testing.assert_allclose(model(IDS), y, rtol=0, atol=1e-12)
    assert not any("adapters" in name for name in model.parameters())
    unmerge_lora(model)
    assert snapshot(model) == before and np.array_equal(model(IDS), y)
    plain = {name: type(module).__name__ for name, module in llama().modules()}
    assert len(merge_and_unload(model)) == len(config.select(plain))
    np.testing.assert_allclose(model(IDS), y, rtol=0, atol=1e-12)
    assert {name: type(module).__name__ for name, module in model.modules()} == plain


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_from_the_weights_changes_no_output(start):
    model, plain = llama(), llama()
    apply_lora(model, LoRAConfig(r=3, targets="all-linear", start=start, alpha=5, dora=start == "pissa"))
    assert any(not np.array_equal(array, plain.state_dict()[name.replace(".base", "")]) for name, array in model.state_dict().items()
               if name.endswith("q_proj.base.weight"))
    np.testing.assert_allclose(model(IDS), plain(IDS), atol=1e-5)
    adapter = model.blocks.layers[0].attn.q_proj.adapters["default"]
    assert adapter.start[0] == start and np.array_equal(adapter.start[1], adapter.lora_A) and adapter.start[1] is not adapter.lora_A
    for act in (disable_adapters, lambda m: remove_adapter(m, "default")):
        with pytest.raises(ValueError, match=f"'default' to stay on in .*, whose base is only a rest without it; got start '{start}'"):
            act(model)


def test_loftq_quantizes_with_less_loss():
    plain, quantized = llama(), llama()
    quantize_linears(quantized, exclude=("head",), block=64)
    apply_lora(loftq := llama(), LoRAConfig(r=3, targets="all-linear", start="loftq"))
    assert isinstance(loftq.blocks.layers[1].mlp.up_proj.base, Linear4bit)
    errors = [np.abs(model(IDS) - plain(IDS)).mean() for model in (loftq, quantized)]
    assert errors[0] < 0.8 * errors[1]
    apply_lora(pissa := quantized, LoRAConfig(r=2, targets=["q_proj"], start="pissa"))   # a quantized base is quantized again
    assert isinstance(pissa.blocks.layers[0].attn.q_proj.base, Linear4bit)


REFUSED = {
    "no module": (lambda m: apply_lora(m, LoRAConfig(targets=["q_prj"]), name="b"), "near: q_proj"),
    "a target of several": (lambda m: apply_lora(m, LoRAConfig(targets=["q_proj", "nowhere"]), name="b"), "'nowhere'"),
    "a name twice": (lambda m: apply_lora(m, LoRAConfig(targets=["tokens", "v_proj"])), "a name that .*v_proj has no adapter of"),
    "a dotted name": (lambda m: apply_lora(m, ALL, name="a.b"), "without a dot"),
    "no config": (lambda m: apply_lora(m, {"r": 2}), "a LoRAConfig"),
    "a start over adapters": (lambda m: apply_lora(m, LoRAConfig(targets=["k_proj", "q_proj"], start="pissa"), name="b"), "as 'pissa'"),
    "a start of a table": (lambda m: apply_lora(m, LoRAConfig(targets=["k_proj", "tokens"], start="olora"), name="b"), "as 'olora'"),
    "unmerging": (unmerge_lora, "a model with merged adapters"),
    "an unknown name": (lambda m: merge_lora(m, "default", "defautl"), "did you mean 'default'"),
    "a name said twice": (lambda m: enable_adapters(m, "default", "default"), "every name once"),
    "removing": (lambda m: remove_adapter(m, "other"), "adapter from 'default'"),
    "an adapter of another rank": (lambda m: load_adapter_state(m, adapter_state(adapted(LoRAConfig(r=3)))), r"of shape \(2, 8\)"),
    "an adapter of another base": (lambda m: load_adapter_state(m, adapter_state(adapted(LoRAConfig(r=2, layers=0)))), "missing"),
    "an adapter of other sizes": (lambda m: load_adapter_state(m, adapter_state(adapted(LoRAConfig(r=2), llama(d_model=12)))), "of shape"),
    "integers": (lambda m: load_adapter_state(m, {k: v.astype(int) for k, v in adapter_state(m).items()}), "floats"),
    "what overflows": (lambda m: load_adapter_state(m, {k: v + 1e300 for k, v in doubled(m).items()}), "finite numbers in the state"),
    "NaN": (lambda m: load_adapter_state(m, {k: v * math.nan for k, v in adapter_state(m).items()}), "finite numbers in the state"),
}


def doubled(model):
    return {name: array.astype(np.float64) for name, array in adapter_state(model).items()}


@pytest.mark.parametrize(("act", "message"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_changes_nothing(act, message):
    model = adapted(LoRAConfig(r=2))
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        act(model)
    assert snapshot(model) == before


def test_what_is_merged_stays_merged_where_more_is_refused():
    model = adapted(LoRAConfig(r=2))
    apply_lora(model, LoRAConfig(r=2, targets=["v_proj", "up_proj"]), name="other")
    merge_lora(model, "other")
    before = snapshot(model)
    refused = [lambda: merge_lora(model, "default", "other"), lambda: apply_lora(model, ALL, name="third"), lambda: disable_adapters(model),
               lambda: enable_adapters(model, "default"), lambda: remove_adapter(model, "other"),
               lambda: load_adapter_state(model, adapter_state(model, "other"), "other")]
    for act in refused:
        with pytest.raises(ValueError, match=r"unmerged first|not merged yet"):
            act()
        assert snapshot(model) == before


def test_an_adapter_that_is_not_finite_is_not_merged():
    model = adapted(ALL)
    adapter_state(model)["blocks.1.mlp.down_proj.lora_B"][0, 0] = math.inf
    before = snapshot(model)
    for act in (merge_lora, merge_and_unload):
        with pytest.raises(ValueError, match=r"finite numbers in blocks.1.mlp.down_proj's adapter 'default'; got lora_B"):
            act(model)
    assert snapshot(model) == before


@pytest.mark.parametrize("start", ["pissa", "olora", "loftq"])
def test_a_weight_that_is_not_finite_starts_nothing(start):
    model = llama()
    model.blocks.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"finite numbers in blocks.1.mlp.down_proj; got weight"):
        apply_lora(model, LoRAConfig(targets="all-linear", start=start))
    assert snapshot(model) == before


def test_groups_of_channels():
    model = Stack([Conv2d(4, 6, 3), Conv2d(6, 4, 1, groups=2)])
    before = snapshot(model)
    for config, message in [(LoRAConfig(r=3, targets=("*",)), "a rank that the groups of 1 divide"),
                            (LoRAConfig(r=2, targets=("*",), dora=True), "dora=False for 1")]:
        with pytest.raises(ValueError, match=message):
            apply_lora(model, config)
    assert snapshot(model) == before
    apply_lora(model, LoRAConfig(r=2, targets=("*",)))
    before = snapshot(model)
    for act in (merge_lora, merge_and_unload):
        with pytest.raises(ValueError, match="no adapter on 1, whose groups A mixes"):
            act(model)
    assert snapshot(model) == before


def test_a_tied_head_reads_the_table_without_adapters():
    model = adapted(LoRAConfig(r=2, targets=["tokens"]), llama(tied=True))
    y = model(IDS)
    merge_lora(model)
    np.testing.assert_allclose(model(IDS), y, atol=1e-5)
    for act in (unmerge_lora, disable_adapters):
        before = snapshot(model)
        with pytest.raises(ValueError, match=r"a head of its own beside adapters on tokens: .* \(disable or remove them"):
            merge_and_unload(model)
        assert snapshot(model) == before
        act(model)
    assert merge_and_unload(model) == ["tokens"]


SMALL: dict[str, Any] = dict(vocabulary=9, d_model=8, n_heads=2)
TIED = {
    "bert.BertMaskedLM": ("bert.tokens", BertConfig(**SMALL, max_length=6, n_layers=1)),
    "transformer.Transformer": ("tokens", TransformerConfig(**SMALL, encoder_layers=1, decoder_layers=1, d_hidden=8, tied=True)),
    "t5.T5": ("tokens", T5Config(**SMALL, encoder_layers=1, decoder_layers=1, d_hidden=8, tied=True)),
}


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("model", TIED)
def test_what_a_head_reads_as_well_is_not_merged(side, model):
    """And whatever it does not read is, other tables too."""
    (file, name), (place, config) = model.split("."), TIED[model]
    manager = importlib.import_module(f"{side}_impl.finetune.manager")
    built = getattr(importlib.import_module(f"{side}_impl.models.{file}"), name)(config)
    for outer, at in [(built, place), *([(Stack([built]), f"0.{place}")] if side == "numpy" else [])]:
        manager.apply_lora(outer, LoRAConfig(r=2, targets=["tokens", "v_proj"]))
        with pytest.raises(ValueError, match=f"a head of its own beside adapters on {at}: "):
            manager.merge_and_unload(outer)
        manager.remove_adapter(outer, "default")
    manager.apply_lora(built, LoRAConfig(r=2, targets=["segments", "v_proj"] if file == "bert" else ["v_proj"]))
    assert manager.merge_and_unload(built)


def test_two_adapters_side_by_side():
    model = adapted(LoRAConfig(r=2))
    one = model(IDS)
    apply_lora(model, LoRAConfig(r=3, targets=["q_proj", "down_proj"]), name="other")
    assert np.array_equal(model(IDS), one) and {name.split(".")[-2] for name in model.parameters()} == {"default", "other"}
    adapter_state(model, "other")["blocks.0.mlp.down_proj.lora_B"][...] = 1
    both = model(IDS)
    enable_adapters(model, "other")
    other = model(IDS)
    assert all(".other." in name for name in model.parameters())
    disable_adapters(model)
    base = model(IDS)
    assert np.array_equal(base, llama()(IDS)) and not model.parameters()
    enable_adapters(model)
    assert np.array_equal(model(IDS), both)
    assert len({y.tobytes() for y in (one, other, both, base)}) == 4
    remove_adapter(model, "other")
    assert np.array_equal(model(IDS), one) and type(dict(model.modules())["blocks.0.mlp.down_proj"]).__name__ == "Linear"


@pytest.mark.parametrize("options", [dict(r=0), dict(r=40), dict(r=2, alpha=1e30), dict(r=1, rslora=True)])
def test_extreme_ranks_and_scalings(options):
    model = llama()
    apply_lora(model, LoRAConfig(targets="all-linear", **options), rng=np.random.default_rng(0))
    y = model(IDS)
    assert np.array_equal(y, llama()(IDS))                               # B is zero, whatever the scaling
    _, backward = model.loss(IDS, TARGETS)
    assert all(np.isfinite(grad).all() for grad in flatten(backward()).values())
    merge_lora(model)
    np.testing.assert_allclose(model(IDS), y, atol=1e-6)
    unmerge_lora(model)


def test_reports_and_plans_count_what_is_there():
    model = llama()
    kinds = {name: type(module).__name__ for name, module in model.modules()}
    config = LoRAConfig(targets=["attn.*", "mlp.*", "tokens"], dora=True)
    shapes = weight_shapes(model, config.select(kinds))
    for plan in (ranks_for_share(shapes, 0.3, total=SIZES.parameters, dora=True),
                 ranks_for_parameters(shapes, 500, allocation="parameters", dora=True)):
        model = llama()
        planned = plan.config(config)
        names = apply_lora(model, planned)
        report = efficiency_report(shapes, plan.ranks, total=SIZES.parameters, dora=True)
        trained = sum(array.size for array in model.parameters().values())
        assert names == list(shapes) and trained == plan.parameters == report.trainable <= plan.budget
        frozen = freeze_report(inventory(model))
        assert frozen.total.trainable == trained and frozen.total.frozen == SIZES.parameters
        assert {row.name: row.trainable for row in frozen.rows if row.name in shapes} == {
            layer.name: layer.adapter for layer in report.layers}
        assert weight_shapes(model, names) == shapes
        assert report.memory().base + report.memory().adapters == frozen.total.bytes


@pytest.mark.parametrize("double", [False, True])
def test_a_quantized_base_is_counted_in_its_own_bytes(double):
    model = llama()
    names = quantize_linears(model, block=8, double=double)
    apply_lora(model, LoRAConfig(r=2, targets="all-linear"))
    assert len(names) == 14
    report = efficiency_report(weight_shapes(model, names), dict.fromkeys(names, 2), total=SIZES.parameters, block=8,
                               base="4bit-double" if double else "4bit")
    frozen = freeze_report(inventory(model)).total
    assert frozen.bytes == report.memory().base + report.memory().adapters
    assert (frozen.parameters, frozen.trainable) == (report.parameters + report.trainable, report.trainable)
