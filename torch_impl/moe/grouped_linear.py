"""One linear map for each expert, applied to rows that stand in expert order: a loop over the experts, or one grouped kernel."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import choice, exact_rank, fail, floats, same_shape
from byhand.checks import counts as check_counts

Kernel = Literal["auto", "loop", "grouped"]


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, counts: Tensor, kernel: Kernel = "auto") -> Tensor:
    """y[rows of e] = x[rows of e] · weight[e]ᵀ + bias[e].  x (M, I), weight (E, O, I), bias (E, O), counts (E,) -> y (M, O).

    kernel : "loop" is a matrix product for each expert that has rows; "grouped" is torch's grouped matrix product, which never reads counts
    back; "auto" is grouped where that is one kernel (bfloat16 on a CUDA device of capability 8.0 or above) and possible, else the loop.
    """
    who = "grouped_linear"
    floats(who, x=x, weight=weight, bias=bias)
    exact_rank(who, 2, x=x)
    exact_rank(who, 3, weight=weight)
    experts, outputs, inputs = weight.shape
    same_shape(who, (x.shape[0], inputs), x=x)
    same_shape(who, (experts, outputs), bias=bias)
    check_counts(who, x.shape[0], counts=counts)
    same_shape(who, (experts,), counts=counts)
    choice(who, ("auto", "loop", "grouped"), kernel=kernel)

    obstacle = _obstacle(x, weight)
    if kernel == "grouped" and obstacle:
        fail(who, f"{obstacle} for kernel='grouped'", f"x {x.dtype} {tuple(x.shape)} and weight {tuple(weight.shape)} on {x.device}")
    fast = x.is_cuda and x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (8, 0)
    if len(x) and (kernel == "grouped" or (kernel == "auto" and fast and not obstacle)):     # without rows the kernel has no backward
        return _grouped(x, weight, bias, counts)
    return _loop(x, weight, bias, counts)


def _loop(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Tensor) -> Tensor:
    # unbind and split, whose gradients are one stack and one cat: that of weight[e] is as large as all of weight, for every e anew.
    biases = [None] * len(weight) if bias is None else bias.unbind()
    each = zip(x.split(counts.tolist()), weight.unbind(), biases, strict=True)
    parts = [F.linear(rows, w, b) for rows, w, b in each if len(rows)]
    if parts:
        return torch.cat(parts)
    none = torch.einsum("mi,eoi->mo", x, weight)         # no rows at all, but gradients nevertheless: zeros
    return none if bias is None else none + bias.sum(0)


def _grouped(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Tensor) -> Tensor:
    product = _grouped_mm()
    assert product is not None
    transposed = weight.transpose(-2, -1)
    y = product(x.contiguous(), transposed, offs=counts.cumsum(0).to(torch.int32))       # offs: where each expert's rows end
    if transposed.requires_grad and x.is_cuda and torch.cuda.get_device_capability(x.device)[0] != 9:   # pragma: no cuda
        # Some kernels (Blackwell's: pytorch issue 172439) leave the gradient of an expert without rows as they find it; Hopper's do not.
        transposed.register_hook(lambda dw: dw.masked_fill((counts == 0)[:, None, None], 0))
    if y.requires_grad:
        y.register_hook(lambda dy: dy.contiguous())      # the kernel's backward refuses an expanded gradient, such as that of a sum
    return y if bias is None else y + bias.repeat_interleave(counts, 0, output_size=x.shape[0])


def _grouped_mm() -> Callable[..., Any] | None:
    """torch's grouped matrix product by its public name, or by the private one that came first."""
    return getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def _obstacle(x: Tensor, weight: Tensor) -> str | None:
    """What the grouped kernel would need to be possible here, or None."""
    if _grouped_mm() is None:
        return "a torch that has torch.nn.functional.grouped_mm"
    if x.device.type not in ("cuda", "cpu"):
        return "x on a CUDA device or the CPU"
    if x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return "bfloat16, float16 or float32"
    if x.is_cuda and torch.cuda.get_device_capability(x.device) < (8, 0):
        return "a CUDA device of capability 8.0 or above"
    step = 16 // x.element_size()
    if weight.shape[0] == 0 or any(width == 0 or width % step for width in weight.shape[1:]):
        return f"experts, with widths that are multiples of {step} (16 bytes),"
    return None
