"""What one run costs on paper: FLOPs of its matrix products, elements computed besides, operators called, and bytes held at the peak.

Counted once on PyTorch's side by watching the operators that reach its dispatcher, so no component has to state its own cost. It is the
cost of the definition as PyTorch's eager mode carries it out; a fused form computes the same products and may touch fewer elements.
"""

import contextlib
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

# one element of these costs an exponential, a logarithm or the like; everything else costs about an addition
_TRANSCENDENTAL = ("exp", "log", "tanh", "erf", "sigmoid", "softmax", "gelu", "silu", "mish", "softplus", "elu", "pow", "sin", "cos")
_FREE = ("empty", "detach", "_local_scalar_dense", "new_empty", "lift_fresh", "set_", "resize_")


def count(run: Callable[[], Any]) -> dict[str, Any]:
    """{"flops", "elements": {"simple", "transcendental"}, "operators"} of one run of PyTorch's work on the CPU."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    elements = {"simple": 0, "transcendental": 0}
    operators = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal operators
            result = func(*args, **(kwargs or {}))
            name = func._schema.name.removeprefix("aten::")
            if func.is_view or name in _FREE:
                return result
            operators += 1
            if func._overloadpacket not in flop_registry and func._overloadpacket not in _formulas():
                kind = "transcendental" if any(word in name for word in _TRANSCENDENTAL) else "simple"
                elements[kind] += max((t.numel() for t in _tensors((args, result))), default=0)
            return result

    with FlopCounterMode(display=False, custom_mapping=_formulas()) as flops, Watch():
        run()
    return {"flops": flops.get_total_flops(), "elements": elements, "operators": operators}


def _tensors(tree: Any) -> Iterator[Any]:
    import torch

    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)


def _formulas() -> dict[Any, Callable[..., int]]:
    """The CPU's fused attention, which PyTorch's registry leaves out: two products forward, five backward, over the pairs it looks at."""
    import torch

    def forward(query: Any, key: Any, value: Any, dropout_p: float = 0.0, is_causal: bool = False, **rest: Any) -> int:
        return 2 * _pairs(query, key, is_causal) * (query.shape[-1] + value.shape[-1])

    def backward(dy: Any, query: Any, key: Any, value: Any, y: Any, lse: Any, dropout_p: float, is_causal: bool, **rest: Any) -> int:
        return 2 * _pairs(query, key, is_causal) * (3 * query.shape[-1] + 2 * value.shape[-1])

    for formula in (forward, backward):
        formula._get_raw = True                      # type: ignore[union-attr]  # the tensors themselves, not their shapes
    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


def _pairs(query: Any, key: Any, causal: bool) -> int:
    """Pairs of query and key, over all heads, that attention looks at: query i sees keys 0 to i where it is causal."""
    heads, queries, keys = query.shape[:-2].numel(), query.shape[-2], key.shape[-2]
    return heads * (sum(min(i + 1, keys) for i in range(queries)) if causal else queries * keys)


def peak_bytes(run: Callable[[], Any], column: str) -> int | None:
    """The most bytes one run holds at a time beyond what was there before it; None where that cannot be told."""
    if column == "numpy":
        return _numpy_peak(run)
    import torch

    if column.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    return _torch_peak(run)


def _numpy_peak(run: Callable[[], Any]) -> int:
    """NumPy reports its arrays to tracemalloc."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return max(0, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()


def _torch_peak(run: Callable[[], Any]) -> int:
    """PyTorch's allocator on the CPU reports to its profiler, block by block."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    held = most = 0
    blocks = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(blocks, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@contextlib.contextmanager
def through_onednn() -> Iterator[None]:
    """PyTorch's float32 matrix products on the CPU, computed by oneDNN where they would be by its BLAS."""
    import warnings

    import torch

    multiply = torch.ops.mkldnn._linear_pointwise
    aten = torch.ops.aten

    def suits(*tensors: Any) -> bool:
        return all(t.dtype == torch.float32 and t.numel() and t.device.type == "cpu" for t in tensors)

    def mm(a: Any, b: Any) -> Any:
        return multiply(a, b.t(), None, "none", [], "") if suits(a, b) else aten.bmm(a[None], b[None])[0]

    def addmm(c: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
        if beta == alpha == 1 and c.dim() == 1 and c.shape[0] == b.shape[1] and suits(a, b, c):
            return multiply(a, b.t(), c, "none", [], "")
        return mm(a, b) * alpha + (c * beta if beta else 0)

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")              # that these operators have kernels already is what this is about
        library.impl("mm", mm, "CPU")
        library.impl("addmm", addmm, "CPU")
    try:
        yield
    finally:
        library._destroy()
