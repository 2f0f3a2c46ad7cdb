"""Mixtures of experts in the feed-forward layers' place of models that were not made for them: both sides train them alike."""

from typing import Any

import numpy as np
import pytest
import torch

from byhand.configs.decoder import DecoderConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.routing import RoutingLoss
from byhand.noise import Noise
from numpy_impl.layers.module import flatten
from numpy_impl.layers.moe import MoE
from numpy_impl.models.decoder import Decoder
from numpy_impl.models.gpt2 import GPT2
from torch_impl.layers.moe import MoE as TorchMoE
from torch_impl.models.decoder import Decoder as TorchDecoder
from torch_impl.models.gpt2 import GPT2 as TorchGPT2

_SIZES: dict[str, Any] = dict(vocabulary=11, max_length=9, d_model=16, n_layers=3, n_heads=2, dropout=0.1)
_EXPERTS: dict[str, Any] = dict(activation="gelu", jitter=0.1, noisy=True, capacity_factor=1.0)


@pytest.mark.parametrize("run", ["keep", "recompute"])
@pytest.mark.parametrize(("config", "ours", "theirs"), [
    (GPT2Config(**_SIZES), GPT2, TorchGPT2), (DecoderConfig(**_SIZES, norm="post", positions="rotary"), Decoder, TorchDecoder),
])
def test_the_losses_of_routers_and_all_gradients_agree(config, ours, theirs, run):
    model, twin = ours(config, dtype=np.float64, rng=np.random.default_rng(0)), theirs(config, dtype=torch.float64)
    for i in (0, 2):
        model.replace_child(f"blocks.{i}.mlp", MoE(16, 24, 4, 2, **_EXPERTS, dtype=np.float64, rng=np.random.default_rng(i)))
        twin.blocks[i].mlp = TorchMoE(16, 24, 4, 2, **_EXPERTS, dtype=torch.float64)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    model.routing_loss = twin.routing_loss = RoutingLoss(balance=0.1, z=0.01)
    seen: list[Any] = []
    model.watch = seen.append
    ids = np.random.default_rng(1).integers(0, 11, (3, 9))
    targets, real = np.roll(ids, -1, 1), np.ones((3, 9), bool)
    targets[1, 5:], real[1, 5:] = -100, False

    loss, backward = model.loss(ids, targets, real=real, noise=Noise(3), run=run)
    twins = twin.loss(*map(torch.from_numpy, (ids, targets)), real=torch.from_numpy(real), noise=Noise(3), run=run)
    twins.backward()

    assert abs(float(loss) - twins.item()) < 1e-12
    grads = flatten(backward())
    for name, parameter in twin.named_parameters():
        np.testing.assert_allclose(grads[name], parameter.grad.numpy(), atol=1e-12, err_msg=name)
    (routes,) = seen
    assert len(routes) == 2 and not any(routing.kept[1, 5:].any() or routing.chosen[1, 5:].any() for routing in routes)
    plain = model.loss(ids, targets, real=real, noise=Noise(3), run="inference")[0]
    assert float(loss - plain) > 2 * 0.1                       # in each of two layers 0.1 · (2 or nearly), and the z-loss
