"""Gradient accumulation: the gradient of one big batch, from micro-batches that fit into memory one at a time."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from byhand.checks import demand, positive
from byhand.noise import Noise
from numpy_impl.layers.module import flatten
from numpy_impl.layers.stack import Run

IGNORED = -100  # the target that counts neither in the loss nor among the tokens


class Accumulated(NamedTuple):
    """loss () the mean over all tokens; grads its gradients by dotted name; tokens how many there were."""

    loss: NDArray
    grads: dict[str, NDArray]
    tokens: int


def accumulate(
    model: Any, micro_batches: Sequence[tuple[NDArray, NDArray]], *, noise: Noise | None = None, run: Run = "keep",
    loss_scale: float = 1.0,
) -> Accumulated:
    """loss = Σᵢ Σₜ nllᵢₜ / N,  with N the tokens of all micro-batches together; grads = Σᵢ dlossᵢ.

    Every token weighs 1/N wherever it stands, so the result is that of one big batch. The mean of the micro-batches' own means is
    something else as soon as they hold different numbers of tokens.

    Parameters
    ----------
    model          `loss(ids, targets, *, normalizer, noise, run) -> (loss, backward)`, `backward(dloss) -> grads`
    micro_batches  [(ids (B, T), targets (B, T)), …], integers; a target of -100 is not counted. B and T may differ
    noise          the dropout masks of the first micro-batch; the next ones read the following steps. None: no dropout
    run            what each block keeps for its backward, "keep" or "recompute": the same bits, less memory
    loss_scale     the backward starts from it in place of 1, and its gradients are divided by it: where numbers have few bits for
                   their exponent, small gradients survive on the way; of a power of two nothing else is seen

    Returns
    -------
    Accumulated    loss (), grads by dotted name, tokens N

    Raises
    ------
    ValueError     if there is no token to learn from, or loss_scale is not positive

    Examples
    --------
    >>> import numpy as np
    >>> class Shift:                                    # (ids + w − targets)², in place of a language model
    ...     w = 0.0
    ...     def loss(self, ids, targets, *, normalizer, noise, run):
    ...         gap = ids + self.w - targets
    ...         return (gap * gap).sum() / normalizer, lambda dloss: {"w": dloss * (2 * gap).sum() / normalizer}
    >>> long, short = (np.array([[1, 2, 3]]), np.array([[2, 3, 4]])), (np.array([[1]]), np.array([[5]]))
    >>> loss, grads, tokens = accumulate(Shift(), [long, short])
    >>> float(loss), float(grads["w"]), tokens          # (1 + 1 + 1 + 16) / 4, and not (1 + 16) / 2
    (4.75, -3.5, 4)
    """
    tokens = count_tokens(micro_batches)
    positive("accumulate", loss_scale=loss_scale)
    total_loss: NDArray | None = None
    total: dict[str, NDArray] = {}
    for i, (ids, targets) in enumerate(micro_batches):
        stream = None if noise is None else dataclasses.replace(noise, step=noise.step + i)
        loss, backward = model.loss(ids, targets, normalizer=tokens, noise=stream, run=run)
        grads = flatten(backward(loss_scale))
        total_loss = loss if total_loss is None else total_loss + loss
        total = {name: total[name] + grad for name, grad in grads.items()} if total else grads
    if loss_scale != 1:
        total = {name: grad / loss_scale for name, grad in total.items()}
    return Accumulated(total_loss, total, tokens)


def count_tokens(batches: Sequence[tuple[NDArray, NDArray]]) -> int:
    """N = Σᵢ Σₜ [targetᵢₜ ≠ −100]: how many targets count, over all the batches.

    Raises
    ------
    ValueError   if there are none

    Examples
    --------
    >>> import numpy as np
    >>> count_tokens([(np.array([[7, 8]]), np.array([[8, -100]])), (np.array([[5]]), np.array([[6]]))])
    2
    """
    tokens = sum(int((targets != IGNORED).sum()) for _, targets in batches)
    demand("training", tokens > 0, "at least one token to learn from", tokens=tokens)
    return tokens
