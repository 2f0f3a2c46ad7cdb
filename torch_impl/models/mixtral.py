"""Mixtral (Jiang et al. 2024, arXiv:2401.04088) and its relatives: Qwen-MoE and, with fine-grained and shared experts, DeepSeek-MoE (Dai et
al. 2024, arXiv:2401.06066)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from byhand.checks import choice
from byhand.configs.mixtral import MixtralConfig
from torch_impl.layers.gated_feed_forward import GATES
from torch_impl.layers.moe import MoE
from torch_impl.models.llama import Llama


class Mixtral(Llama):
    """A Llama whose feed-forward layers are mixtures of experts: every token goes to k of E.

    ids (..., T) -> logits (..., T, V). The training loss adds what `config.routing_loss` says.
    """

    def __init__(self, config: MixtralConfig, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None,
                 rng: torch.Generator | None = None, prepare: Callable[[nn.Module], nn.Module] | None = None):
        choice("Mixtral", GATES, activation=config.activation)
        super().__init__(config, dtype=dtype, device=device, rng=rng, prepare=prepare)
        self.routing_loss = config.routing_loss

    def _mlp(self, i: int, **made: Any) -> nn.Module | None:
        config = self.config
        if i in config.dense:
            return None
        return MoE(config.d_model, config.d_expert, config.n_experts, config.k, **config.mixture, **made)
