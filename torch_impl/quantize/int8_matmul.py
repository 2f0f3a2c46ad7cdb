"""Products of 8-bit codes, summed exactly."""

import math
from typing import Literal

import torch
from torch import Tensor

from byhand.checks import at_least_rank, choice, demand, exact_rank, given, ids_below, of_dtype, same_shape


def int8_matmul(a: Tensor, b: Tensor, *, a_zero_point: Tensor | None = None, b_zero_point: Tensor | None = None,
                kernel: Literal["auto", "int_mm", "plain"] = "auto") -> Tensor:
    """y[n, o] = Σₖ (a[n, k] − a_zero_point[n]) (b[o, k] − b_zero_point[o]).  a (..., K), b (O, K) int8 or uint8 -> y (..., O) int32, exact.

    a_zero_point () or (...), b_zero_point () or (O,): integers, None is 0.

    kernel : "int_mm" multiplies on the processor's 8-bit units (on CUDA with more than 16 rows, and K and O multiples of 8; elsewhere with
             K > 1); "plain" in float64, which is exact up to 2⁵³; "auto" takes int_mm where it serves and is the faster.
    """
    given("int8_matmul", a=a, b=b)
    of_dtype("int8_matmul", "int8", "uint8", a=a, b=b)
    at_least_rank("int8_matmul", 1, a=a)
    exact_rank("int8_matmul", 2, b=b)
    same_shape("int8_matmul", (b.shape[0], a.shape[-1]), b=b)
    largest = _largest("a", a, a_zero_point, tuple(a.shape[:-1])) * _largest("b", b, b_zero_point, tuple(b.shape[:1]))
    most = torch.iinfo(torch.int32).max // largest
    demand("int8_matmul", a.shape[-1] <= most, f"a width of at most {most}, beyond which a sum could overflow int32", a=a)
    choice("int8_matmul", ("auto", "int_mm", "plain"), kernel=kernel)

    lead, outputs = a.shape[:-1], b.shape[0]
    a = a.reshape(math.prod(lead), b.shape[1])
    if a.device.type == "cuda":
        serves, needs = len(a) > 16 and a.shape[1] % 8 == outputs % 8 == 0 < min(b.shape), "more than 16 rows, and K and O multiples of 8"
    else:
        serves, needs = min(*a.shape, outputs) > 0 and a.shape[1] > 1, "rows, outputs and K > 1"  # on the CPU torch is wrong for K = 1
    if kernel == "int_mm":
        demand("int8_matmul", serves, f"{needs} for int_mm", a=a, b=b)
    elif kernel == "auto":
        # Without AVX-512 torch's 8-bit product on the CPU is a plain loop.
        fast = a.device.type == "cuda" or torch.backends.cpu.get_cpu_capability() == "AVX512"
        kernel = "int_mm" if serves and fast else "plain"
    y = (_int_mm if kernel == "int_mm" else _plain)(a, b, _row(a_zero_point, a), _row(b_zero_point, b))
    return y.reshape(*lead, outputs)


def _plain(a: Tensor, b: Tensor, p: Tensor, q: Tensor) -> Tensor:
    return ((a.double() - p[:, None]) @ (b.double() - q[:, None]).T).to(torch.int32)


def _int_mm(a: Tensor, b: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Σ (a − p)(b − q) = Σ ab − p (Σ b − K q) − q Σ a, unsigned codes and their zero points moved down by 128."""
    (a, p), (b, q) = ((x.bitwise_xor(128).view(torch.int8), z - 128) if x.dtype == torch.uint8 else (x, z) for x, z in ((a, p), (b, q)))
    y = torch._int_mm(a.contiguous(), b.contiguous().T)
    return y - p[:, None] * (b.sum(1, dtype=torch.int32) - b.shape[1] * q) - a.sum(1, dtype=torch.int32)[:, None] * q


def _row(zero_point: Tensor | None, codes: Tensor) -> Tensor:
    return codes.new_zeros(1, dtype=torch.int32) if zero_point is None else zero_point.reshape(-1).to(torch.int32)


def _largest(name: str, codes: Tensor, zero_point: Tensor | None, lead: tuple[int, ...]) -> int:
    """How far codes can be from their zero point, once both have been checked."""
    lowest = torch.iinfo(codes.dtype).min
    ids_below("int8_matmul", lowest + 256, at_least=lowest, **{f"{name}_zero_point": zero_point})
    demand("int8_matmul", zero_point is None or tuple(zero_point.shape) in ((), lead), f"{name}_zero_point of shape () or {lead}",
           **{f"{name}_zero_point": zero_point})
    return 255 if lowest == 0 or zero_point is not None else 128
