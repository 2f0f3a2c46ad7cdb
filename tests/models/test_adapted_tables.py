"""Adapters on token tables that a head reads as well: only the adapters train, and both sides agree on their gradients."""

import numpy as np
import pytest
import torch

from byhand.configs.bert import BertConfig
from byhand.configs.lora import LoRAConfig
from byhand.configs.t5 import T5Config
from byhand.configs.transformer import TransformerConfig
from numpy_impl.finetune.manager import apply_lora
from numpy_impl.layers.module import flatten
from numpy_impl.models.bert import BertMaskedLM
from numpy_impl.models.t5 import T5
from numpy_impl.models.transformer import Transformer
from torch_impl.finetune.manager import apply_lora as torch_apply_lora
from torch_impl.models.bert import BertMaskedLM as TorchBertMaskedLM
from torch_impl.models.t5 import T5 as TorchT5
from torch_impl.models.transformer import Transformer as TorchTransformer

IDS, TARGETS = np.array([[1, 2, 3, 4]]), np.array([[2, 3, 4, 5]])
SIZES = dict(vocabulary=11, d_model=8, n_heads=2)
MODELS = [
    (BertMaskedLM, TorchBertMaskedLM, BertConfig(max_length=8, n_layers=1, d_hidden=12, **SIZES)),
    (T5, TorchT5, T5Config(encoder_layers=1, head_width=4, d_hidden=12, tied=True, **SIZES)),
    (T5, TorchT5, T5Config(encoder_layers=1, head_width=4, d_hidden=12, tied=False, **SIZES)),
    (Transformer, TorchTransformer, TransformerConfig(encoder_layers=1, decoder_layers=1, d_hidden=12, **SIZES)),
]


@pytest.mark.parametrize(("by_hand", "twin", "config"), MODELS)
def test_gradients_of_an_adapted_table_agree(by_hand, twin, config):
    model = by_hand(config, dtype=np.float64, rng=np.random.default_rng(0))
    chosen = apply_lora(model, LoRAConfig(r=2, targets=["tokens", "q_proj"]), rng=np.random.default_rng(1))
    assert any(name.endswith("tokens") for name in chosen)
    rng = np.random.default_rng(2)
    for array in model.parameters().values():
        array += 0.1 * rng.standard_normal(array.shape)
    loss, backward = model.loss(IDS, TARGETS)
    grads = flatten(backward())
    assert grads.keys() == model.parameters().keys()

    other = twin(config, dtype=torch.float64)
    torch_apply_lora(other, LoRAConfig(r=2, targets=["tokens", "q_proj"]))
    other.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    wanted = other.loss(torch.from_numpy(IDS), torch.from_numpy(TARGETS))
    wanted.backward()
    assert float(loss) == pytest.approx(wanted.item(), rel=1e-12)
    for name, parameter in other.named_parameters():
        if parameter.requires_grad:
            np.testing.assert_allclose(grads[name], parameter.grad.numpy(), rtol=1e-8, atol=1e-10, err_msg=name)
            assert np.abs(grads[name]).max() > 0
