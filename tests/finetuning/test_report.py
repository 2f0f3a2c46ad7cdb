"""Reports count what a model holds, bytes as they lie in memory."""

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from byhand.configs.llama import LlamaConfig
from byhand.finetuning.report import efficiency_report, freeze_report
from byhand.finetuning.sizes import STORAGES, inventory, weight_bytes, weight_shapes
from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.layers.linear import Linear
from numpy_impl.models.llama import Llama

SIZES = LlamaConfig(vocabulary=11, max_length=8, d_model=8, n_layers=3, n_heads=2, d_hidden=12, attention_bias=True)


def printed(table):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_a_model_is_counted_alike_on_both_sides():
    torch_llama = pytest.importorskip("torch_impl.models.llama").Llama
    numpy_model, torch_model = Llama(SIZES), torch_llama(SIZES)
    numpy_model.freeze().unfreeze("*.q_proj.*")
    for name, parameter in torch_model.named_parameters():
        parameter.requires_grad_(".q_proj." in name)
    ours, theirs = inventory(numpy_model), inventory(torch_model)
    assert sorted(ours, key=lambda s: s.name) == sorted(theirs, key=lambda s: s.name)
    assert {s.name: s.shape for s in ours} == {name: array.shape for name, array in numpy_model.state_dict().items()}
    assert {s.name for s in ours if s.trains} == numpy_model.parameters().keys()
    report = freeze_report(ours)
    assert report.total.parameters == SIZES.parameters and report.total.bytes == 4 * SIZES.parameters
    assert report.total.trainable == 3 * (8 * 8 + 8) and report.total.frozen == SIZES.parameters - 216
    collapsed = {row.name: row for row in report.by_name().rows}
    assert (collapsed["blocks.*.attn.q_proj"].modules, collapsed["blocks.*.attn.q_proj"].share) == (3, 1.0)
    assert collapsed["tokens"].trainable == 0 and freeze_report(inventory(numpy_model)).by_name().total == report.total.__class__(
        "total", SIZES.parameters, 216, 4 * SIZES.parameters, len(report.rows))


def test_an_adapted_layer_alone_is_one_module():
    layer = LoRALinear(Linear(4, 3), r=2, alpha=1)
    assert [(row.name, row.parameters, row.trainable) for row in freeze_report(inventory(layer)).rows] == [("(model)", 15 + 14, 14)]


def test_shapes_of_weights_by_module_name():
    assert weight_shapes(Llama(SIZES), ["blocks.1.mlp.down_proj", "tokens"]) == {"blocks.1.mlp.down_proj": (8, 12), "tokens": (8, 11)}
    with pytest.raises(ValueError, match=r"names of modules that have a weight; got name 'blocks.1.mlp'"):
        weight_shapes(Llama(SIZES), ["blocks.1.mlp"])
    with pytest.raises(ValueError, match=r"names of modules; got name 'blocks.7'"):
        weight_shapes(Llama(SIZES), ["blocks.7"])


def test_the_tables_say_what_was_counted():
    model = Llama(SIZES)
    model.freeze().unfreeze("*.q_proj.*")
    text = printed(freeze_report(inventory(model)).table())
    assert f"216 of {SIZES.parameters:,} parameters train" in text and "blocks.*.attn.q_proj × 3" in text
    assert "blocks.2.attn.q_proj" in printed(freeze_report(inventory(model)).table(every_block=True))
    shapes = {f"blocks.{i}.attn.q_proj": (64, 32) for i in range(2)} | {"head": (10, 32)}
    report = efficiency_report(shapes, {"blocks.0.attn.q_proj": 4, "blocks.1.attn.q_proj": 4, "head": 0}, total=10_000, base="4bit")
    text = printed(report.table())
    assert "blocks.*.attn.q_proj × 2" in text and "64 × 32" in text and "5.3 ×" in text and "∞" in text and "7.680%" in text
    assert "blocks.1.attn.q_proj" in printed(report.table(every_block=True))
    assert all(name in printed(report.storages()) for name in ("all trained", *STORAGES))


