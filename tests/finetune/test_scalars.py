"""NumPy's own scalars as options: `np.float64(16)` times a float32 array is float64, and must not make an adapter of another dtype."""

import numpy as np
import pytest
import torch

from numpy_impl.finetune.bottleneck import BottleneckAdapter
from numpy_impl.finetune.combine import combine_factors
from numpy_impl.finetune.dora import dora_norm
from numpy_impl.finetune.lora_conv import LoRAConv1d
from numpy_impl.finetune.lora_embedding import LoRAEmbedding
from numpy_impl.finetune.lora_linear import LoRALinear
from numpy_impl.finetune.starts import loftq, olora, pissa
from numpy_impl.layers.conv import Conv1d
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import flatten
from torch_impl.finetune import starts as torch_starts
from torch_impl.finetune.lora_linear import LoRALinear as TorchLoRALinear
from torch_impl.layers.linear import Linear as TorchLinear

TWO = np.float64(2.0)
LAYERS = {"linear": (LoRALinear, lambda: Linear(5, 4), np.ones((2, 5), np.float32)),
          "embedding": (LoRAEmbedding, lambda: Embedding(5, 4), np.array([1, 2])),
          "convolution": (LoRAConv1d, lambda: Conv1d(3, 4, 2), np.ones((1, 3, 6), np.float32))}


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(("kind", "base", "x"), LAYERS.values(), ids=LAYERS)
def test_an_adapter_stays_in_float32(kind, base, x, dora):
    layer = kind(base(), r=2, alpha=TWO, dora=dora, detach_norm=False)
    y, backward = layer.forward(x)
    *_, grads = out if isinstance(out := backward(y), tuple) else (out,)
    layer_arrays = [y, layer.delta("default"), *flatten(grads).values()]
    layer.merge()
    assert {array.dtype.name for array in [*layer_arrays, layer.base.weight]} == {"float32"}


def test_functions_stay_in_float32():
    weight, lora_A, lora_B = (np.ones(shape, np.float32) for shape in ((3, 4), (2, 4), (3, 2)))
    found = [dora_norm(lora_A, lora_B, weight=weight, scaling=TWO)[0], BottleneckAdapter(4, 2, scale=TWO)(lora_A)]
    for kind in ("linear", "cat", "svd"):
        found += combine_factors([(lora_A, lora_B, 1.0)], weights=[TWO], kind=kind)
    for start in (pissa, olora, loftq):
        found += start(weight, r=1, scaling=TWO)
    assert {array.dtype.name for array in found} == {"float32"}


def test_torchs_side_takes_them_too():
    layer = TorchLoRALinear(TorchLinear(5, 4), r=2, alpha=TWO, dora=True, detach_norm=False)
    y = layer(torch.ones(2, 5))
    y.sum().backward()
    layer.merge()
    assert y.dtype == layer.base.weight.dtype == torch.float32
    for start in (torch_starts.pissa, torch_starts.olora, torch_starts.loftq):
        assert {array.dtype for array in start(torch.ones(3, 4), r=1, scaling=TWO)} == {torch.float32}
