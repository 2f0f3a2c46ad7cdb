"""A GPT's training step: forward, backward and AdamW on random tokens, in float32 without dropout, beside torch's fused AdamW.

Apart: torch's AdamW as it is by default; the step by width, length and batch; on a GPU, GPT-2 with 124M parameters, all in bfloat16.
"""

from benchmarks.workload import Column, Work, workload
from benchmarks.workloads._common import built, multiplied, tokens, training
from byhand.configs.gpt2 import GPT2Config

TINY = dict(d_model=128, n_layers=2, n_heads=2, length=64, batch=4, vocabulary=1024)
D256 = dict(d_model=256, n_layers=4, n_heads=4, length=128, batch=8)
D384 = dict(d_model=384, n_layers=6, n_heads=6, length=256, batch=4)
GPT2 = dict(d_model=768, n_layers=12, n_heads=12, length=512, batch=2, vocabulary=50257)
SMALLER, LARGER, WHOLE = {"d256 L4 H4 T128 B8 V4096": D256}, {"d384 L6 H6 T256 B4 V4096": D384}, {"GPT-2 124M T512 B2": GPT2}


@workload("GPT training step", {"small": {"d128 L2 H2 T64 B4 V1024": TINY}, "medium": SMALLER, "large": SMALLER}, threads=(1, 2),
          compiled=True)
@workload("GPT training step", {"medium": LARGER, "large": LARGER | WHOLE}, threads=(1, 2))
def gpt_step(
    column: Column, *, d_model: int, n_layers: int, n_heads: int, length: int, batch: int, vocabulary: int = 4096, fused: bool = True,
    dtype: str = "float32",
) -> Work:
    """One update of a GPT-2 of this size."""
    config = GPT2Config(vocabulary, length, d_model, n_layers, n_heads, dropout=0.0)
    model = built(column, config, dtype=dtype)
    return training(column, model, tokens(vocabulary, batch, length + 1), trained=multiplied(config), fused=fused, dtype=dtype)


@workload("GPT training step, AdamW default", {"small": {"": TINY}, "medium": {"": D256}, "large": {"": D384}}, columns=("numpy", "torch"))
def default_step(column: Column, **size: int) -> Work:
    """The same beside torch's AdamW without `fused`."""
    return gpt_step(column, **size, fused=False)


@workload("GPT-2 124M training step in bfloat16", {"large": {"T1024 B16": GPT2 | dict(length=1024, batch=16)}}, compiled=True,
          columns=("cuda", "cuda compiled"))
def half_step(column: Column, **size: int) -> Work:
    """On a GPU alone."""
    return gpt_step(column, **size, dtype="bfloat16")


@workload("GPT step by width", {"small": (64, 128), "medium": (64, 128, 256, 512), "large": (64, 128, 256, 512, 1024)}, axis="width")
def by_width(column: Column, *, width: int) -> Work:
    """Two layers, heads of 64, 4 texts of 64 tokens."""
    return gpt_step(column, d_model=width, n_layers=2, n_heads=width // 64, length=64, batch=4)


@workload("GPT step by length", {"small": (32, 128), "medium": (32, 128, 512, 1024), "large": (32, 128, 512, 2048, 8192)}, axis="length")
def by_length(column: Column, *, length: int) -> Work:
    """Width 128, two layers, 1024 tokens in texts of this length, or one longer text."""
    return gpt_step(column, d_model=128, n_layers=2, n_heads=2, length=length, batch=max(1, 1024 // length), vocabulary=1024)


@workload("GPT step by batch", {"small": (1, 4), "medium": (1, 4, 16), "large": (1, 4, 16, 64)}, axis="batch")
def by_batch(column: Column, *, batch: int) -> Work:
    """Width 256, two layers, texts of 32 tokens."""
    return gpt_step(column, d_model=256, n_layers=2, n_heads=4, length=32, batch=batch)
