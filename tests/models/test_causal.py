"""What the causal models share: frozen parts cost nothing, blocks can be prepared one at a time, a head may be any layer."""

import numpy as np
import pytest
import torch

from byhand.configs.decoder import DecoderConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module, flatten
from numpy_impl.models.decoder import Decoder
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama
from torch_impl.models.llama import Llama as TorchLlama

LLAMA = LlamaConfig(vocabulary=11, max_length=8, d_model=8, n_layers=3, n_heads=2, d_hidden=12)
TIED = LlamaConfig(vocabulary=11, max_length=8, d_model=8, n_layers=2, n_heads=2, d_hidden=12, tied=True)
MODELS = [
    (GPT2, GPT2Config(vocabulary=11, max_length=8, d_model=8, n_layers=3, n_heads=2)),
    (Llama, LLAMA),
    (Llama, TIED),
    (Decoder, DecoderConfig(vocabulary=11, max_length=8, d_model=8, n_layers=3, n_heads=2)),
]
IDS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
TARGETS = np.array([[2, 3, 4, 5], [6, -100, 8, 9]])


class Doubled(Module):
    """A head that is no plain matrix: what an adapter looks like from outside."""

    def __init__(self, base):
        self.base = base

    def forward(self, x, *, noise=None):
        y, base_backward = self.base.forward(2 * x)

        def backward(dy):
            dx, grads = base_backward(dy)
            return 2 * dx, {"base": grads}

        return y, backward


@pytest.mark.parametrize("pattern", ["*", "tokens*", "head*", "blocks.*", "norm*"])
@pytest.mark.parametrize(("model", "config"), MODELS)
def test_what_is_frozen_has_no_gradient_and_changes_no_other(model, config, pattern):
    whole = model(config, dtype=np.float64, rng=np.random.default_rng(0))
    loss, backward = whole.loss(IDS, TARGETS)
    wanted = flatten(backward())
    frozen = model(config, dtype=np.float64, rng=np.random.default_rng(0)).freeze(pattern)
    got, backward = frozen.loss(IDS, TARGETS)
    grads = flatten(backward())
    assert got == loss
    assert grads.keys() == frozen.parameters().keys()
    assert set(wanted) - set(grads) == set(whole.parameters()) - set(frozen.parameters())
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name], rtol=1e-12, atol=1e-15)


def test_a_head_of_another_kind_is_called_and_gets_its_gradient():
    model = Llama(LLAMA, dtype=np.float64, rng=np.random.default_rng(0))
    plain, _ = model.loss(IDS, TARGETS)
    model.replace_child("head", Doubled(model.head))
    loss, backward = model.loss(IDS, TARGETS)
    logits, _ = model.forward(IDS)
    grads = flatten(backward())
    assert loss != plain
    assert grads.keys() == model.parameters().keys()
    step = 1e-6 * grads["head.base.weight"]
    model.head.base.weight += step
    moved, _ = model.loss(IDS, TARGETS)
    assert float(moved - loss) == pytest.approx(float((step * grads["head.base.weight"]).sum()), rel=1e-4)
    assert float(model.loss(IDS, TARGETS, run="inference")[0]) == pytest.approx(float(moved), rel=1e-12)
    assert logits.shape == (2, 4, 11)


@pytest.mark.parametrize(("model", "config"), MODELS)
def test_blocks_are_prepared_one_by_one_with_their_starting_values(model, config):
    seen = []

    def prepare(block):
        seen.append({name: array.copy() for name, array in block.state_dict().items()})
        return block

    made = model(config, rng=np.random.default_rng(0), prepare=prepare)
    assert len(seen) == config.n_layers
    for i, block in enumerate(seen):
        for name, array in block.items():
            assert np.array_equal(made.state_dict()[f"blocks.{i}.{name}"], array)     # nothing is started a second time
    outward = np.concatenate([block[name].ravel() for block in seen for name in block if name.endswith("o_proj.weight")])
    inward = np.concatenate([block[name].ravel() for block in seen for name in block if name.endswith("q_proj.weight")])
    assert inward.std() == pytest.approx(0.02, rel=0.25)
    assert outward.std() == pytest.approx(0.02 / np.sqrt(2 * config.n_layers), rel=0.25)
    assert made(IDS).shape == (2, 4, 11)


def test_the_twin_prepares_blocks_too():
    seen = []

    def prepare(block):
        seen.append(block.attn.q_proj.weight.detach().clone())
        return block

    made = TorchLlama(LLAMA, rng=torch.Generator().manual_seed(0), prepare=prepare)
    assert len(seen) == 3
    assert all(torch.equal(made.blocks[i].attn.q_proj.weight, weight) for i, weight in enumerate(seen))


def test_modules_are_listed_and_replaced_by_their_dotted_names():
    model = Llama(LLAMA, rng=np.random.default_rng(0))
    names = dict(model.modules())
    assert list(names)[:4] == ["tokens", "blocks", "blocks.0", "blocks.0.norm1"]
    assert isinstance(names["blocks.2.mlp.down_proj"], Linear)
    other = Linear(12, 8, bias=False)
    model.replace_child("blocks.2.mlp.down_proj", other)
    assert model.blocks.layers[2].mlp.down_proj is other
    block = model.blocks.layers[0]
    model.replace_child("blocks.1", block)
    assert model.blocks.layers[1] is block
    with pytest.raises(ValueError, match=r"blocks\.7\.attn"):
        model.replace_child("blocks.7.attn", other)
