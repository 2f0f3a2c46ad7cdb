"""What one run costs on paper: FLOPs of its matrix products, elements computed besides, operators called, and bytes held at the peak.

Counted once on PyTorch's side by watching the operators that reach its dispatcher, so no component has to state its own cost. It is the
cost of the definition as PyTorch's eager mode carries it out; a fused form computes the same products and may touch fewer elements.
"""

import contextlib
import re
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# one element of these costs an exponential, a logarithm or the like; everything else costs about an addition
_TRANSCENDENTAL = re.compile(
    r"_?(exp2?|expm1|log(2|10|1p|addexp|sumexp|it)?|(safe_)?softmax|log_softmax(_backward_data)?|log_sigmoid_(for|back)ward|a?(tan|sin|cos)h?"
    r"|erf(c|inv)?|sigmoid|pow|(gelu|silu|mish|softplus|elu)(_backward)?)_?"
)
_FREE = ("empty", "empty_strided", "empty_like", "detach", "_local_scalar_dense", "new_empty", "lift_fresh", "set_", "resize_")
_READS_SOME = re.compile(r"(index|index_select|gather|embedding|take|take_along_dim)")         # of the first operand, only what it returns
_WRITES_SOME = re.compile(r"_?(index_put|index_put_impl|index_add|index_copy|index_fill|scatter|scatter_add|scatter_reduce)_")


def count(run: Callable[[], Any]) -> dict[str, Any]:
    """What one run of PyTorch's work on the CPU costs on paper.

    Returns
    -------
    "flops", "elements" ({"simple", "transcendental"}), "operators", and "mm": how many products are of two matrices (not of batches)
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    formulas = {**flop_registry, **_formulas()}
    elements = {"simple": 0, "transcendental": 0}
    counted = {"flops": 0, "operators": 0, "mm": 0}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            formula = formulas.get(func._overloadpacket)
            if formula is None:
                with self:                           # without autograd, what is composed of operators comes here whole
                    result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            result = func(*args, **kwargs)
            name = func._schema.name.removeprefix("aten::")
            if func.is_view or name in _FREE:
                return result
            counted["operators"] += 1
            counted["mm"] += func._overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
            if formula is not None:
                counted["flops"] += formula(*args, **kwargs, out_val=result)
            else:
                kind = "transcendental" if _TRANSCENDENTAL.fullmatch(name.removeprefix("_foreach_")) else "simple"
                elements[kind] += _touched(name, args, result)
            return result

    with Watch():
        run()
    return {**counted, "elements": elements}


def _touched(name: str, args: Sequence[Any], result: Any) -> int:
    """Elements of the largest operand or result, of a list of arrays all together; of those that an index picks only these."""
    if _READS_SOME.fullmatch(name):
        args = ()
    elif _WRITES_SOME.fullmatch(name):
        args, result = args[1:], None
    return max((_elements(item) for item in (*args, result)), default=0)


def _elements(item: Any) -> int:
    import torch

    if isinstance(item, torch.Tensor):
        return item.numel()
    return sum(map(_elements, item)) if isinstance(item, (list, tuple)) else 0


def _formulas() -> dict[Any, Callable[..., int]]:
    """What PyTorch's registry leaves out: the CPU's fused attention, two products forward, five backward, over the pairs it looks at, and
    a matrix times a vector."""
    import torch

    def forward(query: Any, key: Any, value: Any, dropout_p: float = 0.0, is_causal: bool = False, *,
                attn_mask: Any = None, **rest: Any) -> int:
        return 2 * _pairs(query, key, is_causal, attn_mask) * (query.shape[-1] + value.shape[-1])

    def backward(dy: Any, query: Any, key: Any, value: Any, y: Any, lse: Any, dropout_p: float, is_causal: bool, *,
                 attn_mask: Any = None, **rest: Any) -> int:
        return 2 * _pairs(query, key, is_causal, attn_mask) * (3 * query.shape[-1] + 2 * value.shape[-1])

    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
        aten.mv: lambda a, x, **rest: 2 * a.numel(),
        aten.addmv: lambda c, a, x, **rest: 2 * a.numel(),
    }


def _pairs(query: Any, key: Any, causal: bool, mask: Any) -> int:
    """Pairs of query and key, over all heads, that attention looks at: query i sees keys 0 to i where it is causal, else what a mask keeps.

    PyTorch multiplies what the mask hides, too; a program that knows where it is need not.
    """
    heads, queries, keys = query.shape[:-2].numel(), query.shape[-2], key.shape[-2]
    if mask is not None:
        kept = mask > float("-inf") if mask.dtype.is_floating_point else mask
        return round(heads * queries * keys * float(kept.double().mean()))
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
