"""What a mixture of experts costs: sparse against dense, PyTorch's loop and transformers' experts; 8 to 64 experts; on a GPU, every kernel.

`python -m benchmarks moe` starts this file as processes of its own, one for each BLAS setting and one for the GPU:
`python -m benchmarks.studies.moe cpu|cuda ROUNDS THREADS` prints its figures as one line of JSON.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.studies.timing import answer, in_turn, ms, table, transformers_version


@dataclasses.dataclass(frozen=True)
class Size:
    """N tokens, each to k of E experts of width D and hidden width F."""

    tokens: int
    experts: int
    k: int
    width: int
    hidden: int

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.k} of {self.experts} experts of {self.width}×{self.hidden}"


SIZES = {"as in Mixtral, wide": Size(4096, 8, 2, 512, 1792), "top 2 of 8": Size(4096, 8, 2, 512, 1024),
         "few tokens": Size(512, 8, 2, 512, 1792), "as in DeepSeek, fine-grained": Size(4096, 64, 6, 512, 128)}
EXPERTS, GROWING = (8, 16, 32, 64), (Size(4096, 8, 2, 512, 1024), Size(4096, 8, 2, 512, 256))     # ever more experts, all else as it is


# On a CPU


def cpu(rounds: int, threads: int) -> dict[str, Any]:
    """Every figure of one process: seconds are medians over `rounds`, in which the columns take turns."""
    import torch

    from benchmarks.about import describe

    torch.set_num_threads(threads)
    return {"about": describe() | {"transformers": transformers_version()},
            "dispatch": [_dispatch(name, size, rounds) for name, size in SIZES.items()],
            "growing": [_growing(size, rounds) for size in GROWING]}


def _dispatch(name: str, size: Size, rounds: int) -> dict[str, Any]:
    import torch

    from numpy_impl.moe.dense_experts import dense_experts
    from numpy_impl.moe.experts import experts
    from numpy_impl.moe.permute import plan
    from torch_impl.moe.experts import experts as torch_experts
    from torch_impl.moe.permute import plan as torch_plan

    ids, arrays, dy = _drawn(size)
    leaves = [torch.from_numpy(a).requires_grad_(True) for a in arrays]
    routes, cotangent = torch.from_numpy(ids), torch.from_numpy(dy)

    def torch_loop() -> Any:
        return torch_experts(*leaves, plan=torch_plan(routes, experts=size.experts), kernel="loop")

    def differentiated(forward: Callable[[], Any], of: list[Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(forward(), of, cotangent)

    def inference(forward: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.no_grad():
                return forward()

        return call

    def sparse() -> Any:
        return experts(*arrays, plan=plan(ids, experts=size.experts))

    def dense() -> Any:
        return dense_experts(*arrays, plan=plan(ids, experts=size.experts))

    torch_forwards = {"torch loop": (torch_loop, leaves)}
    eager = transformers_experts(size, leaves)
    if eager is not None:
        gate_up, down = eager.parameters()
        torch_forwards["transformers"] = (lambda: eager(leaves[0], routes, leaves[1]), [leaves[0], leaves[1], gate_up, down])
    forward: dict[str, Callable[[], Any]] = {"numpy": sparse, "dense": dense}
    both: dict[str, Callable[[], Any]] = {"numpy": lambda: sparse()[1](dy), "dense": lambda: dense()[1](dy)}
    for column, (call, of) in torch_forwards.items():
        forward[column], both[column] = inference(call), differentiated(call, of)
    products_forward, products_both = products(size, ids, arrays)
    seconds = {"forward": in_turn(rounds, forward | {"products": products_forward}),
               "forward + backward": in_turn(rounds, both | {"products": products_both})}
    y = sparse()[0]
    same = all(np.allclose(call().detach(), y, rtol=0, atol=1e-5 * float(np.abs(y).max())) for call, _ in torch_forwards.values())
    return {"name": name, "size": dataclasses.asdict(size), "same": same, "seconds": seconds, "ratios": {
        what: {column: found[column] / found["numpy"] for column in found} for what, found in seconds.items()}}


def products(size: Size, ids: NDArray, arrays: list[NDArray]) -> tuple[Callable[[], None], Callable[[], None]]:
    """The matrix products of the sparse dispatch and nothing else, forward and both: each expert's 3 and 9, into memory that is there."""
    _, _, gate, up, down = arrays
    rng = np.random.default_rng(1)
    counts = np.bincount(ids.reshape(-1), minlength=size.experts).tolist()
    x, h = (rng.standard_normal((max(counts), wide), dtype=np.float32) for wide in (size.width, size.hidden))
    to_x, to_h = np.empty_like(x), np.empty_like(h)
    to_gate, to_down = np.empty_like(gate), np.empty_like(down)

    def forward() -> None:
        for e, n in enumerate(counts):
            np.matmul(x[:n], gate[e].T, out=to_h[:n])
            np.matmul(x[:n], up[e].T, out=to_h[:n])
            np.matmul(h[:n], down[e].T, out=to_x[:n])

    def both() -> None:
        forward()
        for e, n in enumerate(counts):
            np.matmul(x[:n], down[e], out=to_h[:n])
            np.matmul(x[:n].T, h[:n], out=to_down[e])
            for weight in (up, gate):
                np.matmul(h[:n], weight[e], out=to_x[:n])
                np.matmul(h[:n].T, x[:n], out=to_gate[e])

    return forward, both


