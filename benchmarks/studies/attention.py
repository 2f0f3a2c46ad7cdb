"""What attention costs: flash against plain and against PyTorch, memory by length, windows, shared keys; on a GPU, every kernel.

`python -m benchmarks attention` starts this file as processes of its own, one for each BLAS setting and one for the GPU:
`python -m benchmarks.studies.attention cpu|cuda ROUNDS THREADS` prints its figures as one line of JSON.
"""

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.studies.timing import answer, in_turn, mib, ms, table

HEADS, WIDTH = 4, 64
LENGTHS = {256: 4, 1024: 4, 4096: 1}           # queries: batch
MEMORY_LENGTHS = (1024, 2048, 4096, 8192)
WINDOW, WINDOW_LENGTHS = 256, (1024, 2048, 4096, 8192, 16384)
QUERY_HEADS, KEY_HEADS = 16, (16, 8, 4, 2, 1)

Pullback = Callable[[NDArray], tuple[NDArray, ...]]


def plain_attention(query: NDArray, key: NDArray, value: NDArray) -> tuple[NDArray, Pullback]:
    """Causal attention as it is written down: all T × T probabilities at once, kept for the backward."""
    t, scale = query.shape[-2], 1 / math.sqrt(query.shape[-1])
    scores = query @ key.swapaxes(-1, -2) * scale
    scores = np.where(np.tri(t, dtype=bool), scores, np.array(-np.inf, dtype=scores.dtype))
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)

    def backward(dy: NDArray) -> tuple[NDArray, ...]:
        dp = dy @ value.swapaxes(-1, -2)
        dscores = p * (dp - (p * dp).sum(-1, keepdims=True)) * scale
        return dscores @ key, dscores.swapaxes(-1, -2) @ query, p.swapaxes(-1, -2) @ dy

    return p @ value, backward


# On a CPU


def cpu(rounds: int, threads: int) -> dict[str, Any]:
    """Every figure of one process: seconds are medians over `rounds`, in which the columns take turns."""
    import torch

    from benchmarks.about import describe

    torch.set_num_threads(threads)
    return {"about": describe(), "causal": [_causal(t, batch, rounds) for t, batch in LENGTHS.items()],
            "memory": [_memory(t) for t in MEMORY_LENGTHS], "window": [_window(t, rounds) for t in WINDOW_LENGTHS],
            "grouped": [_grouped(k) for k in KEY_HEADS]}


def _causal(t: int, batch: int, rounds: int) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F

    from numpy_impl.attention.flash import flash_attention

    arrays = _arrays((batch, HEADS), t)
    query, key, value, dy = arrays
    leaves = [torch.from_numpy(x).requires_grad_(True) for x in arrays[:3]]
    cotangent = torch.from_numpy(dy)

    def torch_forward() -> Any:
        return F.scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], is_causal=True)

    def torch_inference() -> Any:
        with torch.no_grad():
            return torch_forward()

    seconds = in_turn(rounds, {
        "flash": lambda: flash_attention(query, key, value, causal=True)[1](dy),
        "plain": lambda: plain_attention(query, key, value)[1](dy),
        "torch": lambda: torch.autograd.grad(torch_forward(), leaves, cotangent),
        "flash forward": lambda: flash_attention(query, key, value, causal=True)[0],
        "torch forward": torch_inference,
    })
    flops = 2 * 7 * batch * HEADS * WIDTH * t * t / 2           # 2 products forward, 5 backward; of a causal table, one half
    return {"T": t, "batch": batch, "heads": HEADS, "width": WIDTH, "seconds": seconds, "gflops": flops / seconds["flash"] / 1e9,
            "flash_vs_plain": seconds["plain"] / seconds["flash"], "flash_vs_torch": seconds["torch"] / seconds["flash"],
            "flash_forward_vs_torch": seconds["torch forward"] / seconds["flash forward"]}


def _memory(t: int) -> dict[str, Any]:
    """Peak bytes beyond the inputs, forward and backward of one head, results included."""
    from byhand.noise import Noise
    from numpy_impl.attention.flash import flash_attention

    query, key, value, dy = _arrays((1, 1), t)
    ways = {
        "flash": lambda: flash_attention(query, key, value, causal=True),
        "flash with dropout": lambda: flash_attention(query, key, value, causal=True, dropout=0.1, noise=Noise(seed=0)),
        "plain": lambda: plain_attention(query, key, value),
    }
    peaks = {}
    for name, forward in ways.items():
        tracemalloc.start()
        _, backward = forward()
        backward(dy)
        peaks[name] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return {"T": t, "heads": 1, "width": WIDTH, "results_bytes": 4 * query.nbytes, "peak_bytes": peaks}


