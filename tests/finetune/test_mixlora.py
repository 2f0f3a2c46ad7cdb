"""MixLoRA in a model: it learns, its experts stay balanced if they are told to, and LoRA adapters come and go beside it."""

from typing import Any

import numpy as np
import pytest
import torch

from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from byhand.configs.mixlora import MixLoRAConfig
from byhand.noise import Noise
from numpy_impl.finetune.apply_mixlora import apply_mixlora
from numpy_impl.finetune.manager import (
    apply_lora,
    disable_adapters,
    enable_adapters,
    merge_lora,
    remove_adapter,
    unmerge_lora,
)
from numpy_impl.finetune.mixlora import MixLoRA
from numpy_impl.layers.gated_feed_forward import GatedFeedForward
from numpy_impl.layers.module import flatten
from numpy_impl.models.llama import Llama
from numpy_impl.optim.adamw import AdamW
from torch_impl.finetune.apply_mixlora import apply_mixlora as torch_apply_mixlora
from torch_impl.finetune.mixlora import MixLoRA as TorchMixLoRA
from torch_impl.layers.gated_feed_forward import GatedFeedForward as TorchGatedFeedForward
from torch_impl.models.llama import Llama as TorchLlama

CONFIG = LlamaConfig(vocabulary=9, max_length=8, d_model=16, n_layers=2, n_heads=2, d_hidden=24)
CONFIG_OF_12 = LlamaConfig(vocabulary=9, max_length=12, d_model=16, n_layers=2, n_heads=2, d_hidden=24)


def random_llama():
    rng = np.random.default_rng(0)
    model = Llama(CONFIG, rng=rng)
    for array in model.state_dict().values():
        array += rng.normal(0, 0.2, array.shape).astype(array.dtype)
    return model


