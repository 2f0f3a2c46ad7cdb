"""NF4, the 4-bit format of normally distributed weights (Dettmers, Pagnoni, Holtzman & Zettlemoyer 2023, QLoRA, arXiv:2305.14314)."""

from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from torch_impl.quantize._packed import FourBit, Kernel, pack, unpack
from torch_impl.quantize._spaced import spaced


def nf4_table(*, device: torch.device | str | None = None) -> Tensor:
    """level = Φ⁻¹(p) / max Φ⁻¹(p):  (16,) float32, eight quantiles above 0, seven below it, and 0."""
    above, below = (torch.tensor([NormalDist().inv_cdf(p) for p in spaced(0.9677083, 0.5, n)[:-1].tolist()]) for n in (8, 7))
    quantiles = torch.cat([-below, torch.zeros(1), above.flip(0)])
    return (quantiles / quantiles[-1]).to(device)


def quantize_nf4(x: Tensor, *, block: int = 64, kernel: Kernel = "auto") -> FourBit:
    """code[i] = argmin_c |table[c] − x[i] / absmax|,  absmax = max|x| over the block of i; the lower code at a tie.

    x (...) of any float dtype -> codes (⌈N/2⌉,) uint8, absmax (⌈N/block⌉,) float32. `kernel` is ``"plain"`` (PyTorch's own operators),
    ``"bitsandbytes"`` (whose CUDA kernel may differ by a code) or ``"auto"``, plain everywhere: the same bytes on every device.
    """
    return pack("quantize_nf4", x, block=block, table=_TABLE, kind="nf4", kernel=kernel)


def dequantize_nf4(
    codes: Tensor, *, absmax: Tensor, shape: Sequence[int], block: int = 64, dtype: torch.dtype = torch.float32, kernel: Kernel = "auto"
) -> Tensor:
    """x[i] = absmax of i's block · table[code[i]].

    codes (⌈N/2⌉,) uint8, absmax (⌈N/block⌉,) -> x of `shape`; the same bits from ``"plain"`` and ``"bitsandbytes"``, which ``"auto"``
    takes on CUDA where it is installed and has the block size.
    """
    return unpack("dequantize_nf4", codes, absmax=absmax, shape=shape, block=block, dtype=dtype, table=_TABLE, kind="nf4", kernel=kernel)


_TABLE = nf4_table()
