"""Causal attention by length: flash attention, forward and backward, 4 heads of width 64, as many texts as make 4096 tokens.

On a GPU also the forward alone as long texts need it: width 128, bfloat16, by the best kernel that is there.
"""

from typing import Any

from benchmarks.workload import Column, Work, workload
from benchmarks.workloads._common import computed, differentiated, implementation, normals

HEADS, WIDTH, TOKENS = 4, 64, 4096
LENGTHS = (64, 256, 1024, 4096)


@workload("attention", {"small": (64, 256, 1024), "medium": LENGTHS, "large": (*LENGTHS, 16384)}, axis="length")
def by_length(column: Column, *, length: int) -> Work:
    """Of half the table of scores, 2 products forward and 5 backward."""
    return attention(column, length=length, batch=max(1, TOKENS // length))


@workload("causal attention", {"small": {"4 × 4 heads of 64, T 128": dict(length=128, batch=4)},
                               "medium": {"4 × 4 heads of 64, T 512": dict(length=512, batch=4)},
                               "large": {"8 × 4 heads of 64, T 1024": dict(length=1024, batch=8)}}, compiled=True)
def attention(column: Column, *, length: int, batch: int, heads: int = HEADS, width: int = WIDTH) -> Work:
    """Forward and backward."""
    query, key, value = normals(*[(batch, heads, length, width)] * 3)
    flash = implementation(column.side, "attention.flash.flash_attention")

    def forward(*arrays: Any) -> Any:
        return flash(*arrays, causal=True)

    return differentiated(column, forward, [query, key, value], flops=7 * batch * heads * length**2 * width, unit="tokens",
                          units=batch * length)


@workload("attention forward, bfloat16", {"large": (4096, 16384)}, axis="length", columns=("cuda",))
def forward_alone(column: Column, *, length: int) -> Work:
    """16 heads of width 128."""
    flash = implementation(column.side, "attention.flash.flash_attention")
    arrays = normals(*[(1, 16, length, 128)] * 3)
    return computed(column, lambda *qkv: flash(*qkv, causal=True), arrays, flops=2 * 16 * length**2 * 128, dtype="bfloat16")
