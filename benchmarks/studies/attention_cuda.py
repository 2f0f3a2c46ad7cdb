"""Every kernel for attention on a GPU: TFLOP/s, the share of what matrix products reach there, and the error against float64."""

import contextlib
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_impl.attention.flash import flash_attention

HEADS, WIDTHS = 16, (64, 128)
LENGTHS = (1024, 2048, 4096, 8192, 16384)
TOKENS = 16384                                  # of a batch: it holds TOKENS / T sequences
ERROR_LENGTH = 1024
DEVICE = "cuda"
BACKENDS = {"sdpa flash": SDPBackend.FLASH_ATTENTION, "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
            "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION, "sdpa math": SDPBackend.MATH}

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def kernels() -> dict[str, Attention]:
    """Causal attention by every way there is, by name; those of our twin under the names that it knows them by."""

    def ours(kernel: str) -> Attention:
        return lambda q, k, v: flash_attention(q, k, v, causal=True, kernel=kernel)  # type: ignore[arg-type]

    def sdpa(backend: SDPBackend) -> Attention:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        return attend

    return {name: ours(name) for name in ("math", "flex", "flash_attn", "auto")} | {name: sdpa(b) for name, b in BACKENDS.items()}


def cuda(rounds: int) -> dict[str, Any]:
    """Every figure of the first CUDA device, in bfloat16."""
    torch.manual_seed(0)
    peak = matmul_peak(rounds)
    rows = [row for width in WIDTHS for t in LENGTHS for row in _length(t, width, rounds, peak)]
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "dtype": "bfloat16",
            "matmul_tflops": peak, "causal": rows, "errors": [row for width in WIDTHS for row in errors(width)]}


def matmul_peak(rounds: int) -> float:
    """TFLOP/s of one large bfloat16 matrix product: what there is to reach."""
    n = 8192
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / _seconds(lambda: a @ b, rounds) / 1e12


def _length(t: int, width: int, rounds: int, peak: float) -> list[dict[str, Any]]:
    batch = TOKENS // t
    leaves = [torch.randn(batch, HEADS, t, width, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    dy = torch.randn_like(leaves[0])
    forward_flops = 2 * 2 * batch * HEADS * width * t * t / 2   # two products; of a causal table, one half
    rows = []
    for name, attend in kernels().items():
        row: dict[str, Any] = {"kernel": name, "T": t, "batch": batch, "heads": HEADS, "width": width}

        def forward(attend: Attention = attend) -> Any:
            with torch.no_grad():
                return attend(*leaves)

        def both(attend: Attention = attend) -> Any:
            return torch.autograd.grad(attend(*leaves), leaves, dy)

        works = {"forward": (forward, forward_flops), "forward + backward": (both, 3.5 * forward_flops)}     # 2 and 2 + 5 products
        try:
            for what, (call, flops) in works.items():
                seconds = _seconds(call, rounds)
                row[what] = {"seconds": seconds, "tflops": flops / seconds / 1e12, "share": flops / seconds / 1e12 / peak}
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            both()
            torch.cuda.synchronize()
            row["peak_bytes"] = torch.cuda.max_memory_allocated() - before
        except (RuntimeError, ValueError) as why:              # no such kernel here, or not enough memory
            row["error"] = f"{type(why).__name__}: {str(why).splitlines()[0][:160]}"
        torch.cuda.empty_cache()
        rows.append(row)
    return rows


def errors(width: int) -> list[dict[str, Any]]:
    """Largest errors of outputs and gradients against float64, beside those of the plain formula in bfloat16.

    They are held to err(kernel) ≤ 2 · err(plain) for outputs and 3 · err(plain) for gradients, plus a rounding of the largest entry.
    """
    exact_leaves = [torch.randn(1, 4, ERROR_LENGTH, width, device=DEVICE).bfloat16().double().requires_grad_(True) for _ in range(3)]
    dy = torch.randn_like(exact_leaves[0]).bfloat16().double()
    names = ("y", "dquery", "dkey", "dvalue")

    def results(attend: Attention, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_(True) for x in exact_leaves]
        y = attend(*leaves)
        return [x.double() for x in (y.detach(), *torch.autograd.grad(y, leaves, dy.to(dtype)))]

    every = kernels()
    exact = results(every["math"], torch.float64)
    plain = [float((got - want).abs().max()) for got, want in zip(results(every["math"], torch.bfloat16), exact, strict=True)]
    rows = []
    for name, attend in every.items():
        row: dict[str, Any] = {"kernel": name, "width": width}
        with contextlib.suppress(RuntimeError, ValueError):
            found = results(attend, torch.bfloat16)
            row["error"] = {n: float((g - w).abs().max()) for n, g, w in zip(names, found, exact, strict=True)}
            row["of_plain"] = {n: row["error"][n] / max(p, 1e-30) for n, p in zip(names, plain, strict=True)}
            floor = [2**-8 * float(w.abs().max()) for w in exact]
            row["holds"] = all(row["error"][n] <= (2 if n == "y" else 3) * p + f for n, p, f in zip(names, plain, floor, strict=True))
        rows.append(row)
    return rows


def _seconds(call: Callable[[], Any], rounds: int) -> float:
    """Median by CUDA events, after three unmeasured calls (the first compiles)."""
    for _ in range(3):
        call()
    times = []
    for _ in range(max(rounds, 5)):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def show_cuda(found: dict[str, Any], out: Console) -> None:
    """The tables of a GPU."""
    from benchmarks.studies.timing import table

    out.print(f"[bold]{found['device']}[/], torch {found['torch']}, bfloat16: matrix products reach {found['matmul_tflops']:.0f} TFLOP/s",
              highlight=False)
    for width in WIDTHS:
        rows = [[f"T={row['T']}, {row['kernel']}", *(_figures(row, what) for what in ("forward", "forward + backward")),
                 f"{row['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in row else "–", row.get("error", "")]
                for row in found["causal"] if row["width"] == width]
        table(out, [f"causal, {HEADS} heads of {width}", "forward, TFLOP/s", "forward + backward", "peak MiB", ""], rows)
    rows = [[f"{row['kernel']}, width {row['width']}", *(f"{e:.2g}" for e in row["error"].values()), "yes" if row["holds"] else "NO"]
            for row in found["errors"] if "error" in row]
    table(out, ["largest error against float64", "y", "dquery", "dkey", "dvalue", "holds"], rows)


def _figures(row: dict[str, Any], what: str) -> str:
    return f"{row[what]['tflops']:.0f} ({row[what]['share']:.0%})" if what in row else "–"
