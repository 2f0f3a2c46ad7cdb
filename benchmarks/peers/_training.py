"""Training steps in other libraries: the same model, weights, tokens and AdamW, and the numbers by which they are compared."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workload import Column, Work
from benchmarks.workloads._common import built, shown, tokens
from byhand.configs.gpt2 import GPT2Config

LR, BETAS, EPS, DECAY = 1e-3, (0.9, 0.999), 1e-8, 0.01


def gpt(*, d_model: int, n_layers: int, n_heads: int, length: int, batch: int, vocabulary: int = 4096) -> tuple[Any, NDArray]:
    """The NumPy GPT-2 of the workload, and its tokens (B, T + 1)."""
    config = GPT2Config(vocabulary, length, d_model, n_layers, n_heads, dropout=0.0)
    return built(Column("numpy"), config), tokens(vocabulary, batch, length + 1)


def numbers(step: Callable[[], tuple[Any, Mapping[str, Any]]]) -> dict[str, NDArray]:
    """The loss, the gradients of the matrices by our names, and the loss after an update."""
    loss, grads = step()
    found = shown(loss=loss, **{name: grad for name, grad in grads.items() if grad.ndim > 1})
    return found | shown(**{"loss after the update": step()[0]})


def torch_step(
    logits_of: Callable[[Any], Any], parameters: Mapping[str, Any], ids: NDArray, *, device: str = "cpu",
    ours: Callable[[dict[str, NDArray]], Mapping[str, NDArray]] | None, added: Callable[[], Any] | None = None
) -> Work:
    """A step of a library that stands on torch: cross-entropy, backward, fused AdamW.

    logits_of : ids (B, T) -> logits (B, T, V);  parameters : what is trained, by the library's names
    ours : arrays by the library's names -> by ours; None: nothing is compared, as bfloat16 rounds otherwise in every kernel
    added : what the loss has beside, told after the forward
    """
    import torch
    import torch.nn.functional as F

    optimizer = torch.optim.AdamW(parameters.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True)
    tensor = torch.from_numpy(ids).to(device)
    given, wanted = tensor[:, :-1].contiguous(), tensor[:, 1:].flatten()

    def step() -> Any:
        loss = F.cross_entropy(logits_of(given).flatten(0, 1), wanted)
        if added is not None:
            loss = loss + added()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if ours is None:
        return Work(waiting(step, device))

    def told() -> tuple[Any, Mapping[str, Any]]:
        loss = step()
        return loss, ours({name: p.grad.cpu().numpy() for name, p in parameters.items()})

    return Work(waiting(step, device), numbers=lambda: numbers(told))


def waiting(run: Callable[[], Any], device: str) -> Callable[[], Any]:
    """The call, and on a GPU until it is done."""
    if device == "cpu":
        return run
    import torch

    def whole() -> Any:
        result = run()
        torch.cuda.synchronize()
        return result

    return whole


def arrays(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state of NumPy arrays, some not yet put together, as torch's tensors."""
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
