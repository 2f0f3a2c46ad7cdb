"""Parts of a step whose cost is memory: AdamW, the gradient of an embedding, dropout by a counter's bits, and weights in four bits."""

from typing import Any

import numpy as np

from benchmarks.workload import Column, Work, workload
from benchmarks.workloads._common import computed, differentiated, given, implementation, normals, shown
from byhand.noise import Noise


@workload("AdamW", {"small": {"1M parameters": dict(matrices=1)}, "medium": {"10M parameters": dict(matrices=10)},
                    "large": {"100M parameters": dict(matrices=100)}}, threads=(1, 2))
def adamw(column: Column, *, matrices: int, fused: bool = True) -> Work:
    """A step on matrices of a million parameters each; torch's is fused."""
    arrays = normals(*[(1000, 1000)] * (2 * matrices))
    params, grads = ({str(i): array for i, array in enumerate(given(column, part))} for part in (arrays[:matrices], arrays[matrices:]))
    if column.side == "numpy":
        from numpy_impl.optim.adamw import AdamW

        optimizer = AdamW(params, lr=1e-3)

        def run() -> Any:
            optimizer.step(grads)
    else:
        import torch

        theirs = torch.optim.AdamW(params.values(), lr=1e-3, fused=fused or None)
        for name, param in params.items():
            param.grad = grads[name]
        run = theirs.step

    def numbers() -> Any:
        run(), run()
        return shown(**params)

    return Work(run, numbers=numbers, bytes=7 * 4e6 * matrices)        # g read, θ, m and v read and written


@workload("AdamW, torch's default", {"small": {"1M parameters": dict(matrices=1)}, "medium": {"10M parameters": dict(matrices=10)}},
          columns=("numpy", "torch"))
def default_adamw(column: Column, *, matrices: int) -> Work:
    """The same beside torch's without `fused`."""
    return adamw(column, matrices=matrices, fused=False)


@workload("embedding backward", {"small": {"4096 × 128, 512 tokens": dict(vocabulary=4096, width=128, count=512)},
                                 "medium": {"32,000 × 288, 4096 tokens": dict(vocabulary=32000, width=288, count=4096)},
                                 "large": {"50,257 × 768, 16,384 tokens": dict(vocabulary=50257, width=768, count=16384)}}, threads=(1, 2))
def embedding_backward(column: Column, *, vocabulary: int, width: int, count: int) -> Work:
    """The table's gradient alone. Ids are drawn by Zipf's law, as words come."""
    frequencies = 1 / np.arange(1, vocabulary + 1)
    ids = given(column, np.random.default_rng(0).choice(vocabulary, count, p=frequencies / frequencies.sum()))
    weight, dy = given(column, normals((vocabulary, width), (count, width)))
    embedding = implementation(column.side, "ops.embedding.embedding")
    if column.side == "numpy":
        backward = embedding(weight, ids=ids)[1]

        def run() -> Any:
            return backward(dy)
    else:
        import torch

        y = embedding(weight.requires_grad_(True), ids=ids)

        def run() -> Any:
            return torch.autograd.grad(y, weight, dy, retain_graph=True)[0]

    return Work(run, numbers=lambda: shown(dweight=run()), bytes=4 * width * (vocabulary + count), unit="tokens", units=count)


@workload("dropout", {"small": {"0.4M, Philox": dict(rows=512)}, "medium": {"6.3M, Philox": dict(rows=8192)},
                      "large": {"50M, Philox": dict(rows=65536)}}, threads=(1, 2))
def dropout(column: Column, *, rows: int, width: int = 768) -> Work:
    """Mask and product, forward and backward; both sides make the same bits."""
    drop = implementation(column.side, "ops.dropout.dropout")
    return differentiated(column, lambda x: drop(x, p=0.1, noise=Noise(0)), normals((rows, width)))


@workload("NF4 quantize", {"small": {"512²": dict(side=512)}, "medium": {"2048²": dict(side=2048)}, "large": {"4096²": dict(side=4096)}})
def quantize(column: Column, *, side: int) -> Work:
    """Blocks of 64 weights, two codes to a byte."""
    quantized = implementation(column.side, "quantize.four_bit.quantize_4bit")
    return computed(column, lambda x: quantized(x, kind="nf4", block=64), normals((side, side)), numbers=lambda found: found._asdict())


@workload("NF4 dequantize", {"small": {"512²": dict(side=512)}, "medium": {"2048²": dict(side=2048)}, "large": {"4096²": dict(side=4096)}})
def dequantize(column: Column, *, side: int) -> Work:
    """Back to float32."""
    from numpy_impl.quantize.four_bit import quantize_4bit

    made = quantize_4bit(normals((side, side))[0], kind="nf4", block=64)
    back = implementation(column.side, "quantize.four_bit.dequantize_4bit")
    return computed(column, lambda codes, absmax: back(codes, absmax=absmax, shape=(side, side), kind="nf4", block=64), list(made))
