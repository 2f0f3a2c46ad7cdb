"""A mixture of experts on a GPU, in bfloat16: the grouped matrix product against loops, transformers' experts and the peak."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.studies.attention_cuda import _figures, _seconds, matmul_peak
from benchmarks.studies.moe import Size, transformers_experts
from torch_impl.moe.experts import experts
from torch_impl.moe.permute import plan

DEVICE = "cuda"
SIZES = {"Mixtral 8x7B": Size(16384, 8, 2, 4096, 14336), "DeepSeekMoE 16B": Size(16384, 64, 6, 2048, 1408),
         "Qwen3 30B-A3B": Size(16384, 128, 8, 2048, 768), "DeepSeekMoE 16B, few tokens": Size(1024, 64, 6, 2048, 1408)}


@dataclasses.dataclass
class Way:
    """One way to compute the experts: its forward, and the leaves that it differentiates."""

    forward: Callable[[], Tensor]
    leaves: list[Tensor]


def ways(size: Size) -> dict[str, Way]:
    """Our kernels by the names they are known by, and transformers' experts as its loop and by its own grouped product."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    n, e, k, d, f = dataclasses.astuple(size)

    def drawn(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator, device=DEVICE, dtype=torch.bfloat16) * scale).requires_grad_(True)

    ids = torch.rand((n, e), generator=generator, device=DEVICE).argsort(1)[:, :k].contiguous()
    x, weights = drawn(n, d), torch.rand((n, k), generator=generator, device=DEVICE).bfloat16().requires_grad_(True)
    leaves = [x, weights, drawn(e, f, d, scale=d**-0.5), drawn(e, f, d, scale=d**-0.5), drawn(e, d, f, scale=f**-0.5)]

    def ours(kernel: str) -> Way:
        return Way(lambda: experts(*leaves, plan=plan(ids, experts=e), kernel=kernel), leaves)  # type: ignore[arg-type]

    found = {kernel: ours(kernel) for kernel in ("grouped", "loop")}
    for name, implementation in (("transformers eager", "eager"), ("transformers grouped", "grouped_mm")):
        theirs = transformers_experts(size, leaves)
        if theirs is not None:
            theirs.config._experts_implementation = implementation
            found[name] = Way(functools.partial(theirs, x, ids, weights), [x, weights, *theirs.parameters()])
    return found


def cuda(rounds: int) -> dict[str, Any]:
    """Every figure of the first CUDA device, in bfloat16."""
    peak = matmul_peak(rounds)
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "dtype": "bfloat16",
            "matmul_tflops": peak, "experts": [row for name, size in SIZES.items() for row in _size(name, size, rounds, peak)]}


def _size(name: str, size: Size, rounds: int, peak: float) -> list[dict[str, Any]]:
    forward_flops = 2 * 3 * size.tokens * size.k * size.width * size.hidden     # three products of each row with a matrix
    rows: list[dict[str, Any]] = []
    want = None
    for kernel, way in ways(size).items():
        row: dict[str, Any] = {"name": name, "kernel": kernel, "size": dataclasses.asdict(size)}

        def forward(way: Way = way) -> Any:
            with torch.no_grad():
                return way.forward()

        def both(way: Way = way) -> Any:
            y = way.forward()
            return torch.autograd.grad(y, way.leaves, torch.ones_like(y))

        works = {"forward": (forward, forward_flops), "forward + backward": (both, 3 * forward_flops)}
        try:
            y = forward().float()
            want = y if want is None else want
            row["difference"] = float((y - want).abs().max() / want.abs().max())       # from the first way, of its largest entry
            for what, (call, flops) in works.items():
                seconds = _seconds(call, rounds)
                row[what] = {"seconds": seconds, "tflops": flops / seconds / 1e12, "share": flops / seconds / 1e12 / peak}
        except (RuntimeError, ValueError) as why:              # no such kernel here, or not enough memory
            row["error"] = f"{type(why).__name__}: {str(why).splitlines()[0][:160]}"
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
        rows.append(row)
    return rows


def show_cuda(found: dict[str, Any], out: Console) -> None:
    """The table of a GPU."""
    from benchmarks.studies.timing import table

    out.print(f"[bold]{found['device']}[/], torch {found['torch']}, bfloat16: matrix products reach {found['matmul_tflops']:.0f} TFLOP/s",
              highlight=False)
    for name in dict.fromkeys(row["name"] for row in found["experts"]):
        rows = [row for row in found["experts"] if row["name"] == name]
        shown = [[row["kernel"], *(_figures(row, what) for what in ("forward", "forward + backward")),
                  f"{row['difference']:.1g}" if "difference" in row else "–", row.get("error", "")] for row in rows]
        table(out, [f"{name}: {Size(**rows[0]['size'])}", "forward, TFLOP/s", "forward + backward", "differs by", ""], shown)
