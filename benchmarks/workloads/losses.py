"""Cross-entropy over a large vocabulary, forward and backward: of logits, and of hidden states with their projection to the vocabulary.

PyTorch's side of the latter is what its users write, `cross_entropy(linear(hidden, weight), targets)`, with all logits at once.
"""

from typing import Any

from benchmarks.workload import Column, Work, workload
from benchmarks.workloads._common import differentiated, given, implementation, normals, tokens


@workload("cross-entropy", {"small": {"128 × 32,000": dict(rows=128)}, "medium": {"512 × 32,000": dict(rows=512)},
                            "large": {"4096 × 32,000": dict(rows=4096)}}, threads=(1, 2))
def cross_entropy(column: Column, *, rows: int, vocabulary: int = 32000) -> Work:
    """The softmax and its gradient in one."""
    loss, targets = implementation(column.side, "losses.softmax_cross_entropy.softmax_cross_entropy"), tokens(vocabulary, rows)
    there = given(column, targets)
    return differentiated(column, lambda logits: loss(logits, targets=there), normals((rows, vocabulary)), unit="tokens", units=rows)


@workload("linear + cross-entropy", {"small": {"256 × 288 × 32k": dict(rows=256)}, "medium": {"1024 × 288 × 32k": dict(rows=1024)},
                                     "large": {"8192 × 768 × 32k": dict(rows=8192, width=768)}}, compiled=True)
def linear_cross_entropy(column: Column, *, rows: int, width: int = 288, vocabulary: int = 32000) -> Work:
    """Three products, of which NumPy's stand in chunks of rows."""
    targets = given(column, tokens(vocabulary, rows))
    hidden, weight = normals((rows, width), (vocabulary, width))
    weight *= width**-0.5
    if column.side == "numpy":
        chunked = implementation("numpy", "losses.linear_cross_entropy.linear_cross_entropy")

        def forward(hidden: Any, weight: Any) -> Any:
            return chunked(hidden, weight, targets=targets)
    else:
        import torch.nn.functional as F

        def forward(hidden: Any, weight: Any) -> Any:
            return F.cross_entropy(F.linear(hidden, weight), targets)

    return differentiated(column, forward, [hidden, weight], unit="tokens", units=rows)
