"""What parts of a step are given, as in benchmarks.workloads, and the numbers by which they are compared."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers._component import Call, Given
from benchmarks.workload import Unable, Work
from benchmarks.workloads._common import normals, shown, tokens
from benchmarks.workloads.attention import HEADS, TOKENS, WIDTH


def attention_arrays(*, length: int, batch: int | None = None, heads: int = HEADS, width: int = WIDTH) -> dict[str, NDArray]:
    """Query, key and value (B, H, T, D); along the axis of lengths as many texts as make the same number of tokens."""
    batch = batch or max(1, TOKENS // length)
    return dict(zip(("query", "key", "value"), normals(*[(batch, heads, length, width)] * 3), strict=True))


def at_most_1024(length: int) -> None:
    """Refuse longer texts, for a library that makes the whole table of scores."""
    if length > 1024:
        raise Unable("tables of more than 1024² scores take it seconds")


def cross_entropy_arrays(*, rows: int, vocabulary: int = 32000) -> Given:
    """Logits (N, V) and their targets."""
    return Given({"logits": normals((rows, vocabulary))[0]}, {"targets": tokens(vocabulary, rows)})


def linear_cross_entropy_arrays(*, rows: int, width: int = 288, vocabulary: int = 32000) -> Given:
    """Hidden states (N, D), the projection (V, D) and targets."""
    hidden, weight = normals((rows, width), (vocabulary, width))
    weight *= width**-0.5
    return Given({"hidden": hidden, "weight": weight}, {"targets": tokens(vocabulary, rows)})


def differentiated(call: Call, shape: tuple[int, ...] = ()) -> Work:
    """Forward and backward for the cotangent of the workloads: 1 of a loss, else normals of y's shape."""
    dy: Any = normals(shape, seed=1)[0] if shape else np.ones((), np.float32)

    def numbers() -> dict[str, NDArray]:
        y, *gradients = call(dy)
        return shown(y=y, **{f"gradient {i}": gradient for i, gradient in enumerate(gradients)})

    return Work(lambda: call(dy), numbers=numbers)
