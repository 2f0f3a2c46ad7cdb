"""FP4, a 4-bit floating-point format: one sign bit, two exponent bits, one mantissa bit, in bitsandbytes' encoding."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_impl.quantize._packed import FourBit, Kernel, pack, unpack


def fp4_table(*, device: torch.device | str | None = None) -> Tensor:
    """level = (−1)^s · (1 + m/2) · 2^(4 − e) / 12 for the code s ee m, and (−1)^s · m/16 / 12 where e = 0:  (16,) float32."""
    code = torch.arange(16, device=device)
    sign, exponent, mantissa = 1.0 - 2.0 * (code >> 3), code >> 1 & 3, code & 1
    return sign * torch.where(exponent == 0, mantissa / 16, (1 + mantissa / 2) * 2.0 ** (4 - exponent)) / 12


def quantize_fp4(x: Tensor, *, block: int = 64, kernel: Kernel = "auto") -> FourBit:
    """code[i] = argmin_c |table[c] − x[i] / absmax|,  absmax = max|x| over the block of i; the lower level at a tie.

    x (...) of any float dtype -> codes (⌈N/2⌉,) uint8, absmax (⌈N/block⌉,) float32. `kernel` is ``"plain"`` (PyTorch's own operators),
    ``"bitsandbytes"`` (whose CUDA kernel may differ by a code, and in the sign of zero) or ``"auto"``, plain everywhere: the same bytes
    on every device.
    """
    return pack("quantize_fp4", x, block=block, table=_TABLE, kind="fp4", kernel=kernel)


def dequantize_fp4(
    codes: Tensor, *, absmax: Tensor, shape: Sequence[int], block: int = 64, dtype: torch.dtype = torch.float32, kernel: Kernel = "auto"
) -> Tensor:
    """x[i] = absmax of i's block · table[code[i]].

    codes (⌈N/2⌉,) uint8, absmax (⌈N/block⌉,) -> x of `shape`; equal from ``"plain"`` and ``"bitsandbytes"``, which ``"auto"`` takes on
    CUDA where it is installed and has the block size.
    """
    return unpack("dequantize_fp4", codes, absmax=absmax, shape=shape, block=block, dtype=dtype, table=_TABLE, kind="fp4", kernel=kernel)


_TABLE = fp4_table()
