"""Parts of a step in HIPS autograd: attention and cross-entropy over a large vocabulary."""

from typing import Any

from benchmarks.peers._component import Given
from benchmarks.peers._workloads import at_most_1024, attention_arrays, cross_entropy_arrays, differentiated, linear_cross_entropy_arrays
from benchmarks.peers.autograd_components import attention, cross_entropy, prepare
from benchmarks.workload import Work, peer


@peer("HIPS autograd", of="attention", needs="autograd")
@peer("HIPS autograd", of="causal attention", needs="autograd")
def attended(*, length: int, **options: int) -> Work:
    """With the whole table of scores, several times over."""
    at_most_1024(length)
    arrays = attention_arrays(length=length, **options)
    return differentiated(prepare(attention, Given(arrays, {"causal": True})), arrays["query"].shape)


@peer("HIPS autograd", of="cross-entropy", needs="autograd")
def loss(**options: int) -> Work:
    """Softmax and its gradient."""
    return differentiated(prepare(cross_entropy, cross_entropy_arrays(**options)))


@peer("HIPS autograd", of="linear + cross-entropy", needs="autograd")
def projected(**options: int) -> Work:
    """All logits at once."""
    def recipe(np: Any, hidden: Any, weight: Any, targets: Any) -> Any:
        return cross_entropy(np, np.matmul(hidden, weight.T), targets)

    return differentiated(prepare(recipe, linear_cross_entropy_arrays(**options)))
