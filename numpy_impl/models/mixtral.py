"""Mixtral (Jiang et al. 2024, arXiv:2401.04088) and its relatives: Qwen-MoE and, with fine-grained and shared experts, DeepSeek-MoE (Dai et
al. 2024, arXiv:2401.06066)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from byhand.checks import choice
from byhand.configs.mixtral import MixtralConfig
from numpy_impl.layers.gated_feed_forward import GATES
from numpy_impl.layers.module import Module
from numpy_impl.layers.moe import MoE
from numpy_impl.models.llama import Llama


class Mixtral(Llama):
    """A Llama whose feed-forward layers are mixtures of experts: every token goes to k of E, so that a token costs what k of them cost.

    Parameters
    ----------
    config : MixtralConfig
    dtype                  of the parameters
    rng                    np.random.Generator of the initial values
    prepare                block -> block, called with each block as soon as it is made, as Llama explains

    The training loss adds what `config.routing_loss` says, so that all experts are used: `loss(ids, targets, real=mask)` leaves padding
    out of it. Routers and experts start as a Llama's other matrices do.

    Examples
    --------
    >>> config = MixtralConfig(vocabulary=7, max_length=8, d_model=8, n_layers=2, n_heads=2, d_hidden=6, n_experts=4, balance=0.01)
    >>> model = Mixtral(config, rng=np.random.default_rng(0))
    >>> ids, targets = np.array([[1, 2, 3]]), np.array([[2, 3, 4]])
    >>> seen = []
    >>> model.watch = seen.append                            # what the routers did, whenever the model trains
    >>> loss, backward = model.loss(ids, targets)
    >>> grads = backward()
    >>> list(grads["blocks"][0]["mlp"]), [routing.chosen.sum(-1).tolist() for routing in seen[0]]
    (['router', 'experts'], [[[2, 2, 2]], [[2, 2, 2]]])
    >>> alone = model.loss(ids, targets, run="inference")[0]       # validation compares models: nothing is added there
    >>> 0.02 < float(loss - alone) < 0.1                     # 0.01 · (2 and above) in each of two layers
    True
    """

    def __init__(self, config: MixtralConfig, *, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None,
                 prepare: Callable[[Module], Module] | None = None):
        choice("Mixtral", GATES, activation=config.activation)
        super().__init__(config, dtype=dtype, rng=rng, prepare=prepare)
        self.routing_loss = config.routing_loss

    def _mlp(self, i: int, dtype: DTypeLike, rng: np.random.Generator) -> Module | None:
        config = self.config
        if i in config.dense:
            return None
        return MoE(config.d_model, config.d_expert, config.n_experts, config.k, **config.mixture, dtype=dtype, rng=rng)
