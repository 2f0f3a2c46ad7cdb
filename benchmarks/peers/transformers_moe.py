"""A mixture of experts by transformers' MixtralExperts: by grouped products, its default, and on a CPU also by its plain loop."""

from typing import Any

import numpy as np

from benchmarks.peers._cuda import on_cuda
from benchmarks.peers._training import waiting
from benchmarks.workload import Work, peer
from benchmarks.workloads._common import normals, shown


@on_cuda("transformers", of="MoE", needs="transformers")
@peer("transformers", of="MoE", needs="transformers")
def experts(
    *, count: int, d_model: int, d_hidden: int, n_experts: int = 8, k: int = 2, device: str = "cpu", way: str = "grouped_mm"
) -> Work:
    """Forward and backward."""
    import torch
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts

    rng = np.random.default_rng(0)
    routes = torch.from_numpy(np.argsort(rng.random((count, n_experts)), axis=1)[:, :k]).to(device)
    weights = rng.random((count, k), dtype=np.float32)
    shapes = (n_experts, d_hidden, d_model), (n_experts, d_hidden, d_model), (n_experts, d_model, d_hidden)
    gate, up, down = (torch.from_numpy(array) for array in normals(*shapes, scale=d_model**-0.5, seed=1))
    x, chosen = (torch.from_numpy(array).to(device).requires_grad_(True) for array in (normals((count, d_model))[0], weights))
    dy = torch.from_numpy(normals((count, d_model), seed=1)[0]).to(device)

    config = MixtralConfig(num_local_experts=n_experts, hidden_size=d_model, intermediate_size=d_hidden)
    config._experts_implementation = way
    with torch.device("meta"):
        module = MixtralExperts(config)
    module.gate_up_proj, module.down_proj = (torch.nn.Parameter(w.to(device)) for w in (torch.cat([gate, up], dim=1), down))
    leaves = [x, chosen, module.gate_up_proj, module.down_proj]

    def run() -> Any:
        y = module(x, routes, chosen)
        return y, *torch.autograd.grad(y, leaves, dy)

    def numbers() -> Any:
        y, dx, dweights, dgate_up, ddown = run()
        dgate, dup = dgate_up.split(d_hidden, dim=1)
        return shown(y=y, **{f"gradient {i}": g.contiguous() for i, g in enumerate((dx, dweights, dgate, dup, ddown))})

    return Work(waiting(run, device), numbers=numbers)


@peer("transformers, loop", of="MoE", needs="transformers")
def loop(**options: Any) -> Work:
    """Expert by expert."""
    return experts(**options, way="eager")