def _window(t: int, rounds: int) -> dict[str, Any]:
    """Forward and backward with a window that stays as it is while T grows."""
    from numpy_impl.attention.flash import flash_attention
    from numpy_impl.attention.sliding_window import sliding_window_attention

    query, key, value, dy = _arrays((1, HEADS), t)
    window = (WINDOW - 1, 0)
    seconds = in_turn(max(rounds // 2, 1), {
        "sliding_window": lambda: sliding_window_attention(query, key, value, window=window)[1](dy),
        "flash": lambda: flash_attention(query, key, value, window=window)[1](dy),
    })
    return {"T": t, "window": WINDOW, "heads": HEADS, "width": WIDTH, "seconds": seconds,
            "microseconds_per_token": {name: 1e6 * s / t for name, s in seconds.items()}}


def _grouped(key_heads: int) -> dict[str, Any]:
    """Bytes of keys and values, and of their gradients, for one sequence of 1024 tokens in float32."""
    from numpy_impl.attention.grouped_query import grouped_query_attention

    t = 1024
    query, _, _, dy = _arrays((QUERY_HEADS,), t)
    _, key, value, _ = _arrays((key_heads,), t)
    _, backward = grouped_query_attention(query, key, value, causal=True)
    _, dkey, dvalue, _ = backward(dy)
    return {"T": t, "query_heads": QUERY_HEADS, "key_heads": key_heads, "group": QUERY_HEADS // key_heads, "width": WIDTH,
            "key_value_bytes": key.nbytes + value.nbytes, "gradient_bytes": dkey.nbytes + dvalue.nbytes}


def _arrays(lead: tuple[int, ...], t: int) -> list[NDArray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((*lead, t, WIDTH), dtype=np.float32) for _ in range(4)]


# Shown


def show(figures: dict[str, Any], out: Console) -> None:
    """A table for each question."""
    for blas, found in figures["cpu"].items():
        about = found["about"]
        out.print(f"[bold]{blas} BLAS[/]: {about['blas']}; torch {about['torch']}", highlight=False)
        title = f"causal, {HEADS} heads of {WIDTH}, ms"
        rows = [[f"T={row['T']}, batch {row['batch']}", *(ms(row["seconds"][c]) for c in ("flash", "plain", "torch")),
                 f"{row['flash_vs_plain']:.2f}", f"{row['flash_vs_torch']:.2f}", f"{row['flash_forward_vs_torch']:.2f}",
                 f"{row['gflops']:.0f}"] for row in found["causal"]]
        table(out, [title, "flash", "plain", "torch", "plain ÷ flash", "torch ÷ flash", "forward alone", "GFLOP/s"], rows)
        names = list(found["memory"][0]["peak_bytes"])
        rows = [[f"T={row['T']}", *(mib(row["peak_bytes"][name]) for name in names), mib(row["results_bytes"])]
                for row in found["memory"]]
        table(out, ["peak memory of one head, forward + backward, MiB", *names, "(y and gradients)"], rows)
        names = list(found["window"][0]["seconds"])
        rows = [[f"T={row['T']}", *(ms(row["seconds"][n]) for n in names), *(f"{row['microseconds_per_token'][n]:.1f}" for n in names)]
                for row in found["window"]]
        table(out, [f"window of {WINDOW}, forward + backward, ms", *names, *(f"{n}, µs a token" for n in names)], rows)
    rows = [[f"{row['key_heads']} of {row['query_heads']}", str(row["group"]), mib(row["key_value_bytes"]), mib(row["gradient_bytes"])]
            for row in next(iter(figures["cpu"].values()))["grouped"]]
    table(out, ["key heads", "group", "keys and values, MiB", "their gradients, MiB"], rows)
    if "cuda" in figures:
        from benchmarks.studies.attention_cuda import show_cuda

        show_cuda(figures["cuda"], out)


def main() -> None:
    """Print the figures of this process."""
    from benchmarks.studies.attention_cuda import cuda

    answer(cpu, cuda)


if __name__ == "__main__":
    main()
