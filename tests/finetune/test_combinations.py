"""One way to fine-tune on top of another: what stands on an adapter already gets no second one inside, on either side."""

import numpy as np
import pytest
import torch

from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from numpy_impl.finetune.bottleneck import apply_bottleneck
from numpy_impl.finetune.ia3 import apply_ia3
from numpy_impl.finetune.manager import apply_lora, merge_lora
from numpy_impl.finetune.prefix_layers import apply_prefix
from numpy_impl.finetune.prompt import PromptTuned
from numpy_impl.models.llama import Llama
from torch_impl.finetune.bottleneck import apply_bottleneck as torch_bottleneck
from torch_impl.finetune.ia3 import apply_ia3 as torch_ia3
from torch_impl.finetune.lora_linear import LoRALinear
from torch_impl.finetune.manager import apply_lora as torch_lora
from torch_impl.finetune.manager import merge_lora as torch_merge
from torch_impl.finetune.prefix_layers import apply_prefix as torch_prefix
from torch_impl.finetune.prompt import PromptTuned as TorchPromptTuned
from torch_impl.models.llama import Llama as TorchLlama

CONFIG = LlamaConfig(vocabulary=7, max_length=12, d_model=8, n_layers=1, n_heads=2, d_hidden=6)
IDS = np.array([[1, 4, 2]])
SIDES = {
    "numpy": (Llama, apply_lora, apply_ia3, apply_bottleneck, apply_prefix, PromptTuned, merge_lora, IDS),
    "torch": (TorchLlama, torch_lora, torch_ia3, torch_bottleneck, torch_prefix, TorchPromptTuned, torch_merge, torch.tensor(IDS)),
}


@pytest.fixture(params=SIDES.values(), ids=SIDES)
def side(request):
    make, *methods = request.param
    return make(CONFIG), *methods


def test_attention_has_one_prefix(side):
    model, _, _, _, prefix, prompt, _, ids = side
    prefix(model, n=2)
    before = list(model.state_dict())
    with pytest.raises(ValueError, match=r"apply_prefix needs a model with .* that has no prefix yet; got a Llama without"):
        prefix(model, n=2)
    assert list(model.state_dict()) == before and model(ids).shape == (1, 3, 7)
    assert prompt(model, 2)(ids).shape == (1, 3, 7)
    inside = prompt(type(model)(CONFIG), 2)                                  # whose model is called base, and is no base of a prefix
    assert prefix(inside, n=2) == ["base.blocks.0.attn"]


def test_nothing_comes_between_lora_and_its_base(side):
    model, lora, ia3, bottleneck, _, _, merge, ids = side
    lora(model, LoRAConfig(r=2, targets=["k_proj", "down_proj"], dora=True))
    for method, options in [(ia3, {}), (ia3, dict(targets=("*.base",), feed_forward=())), (bottleneck, dict(width=2))]:
        with pytest.raises(ValueError, match="targets that match some of the model's projections"):
            method(model, **options if options else dict(targets=("k_proj",)))
    names = bottleneck(model, width=2, targets=("*",))
    assert len(names) == 6 and not any("k_proj" in name or "down_proj" in name for name in names)
    merge(model)
    assert model(ids).shape == (1, 3, 7)


def test_ia3_with_lora_inside_does_not_merge(side):
    model, lora, ia3, *_, merge, ids = side
    ia3(model)
    lora(model, LoRAConfig(r=2, targets="all-linear"))
    layer = (model.blocks.layers if hasattr(model.blocks, "layers") else model.blocks)[0].attn.k_proj
    merge(model)
    with pytest.raises(ValueError, match=r"IA3Linear.merge needs a Linear or a Linear4bit as its base; got a LoRALinear"):
        layer.merge()
    assert not layer.merged and model(ids).shape == (1, 3, 7)


def test_layers_of_another_library_are_refused_before_anything_changes():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Embedding(3, 4))
    for targets in (["0"], ["*"], "all-linear", ["1"]):
        with pytest.raises(ValueError, match=r"apply_lora needs .*torch\.nn\.modules\.(linear\.Linear|sparse\.Embedding)"):
            torch_lora(model, LoRAConfig(r=2, targets=targets))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [type(module) for module in model] == [torch.nn.Linear, torch.nn.Embedding]
    with pytest.raises(ValueError, match="LoRALinear needs base as an affine layer of this library's; got Linear"):
        LoRALinear(torch.nn.Linear(3, 4), r=2, alpha=1)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
@pytest.mark.parametrize("around", ["prefix", "prompt", "bottleneck", "ia3"])
def test_both_sides_train_the_same_biases_inside_of_other_adapters(around, bias):
    config = LlamaConfig(vocabulary=7, max_length=12, d_model=8, n_layers=1, n_heads=2, d_hidden=6, attention_bias=True, mlp_bias=True)
    found = []
    for make, lora, ia3, bottleneck, prefix, prompt, merge, _ in SIDES.values():
        model = make(config)
        if around == "prompt":
            model = prompt(model, 2)
        else:
            apply, options = dict(prefix=(prefix, {"n": 2}), bottleneck=(bottleneck, {"width": 2}), ia3=(ia3, {}))[around]
            apply(model, **options)
        lora(model, LoRAConfig(r=2, targets=["q_proj"], bias=bias))
        trained = model.parameters() if lora is apply_lora else {n for n, p in model.named_parameters() if p.requires_grad}
        found.append({name for name in trained if name.endswith("bias")})
        merge(model)
        trained = model.parameters() if lora is apply_lora else {n for n, p in model.named_parameters() if p.requires_grad}
        assert set(trained) == found[-1]                                      # a merge takes the adapters out, and no bias
    assert found[0] == found[1] and len(found[0]) >= (1 if bias == "lora_only" else 7)
