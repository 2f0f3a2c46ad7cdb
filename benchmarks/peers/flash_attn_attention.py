"""Attention by flash-attn's own kernel, on a GPU and in bfloat16: it has no float32."""

from typing import Any

from benchmarks.peers._cuda import on_cuda
from benchmarks.peers._training import waiting
from benchmarks.workload import Work
from benchmarks.workloads._common import normals


@on_cuda("flash-attn", of="attention forward, bfloat16", needs="flash-attn")
def forward(*, length: int, device: str = "cuda") -> Work:
    """16 heads of width 128, causal; compared with PyTorch's in float32 when it is prepared, to the places that bfloat16 has."""
    import torch
    import torch.nn.functional as F
    from flash_attn import flash_attn_func

    arrays = normals(*[(1, 16, length, 128)] * 3)
    query, key, value = (torch.from_numpy(a).to(device, torch.bfloat16).transpose(1, 2).contiguous() for a in arrays)       # (B, T, H, D)

    @torch.inference_mode()
    def run() -> Any:
        return flash_attn_func(query, key, value, causal=True)

    with torch.inference_mode():
        exact = [a.transpose(1, 2).float() for a in (query, key, value)]
        wanted = F.scaled_dot_product_attention(exact[0], exact[1], exact[2], is_causal=True).transpose(1, 2)
    if float((run().float() - wanted).abs().max()) > 2**-6 * float(wanted.abs().max()):
        raise ValueError("flash-attn computes something else")
    return Work(waiting(run, device))
