"""Mixtures of experts: the sparse dispatch alone, 2 of 8 experts a token, a small Mixtral's training step, and experts ever more.

PyTorch's side loops over the experts on a CPU, as transformers' does.
"""

from typing import Any

import numpy as np

from benchmarks.workload import Column, Work, workload
from benchmarks.workloads._common import built, differentiated, given, implementation, multiplied, normals, tokens, training
from byhand.configs.mixtral import MixtralConfig

TINY = dict(d_model=128, n_layers=2, n_heads=2, d_hidden=256, length=64, batch=2)
MEDIUM = dict(d_model=256, n_layers=2, n_heads=4, d_hidden=512, length=128, batch=4)
LARGE = dict(d_model=512, n_layers=4, n_heads=8, d_hidden=1024, length=256, batch=4)


@workload("MoE step", {"small": {"d128 L2 E8 T64 B2": TINY}, "medium": {"d256 L2 E8 T128 B4": MEDIUM},
                       "large": {"d512 L4 E8 T256 B4": LARGE}}, threads=(1, 2))
def moe_step(
    column: Column, *, d_model: int, n_layers: int, n_heads: int, d_hidden: int, length: int, batch: int, n_experts: int = 8, k: int = 2
) -> Work:
    """One update of a Mixtral of this size."""
    config = MixtralConfig(4096, length, d_model, n_layers, n_heads, d_hidden=d_hidden, n_experts=n_experts, k=k, tied=True, balance=0.01)
    return training(column, built(column, config), tokens(4096, batch, length + 1), trained=multiplied(config))


MIXTURE = dict(count=4096, d_model=256, d_hidden=512)
SMALL_MIXTURE = dict(count=512, d_model=128, d_hidden=256)
WIDE_MIXTURE = dict(count=4096, d_model=512, d_hidden=1792)


@workload("MoE", {"small": {"top 2 of 8, 512 tokens": SMALL_MIXTURE}, "medium": {"top 2 of 8, 4096 tokens": MIXTURE},
                  "large": {"top 2 of 8, 4096 tokens": WIDE_MIXTURE}}, threads=(1, 2))
def dispatch(column: Column, *, count: int, d_model: int, d_hidden: int, n_experts: int = 8, k: int = 2) -> Work:
    """Tokens sorted by expert, multiplied and brought back, forward and backward; every token chooses at random."""
    rng = np.random.default_rng(0)
    routes = given(column, np.argsort(rng.random((count, n_experts)), axis=1)[:, :k])
    (x, gate, up, down), weights = _inputs(count, n_experts, d_model, d_hidden), rng.random((count, k), dtype=np.float32)
    plan, experts = implementation(column.side, "moe.permute.plan"), implementation(column.side, "moe.experts.experts")

    def forward(*arrays: Any) -> Any:
        return experts(*arrays, plan=plan(routes, experts=n_experts))

    return differentiated(column, forward, [x, weights, gate, up, down], unit="tokens", units=count)


def _inputs(n: int, e: int, d: int, f: int) -> list[Any]:
    matrices = normals((e, f, d), (e, f, d), (e, d, f), scale=d**-0.5, seed=1)
    return [*normals((n, d)), *matrices]


@workload("MoE by experts", {"small": (8, 64), "medium": (8, 16, 32, 64), "large": (8, 16, 32, 64, 128)}, axis="experts")
def by_experts(column: Column, *, experts: int) -> Work:
    """2048 tokens to 2 of ever more experts of 256 × 256: the products stay the same, the weights and their gradients grow."""
    return dispatch(column, count=2048, d_model=256, d_hidden=256, n_experts=experts)