def train(model, steps, lr):
    """(losses, the largest share of the tokens that one expert had at the end, over the mean)."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 9, (8, 6))
    optimizer, losses = AdamW(model.parameters(), lr=lr, weight_decay=0.0), []
    routes: list[Any] = []
    model.watch = routes.append
    for step in range(steps):
        loss, backward = model.loss(ids, (ids + 1) % 9, noise=Noise(0, step))
        losses.append(float(loss))
        optimizer.step(flatten(backward()))
    model.watch = None
    shares = [one.chosen.sum((0, 1)) for one in routes[-1]]
    return losses, max(float(share.max() / share.mean()) for share in shares)


def test_training_lowers_the_loss_and_leaves_the_base_alone():
    model = random_llama()
    apply_mixlora(model, MixLoRAConfig(n_experts=4, r=2, dropout=0.1, attention=("q_proj",)), rng=np.random.default_rng(2))
    bits = {name: array.tobytes() for name, array in model.state_dict().items() if name not in model.parameters()}
    losses, _ = train(model, 20, 0.02)
    assert losses[-1] < losses[0] - 0.5
    state = model.state_dict()
    assert all(state[name].tobytes() == before for name, before in bits.items())


def test_the_balance_loss_spreads_tokens_over_the_experts():
    uneven = {}
    for balance in (0.0, 0.5):
        model = random_llama()
        apply_mixlora(model, MixLoRAConfig(n_experts=6, k=1, r=2, balance=balance, renormalise=False), rng=np.random.default_rng(2))
        for name, array in model.parameters().items():
            if name.endswith("router.weight"):
                array *= 20                                        # so that it begins uneven
        _, uneven[balance] = train(model, 30, 0.02)
    assert uneven[0.5] < 2 < uneven[0.0]


def expert_gradients(side, model, ids, targets):
    """(gradients of the experts by name, the experts that each token chose, layer by layer (T, E))."""
    routes: list[Any] = []
    model.watch = routes.append
    if side is Llama:
        _, backward = model.loss(ids, targets)
        grads = flatten(backward())
    else:
        model.loss(torch.from_numpy(ids), torch.from_numpy(targets)).backward()
        grads = {name: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for name, p in model.named_parameters() if p.requires_grad}
    model.watch = None
    return {name: grad for name, grad in grads.items() if ".experts." in name}, [np.asarray(one.chosen)[0] for one in routes[0]]


@pytest.mark.parametrize("side", [Llama, TorchLlama])
@pytest.mark.parametrize("token", [0, 3, 11])
def test_of_one_token_s_loss_only_experts_on_its_way_have_a_gradient(side, token):
    """The last layer's are those that the token chose. A layer further down it sees by attention: those that a token up to it chose.

    (With a balance loss, the routers of the last layer would send gradients to every token's experts further down.)
    """
    model, rng = side(CONFIG_OF_12), np.random.default_rng(0)
    (apply_mixlora if side is Llama else torch_apply_mixlora)(model, MixLoRAConfig(n_experts=8, k=2, r=2, balance=0))
    with torch.no_grad():
        for array in model.state_dict().values():
            values = rng.normal(0, 0.5, tuple(array.shape)).astype(np.float32)
            array[...] = values if side is Llama else torch.from_numpy(values)
    ids = rng.integers(0, 9, (1, 12))
    targets = np.full((1, 12), -100)
    targets[0, token] = 4
    grads, (below, above) = expert_gradients(side, model, ids, targets)
    idle = 0
    for layer, reached in ((0, below[:token + 1].any(0)), (1, above[token])):
        for e in range(8):
            found = {name: grad.any() for name, grad in grads.items() if name.startswith(f"blocks.{layer}.mlp.experts.{e}.")}
            assert len(found) == 6 and set(found.values()) == {bool(reached[e])}, (layer, e, found)
            idle += not reached[e] and (below, above)[layer][:, e].any()
    assert idle                                                    # an expert with tokens, and none of them on the way


def test_lora_adapters_come_and_go_beside_it():
    model, ids = random_llama(), np.arange(6)[None]
    apply_lora(model, LoRAConfig(r=2, targets=("v_proj",)), name="first", rng=np.random.default_rng(1))
    apply_mixlora(model, MixLoRAConfig(n_experts=3, r=2, attention=("q_proj",)), rng=np.random.default_rng(2))
    apply_lora(model, LoRAConfig(r=2, targets=("base.up_proj", "q_proj")), name="later", rng=np.random.default_rng(3))
    rng = np.random.default_rng(4)
    for array in model.parameters().values():
        array[...] = rng.normal(0, 0.3, array.shape)
    experts = {name for name in model.parameters() if ".experts." in name or ".router." in name}
    assert len(experts) == 2 * (3 * 6 + 1)
    before = model(ids)

    merge_lora(model, "later", "default")
    np.testing.assert_allclose(model(ids), before, atol=1e-5)
    assert experts <= model.parameters().keys()
    unmerge_lora(model)
    assert model(ids).tobytes() == before.tobytes()
    disable_adapters(model)
    assert model.parameters().keys() == experts
    enable_adapters(model)
    assert model(ids).tobytes() == before.tobytes()
    for name in ("first", "default", "later"):
        remove_adapter(model, name)
    assert model.parameters().keys() == experts
    assert type(model.blocks.layers[0].mlp.base.up_proj).__name__ == "Linear"


@pytest.mark.parametrize("run", ["keep", "recompute"])
def test_recomputed_blocks_route_the_same_and_have_the_same_gradients(run):
    model, ids = random_llama(), np.arange(8)[None]
    apply_mixlora(model, MixLoRAConfig(n_experts=3, r=2, dropout=0.3, balance=0.5), rng=np.random.default_rng(2))
    _, backward = model.loss(ids, (ids + 1) % 9, noise=Noise(5), run=run)
    _, want = model.loss(ids, (ids + 1) % 9, noise=Noise(5))
    grads, wanted = flatten(backward()), flatten(want())
    assert all(grads[name].tobytes() == grad.tobytes() for name, grad in wanted.items())


@pytest.mark.parametrize("lead", [(0,), (1,), (3, 0), (2, 1)])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("real", [True, False])
def test_few_tokens_all_of_them_to_one_expert_or_all_padding(lead, k, real):
    layer = MixLoRA(GatedFeedForward(4, 6), n_experts=4, k=k, r=2)
    layer.router.weight[...] = 0                                   # equal scores: the lower experts have all tokens
    x = np.ones((*lead, 4), np.float32)
    y, (told,), backward = layer.routed(x, real=np.full(lead, real))
    dx, grads = backward(np.ones_like(y), (np.zeros_like(told.logits),))
    assert y.shape == dx.shape == x.shape and told.chosen.shape == (*lead, 4) and (told.chosen[..., :k] == real).all()
    assert y.any() == (real and y.size > 0) and np.array_equal(told.kept, told.chosen)
    assert not told.chosen[..., k:].any() and flatten(grads).keys() == layer.parameters().keys()
    assert all(not grad.any() for name, grad in flatten(grads).items() if name.startswith(tuple(f"experts.{e}" for e in range(k, 4))))


def test_nan_is_refused_by_name():
    for layer, x in ((MixLoRA(GatedFeedForward(2, 3), n_experts=2, r=1), np.full((1, 2), np.nan, np.float32)),
                     (TorchMixLoRA(TorchGatedFeedForward(2, 3), n_experts=2, r=1), torch.full((1, 2), torch.nan))):
        with pytest.raises(ValueError, match="router needs logits"):
            layer(x)


def test_in_bfloat16_tokens_are_routed_in_float32():
    layer = TorchMixLoRA(TorchGatedFeedForward(8, 12), n_experts=5, r=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    half = TorchMixLoRA(TorchGatedFeedForward(8, 12, dtype=torch.bfloat16), n_experts=5, r=2)
    half.load_state_dict(layer.state_dict())
    layer.load_state_dict(half.state_dict())
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    y, (told,) = half.routed(x)
    want, (wanted,) = layer.routed(x.float())
    assert y.dtype == torch.bfloat16 and told.logits.dtype == torch.float32
    torch.testing.assert_close(told.logits, wanted.logits)
    assert (y - want).norm() < 0.03 * want.norm()
    y.float().sum().backward()
    grad = half.router.weight.grad
    assert grad is not None and grad.dtype == torch.bfloat16 and grad.any()