@given(st.integers(0, 5000), st.integers(1, 300))
def test_bytes_are_those_of_the_arrays(parameters, block):
    blocks = math.ceil(parameters / block)
    codes, absmax = np.zeros(math.ceil(parameters / 2), np.uint8), np.zeros(blocks, np.float32)
    again = np.zeros(blocks, np.uint8), np.zeros(math.ceil(blocks / 256), np.float32), np.zeros((), np.float32)
    assert weight_bytes(parameters, "4bit", block=block) == codes.nbytes + absmax.nbytes
    assert weight_bytes(parameters, "4bit-double", block=block) == codes.nbytes + sum(array.nbytes for array in again)
    assert weight_bytes(parameters, "float32") == 2 * weight_bytes(parameters, "bfloat16") == 4 * parameters


def test_the_memory_of_a_published_qlora_run():
    # Dettmers et al. 2023 (arXiv:2305.14314), section 3: double quantization saves 0.373 bits a parameter, from 0.5 to 0.127
    n = 64 * 256 * 1000
    single, double = (8 * weight_bytes(n, storage) / n - 4 for storage in ("4bit", "4bit-double"))
    assert single == 0.5 and double == pytest.approx(0.127, abs=1e-4) and single - double == pytest.approx(0.373, abs=1e-3)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5), st.integers(0, 9), st.integers(0, 1000),
       st.sampled_from(STORAGES), st.sampled_from(["float32", "bfloat16"]), st.sampled_from([0, 1, 2]), st.booleans())
def test_the_parts_of_a_report_add_up(shapes, rank, rest, base, trained, states, dora):
    shapes = {f"w{i}": shape for i, shape in enumerate(shapes)}
    weights = sum(out * width for out, width in shapes.values())
    report = efficiency_report(shapes, dict.fromkeys(shapes, rank), total=weights + rest, base=base, trained=trained, states=states,
                               dora=dora)
    adapters = sum(rank * (out + width) + (out if dora else 0) for out, width in shapes.values())
    assert (report.parameters, report.trainable) == (weights + rest, adapters)
    width, memory = 4 if trained == "float32" else 2, report.memory()
    assert (memory.adapters, memory.gradients, memory.states) == (width * adapters, width * adapters, 4 * states * adapters)
    assert memory.base == sum(weight_bytes(out * width, base) for out, width in shapes.values()) + width * rest
    assert report.full.total == (2 * width + 4 * states) * report.parameters
    assert report.reduction == (report.parameters / adapters if adapters else math.inf)
    assert report.memory_reduction == report.full.total / memory.total
    assert report.memory("bfloat16").total <= report.memory("float32").total


def test_the_parameters_of_a_published_lora_run():
    # Hu et al. 2021 (arXiv:2106.09685), table 4: GPT-3 with rank 1 on q and v of its 96 layers trains 4.7 million, with rank 8 37.7 million
    shapes = {f"blocks.{i}.{name}": (12288, 12288) for i in range(96) for name in ("q_proj", "v_proj")}
    for rank, published in ((1, 4.7e6), (8, 37.7e6)):
        assert efficiency_report(shapes, dict.fromkeys(shapes, rank)).trainable == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(("values", "message"), [
    (dict(ranks={}), "a rank for each of the shapes"),
    (dict(ranks={"w": -1}), r"ranks\['w'\] as an integer >= 0"),
    (dict(total=5), "total as an integer >= 6"),
    (dict(base="nf4"), "base from 'float32', 'bfloat16', '4bit', '4bit-double'; got base='nf4'"),
    (dict(trained="4bit"), "trained from 'float32', 'bfloat16'"),
    (dict(states=-1), "states as an integer >= 0"),
    (dict(block=0), "block as an integer >= 1"),
    (dict(shapes={"w": (6,)}), "at least 2 axes"),
])
def test_what_cannot_be_counted_is_refused(values, message):
    with pytest.raises(ValueError, match=f"^efficiency_report needs .*{message}"):
        efficiency_report(**dict(shapes={"w": (3, 2)}, ranks={"w": 1}) | values)
