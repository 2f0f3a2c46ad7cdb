"""Parts of a step by jax.jit on the CPU: attention, cross-entropy over a large vocabulary, AdamW."""

from typing import Any

from benchmarks.peers._component import Given
from benchmarks.peers._training import BETAS, DECAY, EPS, LR
from benchmarks.peers._workloads import at_most_1024, attention_arrays, cross_entropy_arrays, differentiated, linear_cross_entropy_arrays
from benchmarks.peers.jax_components import attention, cross_entropy, prepare
from benchmarks.workload import Work, peer
from benchmarks.workloads._common import normals, shown


@peer("jax.jit", of="attention", needs="jax")
@peer("jax.jit", of="causal attention", needs="jax")
def attended(*, length: int, **options: int) -> Work:
    """With the whole table of scores: on a CPU XLA has no other way."""
    at_most_1024(length)
    arrays = attention_arrays(length=length, **options)
    return differentiated(prepare(attention, Given(arrays, {"causal": True})), arrays["query"].shape)


@peer("jax.jit", of="cross-entropy", needs="jax")
def loss(**options: int) -> Work:
    """Softmax and its gradient."""
    return differentiated(prepare(cross_entropy, cross_entropy_arrays(**options)))


@peer("jax.jit", of="linear + cross-entropy", needs="jax")
def projected(**options: int) -> Work:
    """All logits at once."""
    def recipe(jax: Any, hidden: Any, weight: Any, targets: Any) -> Any:
        return cross_entropy(jax, hidden @ weight.T, targets)

    return differentiated(prepare(recipe, linear_cross_entropy_arrays(**options)))


@peer("jax.jit", of="AdamW", needs="jax")
def adamw(*, matrices: int, fused: bool = True) -> Work:
    """One compiled function of all matrices, which overwrites what it is given."""
    import jax

    arrays = [jax.device_put(array) for array in normals(*[(1000, 1000)] * (2 * matrices))]
    params, grads = arrays[:matrices], arrays[matrices:]
    state: list[Any] = [params, *([jax.numpy.zeros_like(p) for p in params] for _ in range(2)), jax.numpy.zeros(())]
    compiled = jax.jit(lambda params, m, v, steps, grads: adamw_update(jax, params, m, v, steps, grads), donate_argnums=(0, 1, 2, 3))

    def run() -> None:
        state[:] = jax.block_until_ready(compiled(*state, grads))

    def numbers() -> Any:
        run()
        run()
        return shown(**{str(i): param for i, param in enumerate(state[0])})

    return Work(run, numbers=numbers)


def adamw_update(jax: Any, params: Any, m: Any, v: Any, steps: Any, grads: Any) -> tuple[Any, Any, Any, Any]:
    """Parameters, both moments and the number of steps, a step later."""
    steps = steps + 1
    m = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, m, grads)
    v = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, v, grads)
    first, second = 1 - BETAS[0] ** steps, 1 - BETAS[1] ** steps
    params = jax.tree.map(
        lambda p, m, v: (1 - LR * DECAY) * p - LR * (m / first) / (jax.numpy.sqrt(v / second) + EPS), params, m, v
    )
    return params, m, v, steps