def transformers_experts(size: Size, leaves: list[Any]) -> Any:
    """Transformers' MixtralExperts with these weights, as its plain loop; None where it is not installed."""
    import torch

    try:
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralExperts
    except ImportError:
        return None
    _, _, gate, up, down = (leaf.detach() for leaf in leaves)
    config = MixtralConfig(num_local_experts=size.experts, hidden_size=size.width, intermediate_size=size.hidden)
    config._experts_implementation = "eager"
    with torch.device("meta"):
        module = MixtralExperts(config)
    module.gate_up_proj, module.down_proj = (torch.nn.Parameter(w) for w in (torch.cat([gate, up], dim=1), down.clone()))
    return module


def _growing(size: Size, rounds: int) -> dict[str, Any]:
    """Forward and backward with ever more experts, at a constant number of rows: the gradients of all experts are new arrays each time."""
    from numpy_impl.moe.experts import experts
    from numpy_impl.moe.permute import plan

    def step(count: int) -> Callable[[], Any]:
        ids, arrays, dy = _drawn(dataclasses.replace(size, experts=count))
        return lambda: experts(*arrays, plan=plan(ids, experts=count))[1](dy)

    def idle(count: int) -> Callable[[], Any]:
        ids, arrays, dy = _drawn(dataclasses.replace(size, experts=count))
        return lambda: experts(*arrays, plan=plan(ids % EXPERTS[0], experts=count))[1](dy)

    ways = {"all are chosen": step, f"the same {EXPERTS[0]} are chosen": idle}
    seconds = in_turn(rounds, {f"{way}, {count}": make(count) for way, make in ways.items() for count in EXPERTS})
    return {"size": dataclasses.asdict(size), "seconds": {way: [seconds[f"{way}, {count}"] for count in EXPERTS] for way in ways}}


def _drawn(size: Size) -> tuple[NDArray, list[NDArray], NDArray]:
    """Routes (N, k) in which every token chooses at random; x, weights, gate, up and down; and a cotangent. All floats are float32."""
    rng = np.random.default_rng(0)
    n, e, k, d, f = dataclasses.astuple(size)
    ids = np.argsort(rng.random((n, e)), axis=1)[:, :k]
    x, dy = (rng.standard_normal((n, d), dtype=np.float32) for _ in range(2))
    weights = rng.random((n, k), dtype=np.float32)
    matrices = [rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5) for shape in ((e, f, d), (e, f, d), (e, d, f))]
    return ids, [x, weights, *matrices], dy


# Shown


def show(figures: dict[str, Any], out: Console) -> None:
    """A table for each question."""
    for blas, found in figures["cpu"].items():
        about = found["about"]
        out.print(f"[bold]{blas} BLAS[/]: {about['blas']}; torch {about['torch']}; transformers {about['transformers']}", highlight=False)
        for what in ("forward", "forward + backward"):
            columns = list(found["dispatch"][0]["seconds"][what])
            rows = [[f"{row['name']}: {Size(**row['size'])}", *(ms(row["seconds"][what][c]) for c in columns),
                     *(f"{row['ratios'][what][c]:.2f}" for c in columns[1:-1]), f"{row['ratios'][what]['products']:.0%}"]
                    for row in found["dispatch"]]
            table(out, [f"{what}, ms", *columns, *(f"{c} ÷ numpy" for c in columns[1:-1]), "share of products"], rows)
        for row in found["growing"]:
            rows = [[way, *map(ms, seconds), f"{seconds[-1] / seconds[0]:.2f}"] for way, seconds in row["seconds"].items()]
            size = row["size"]
            title = f"{size['tokens']} tokens, top {size['k']}, {size['width']}×{size['hidden']}, forward + backward, ms"
            table(out, [title, *(f"{count} experts" for count in EXPERTS), f"{EXPERTS[-1]} ÷ {EXPERTS[0]}"], rows)
        if not all(row["same"] for row in found["dispatch"]):
            out.print("The columns do not compute the same.", style="red")
    if "cuda" in figures:
        from benchmarks.studies.moe_cuda import show_cuda

        show_cuda(figures["cuda"], out)


def main() -> None:
    """Print the figures of this process."""
    from benchmarks.studies.moe_cuda import cuda

    answer(cpu, cuda)


if __name__ == "__main__":
    main()
