"""Blocks of 4-bit codes, two to a byte: what NF4 and FP4 share, written out and by bitsandbytes."""

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import choice, demand, floats, given, of_dtype, same_shape, size

Kernel = Literal["auto", "plain", "bitsandbytes"]
_KERNELS = ("auto", "plain", "bitsandbytes")
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)   # bitsandbytes' block sizes
_TINY = 1e-38                                         # what a block is divided by at least: 1 / 1e-38 is still finite


class FourBit(NamedTuple):
    """codes (⌈N/2⌉,) uint8, the first of two in the high half, and absmax (⌈N/block⌉,) float32."""

    codes: Tensor
    absmax: Tensor


def pack(who: str, x: Tensor, *, block: int, table: Tensor, kind: str, kernel: Kernel) -> FourBit:
    """The code of the level of `table` that is nearest to x / absmax, the lower one at a tie.

    "auto" is "plain" on every device: the same bytes everywhere. bitsandbytes gives them on a CPU; on CUDA it multiplies a ragged block
    as well, by a reciprocal that is rounded otherwise, and has the sign of FP4's zero from the number, so that a code may differ.
    """
    given(who, x=x)
    floats(who, x=x)
    size(who, block=block)
    choice(who, _KERNELS, kernel=kernel)
    flat = x.detach().to(torch.float32).reshape(-1)
    if kernel == "bitsandbytes":
        _demand_bitsandbytes(who, block)
        if flat.numel():
            codes, absmax = torch.ops.bitsandbytes.quantize_4bit.default(flat, block, kind, torch.uint8)
            demand(who, bool(absmax.isfinite().all()), "x finite in float32", x=x)
            return FourBit(codes.view(-1), absmax)
    whole = flat.numel() // block * block
    full, tail = flat[:whole].view(-1, block), flat[whole:].view(1, -1)
    largest = full.abs().amax(1)
    last = tail.abs().amax(1).clamp(min=_TINY) if tail.numel() else tail.new_zeros(0)
    absmax = torch.cat([largest, last])
    demand(who, x.is_meta or bool(absmax.isfinite().all()), "x finite in float32", x=x)

    scaled = full * (1 / largest.clamp(min=_TINY))[:, None]          # two roundings; a ragged block is divided, with one
    scaled = torch.cat([scaled.view(-1), (tail / last).view(-1)])
    table = table.to(x.device)
    order = table.argsort(stable=True)
    levels = table[order]
    ranks = torch.bucketize(F.pad(scaled, (0, len(scaled) % 2)), (levels[:-1] + levels[1:]) / 2, out_int32=True)
    codes = order.to(torch.uint8)[ranks]
    return FourBit(codes[::2] << 4 | codes[1::2], absmax)


def unpack(
    who: str, codes: Tensor, *, absmax: Tensor, shape: Sequence[int], block: int, dtype: torch.dtype, table: Tensor, kind: str,
    kernel: Kernel
) -> Tensor:
    """x[i] = absmax of i's block · table[code[i]], computed in float32: the same bits from every kernel. "auto": bitsandbytes on CUDA."""
    size(who, block=block)
    demand(who, isinstance(shape, (tuple, list)), "shape as a tuple of sizes", shape=shape)
    for n in shape:
        size(who, at_least=0, shape=n)
    choice(who, ("float16", "bfloat16", "float32", "float64"), dtype=str(dtype).removeprefix("torch."))
    count = math.prod(shape)
    given(who, codes=codes, absmax=absmax)
    floats(who, absmax=absmax)
    of_dtype(who, "uint8", codes=codes)
    same_shape(who, (-(-count // 2),), codes=codes)
    same_shape(who, (-(-count // block),), absmax=absmax)
    choice(who, _KERNELS, kernel=kernel)
    if kernel == "bitsandbytes":
        _demand_bitsandbytes(who, block)

    absmax = absmax.to(torch.float32)
    fast = kernel == "bitsandbytes" or (kernel == "auto" and codes.is_cuda and block in _BLOCKS and _has_bitsandbytes())
    whole = _served(codes, count, block) if fast else 0
    parts = [_plain(codes[whole // 2:], absmax[whole // block:], count - whole, block, table).to(dtype)] if whole < count else []
    if whole:
        direct = torch.float32 if dtype == torch.float64 else dtype
        rows = (count,) if codes.is_cuda else (whole // block, block)  # on a CPU it is wrong about rows that are not made of whole blocks
        by_kernel = torch.ops.bitsandbytes.dequantize_4bit.default
        parts.insert(0, by_kernel(codes[:-(-whole // 2)], absmax[:-(-whole // block)], block, kind, rows, direct).view(-1).to(dtype))
    return (parts[0] if len(parts) == 1 else torch.cat([codes.new_zeros(0, dtype=dtype), *parts])).view(shape)


def _plain(codes: Tensor, absmax: Tensor, count: int, block: int, table: Tensor) -> Tensor:
    """(count,) float32."""
    table = table.to(codes.device)
    levels = torch.stack([table[(codes >> 4).int()], table[(codes & 15).int()]], dim=1).view(-1)[:count]
    blocks = count // block
    full, tail = levels[:blocks * block], levels[blocks * block:]
    return torch.cat([(full.view(-1, block) * absmax[:blocks, None]).view(-1), tail * absmax[blocks:]])


def _served(codes: Tensor, count: int, block: int) -> int:
    """How many values bitsandbytes' kernel makes: on a CPU only whole blocks, and from 2048 on none, where it compiles PyTorch code."""
    if codes.is_cuda:
        return count
    return count // block * block if block < 2048 else 0


def _demand_bitsandbytes(who: str, block: int) -> None:
    demand(who, _has_bitsandbytes(), "bitsandbytes installed for kernel 'bitsandbytes'", kernel="bitsandbytes")
    choice(f"{who} by bitsandbytes", _BLOCKS, block=block)


@functools.cache
def _has_bitsandbytes() -> bool:
    try:
        import bitsandbytes  # noqa: F401  (it registers its operators)
    except Exception:        # installed for another PyTorch or CUDA, it may fail in many ways
        return False
    return True
