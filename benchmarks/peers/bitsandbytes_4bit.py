"""NF4 by bitsandbytes: blocks of 64 weights, two codes to a byte."""

from typing import Any

from benchmarks.peers._cuda import on_cuda
from benchmarks.peers._training import waiting
from benchmarks.workload import Work, peer
from benchmarks.workloads._common import normals, shown


@on_cuda("bitsandbytes", of="NF4 quantize", needs="bitsandbytes")
@peer("bitsandbytes", of="NF4 quantize", needs="bitsandbytes")
def quantize(*, side: int, device: str = "cpu") -> Work:
    """Codes and scales."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    x = torch.from_numpy(normals((side, side))[0]).to(device)

    def run() -> Any:
        return quantize_4bit(x, blocksize=64, quant_type="nf4")

    def numbers() -> Any:
        codes, state = run()
        return shown(codes=codes, absmax=state.absmax)

    return Work(waiting(run, device), numbers=numbers)


@on_cuda("bitsandbytes", of="NF4 dequantize", needs="bitsandbytes")
@peer("bitsandbytes", of="NF4 dequantize", needs="bitsandbytes")
def dequantize(*, side: int, device: str = "cpu") -> Work:
    """Back to float32."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    codes, state = quantize_4bit(torch.from_numpy(normals((side, side))[0]).to(device), blocksize=64, quant_type="nf4")

    def run() -> Any:
        return dequantize_4bit(codes, state)

    return Work(waiting(run, device), numbers=lambda: shown(y=run()))
