"""A small random Llama of transformers, and the same model on both sides of ours."""

import numpy as np
import pytest
import torch

from byhand.configs.llama import LlamaConfig
from byhand.hugging_face.llama import llama_config_to_hugging_face, llama_from_hugging_face
from numpy_impl.models.llama import Llama
from torch_impl.models.llama import Llama as TorchLlama

CONFIG = LlamaConfig(vocabulary=11, max_length=16, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_hidden=20)


@pytest.fixture
def llamas():
    """(transformers' model, ours in NumPy, ours in torch) with the same weights, in float64; theirs computes norms in float32."""
    transformers = pytest.importorskip("transformers")
    values = llama_config_to_hugging_face(CONFIG)
    cls = getattr(transformers, values["architectures"][0])
    theirs = cls(cls.config_class(**values, attn_implementation="eager")).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(std=0.4)
            if "norm" in name:
                parameter.add_(1)
    state = llama_from_hugging_face({name: value.numpy().copy() for name, value in theirs.state_dict().items()}, CONFIG)
    ours, twin = Llama(CONFIG, dtype=np.float64), TorchLlama(CONFIG, dtype=torch.float64)
    ours.load_state_dict(state)
    twin.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)
    return theirs, ours, twin


@pytest.fixture
def text():
    """(ids, targets) of three texts."""
    ids = np.random.default_rng(0).integers(0, CONFIG.vocabulary, (3, 7))
    return ids, np.roll(ids, -1, axis=1)
