"""Writing on a GPU: tokens a second layer by layer, flat, and as one CUDA graph; in bfloat16 and in 4 bits; and the share of the memory's
bandwidth that this is, since every token reads every weight."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.studies.attention_cuda import _seconds
from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig
from torch_impl.decode.llama_step import llama_step
from torch_impl.models.llama import Llama
from torch_impl.quantize.quantize_linears import quantize_linears

DEVICE = "cuda"
MODELS = {"SmolLM2-135M": LLAMA_PRESETS["smollm2-135m"], "TinyLlama-1.1B": LLAMA_PRESETS["tinyllama-1.1b"],
          "Llama-2-7B": LLAMA_PRESETS["llama-2-7b"]}
ROOM = 512          # tokens that a graph's cache has room for
PROMPT = 128


class _Fixed:
    """The caches of all layers with a fixed room, and where the next token stands, all on the device: a graph can hold every step."""

    def __init__(self, model: Llama, room: int):
        config = model.config
        weight = model.tokens.weight
        shape = (config.n_layers, 2, 1, config.n_kv_heads or config.n_heads, room, config.rope.head_width)
        self.held = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=weight.device)
        self.keys = torch.arange(room, device=weight.device)
        place = model.new_cache().place((1, room), device=weight.device)
        self.tables = [table.squeeze(0) for table in model.rotary(weight[None, :1], place)]         # (room, R/2) each
        self.blocks, self.norm = model.blocks, model.norm

    def rotary(self, x: Tensor, places: Any) -> list[Tensor]:
        """cos and sin of the next token's position, (1, 1, R/2)."""
        return [table[self.position][None] for table in self.tables]


class _FixedLayer:
    """One layer's part of it, in a LayerCache's place."""

    places = None

    def __init__(self, fixed: _Fixed, layer: int):
        self.fixed, self.layer = fixed, layer

    def append(self, key: Tensor, value: Tensor, *, left: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keep what is new, and return all the room, with a mask of what is held: windows are not for this benchmark."""
        fixed = self.fixed
        keys, values = fixed.held[self.layer]
        keys.index_copy_(2, fixed.position, key)
        values.index_copy_(2, fixed.position, value)
        return keys, values, (fixed.keys <= fixed.position)[None, None, None]


def fixed_step(model: Llama, room: int) -> tuple[_Fixed, Tensor, Callable[[], Tensor]]:
    """The cache, where the token's id (1, 1) is to be written, and what writes one step: its logits (1, 1, V)."""
    fixed, ids = _Fixed(model, room), torch.zeros(1, 1, dtype=torch.int64, device=model.tokens.weight.device)
    layers: Any = [_FixedLayer(fixed, i) for i in range(len(model.blocks))]

    def step() -> Tensor:
        logits = model.logits(llama_step(fixed, model.tokens(ids), layers))
        fixed.position += 1
        return logits

    return fixed, ids, step


def eager_step(model: Llama, flat: bool) -> Callable[[], Tensor]:
    """A token behind the prompt, taken back before the next one: by `llama_step`, or by the layers as they are."""
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.tokens.weight.device)
    cache = model.new_cache()
    model.extend(token.expand(1, PROMPT), cache)

    def step() -> Tensor:
        model._flat = lambda: flat  # type: ignore[method-assign]
        cache.crop(torch.tensor([PROMPT]))
        return model.extend(token, cache)

    return step


def captured(model: Llama) -> Callable[[], Tensor]:
    """The step with a fixed room as a CUDA graph."""
    fixed, _, step = fixed_step(model, ROOM)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    fixed.position.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step()
    fixed.position.zero_()

    def replay() -> Tensor:
        fixed.position.fill_(PROMPT)
        graph.replay()
        return logits

    return replay


def cuda(rounds: int) -> dict[str, Any]:
    """Every figure of the first CUDA device: seconds a token behind a prompt, one text at a time."""
    bandwidth = memory_bandwidth(rounds)
    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "bytes_per_second": bandwidth,
            "models": [row for name, config in MODELS.items() for row in _model(name, config, rounds)]}


def memory_bandwidth(rounds: int) -> float:
    """Bytes a second that a large sum reads."""
    x = torch.ones(2**28, device=DEVICE, dtype=torch.bfloat16)
    return x.nbytes / _seconds(x.sum, rounds)


@torch.inference_mode()
def _model(name: str, config: LlamaConfig, rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    rows = []
    for kind in ("bfloat16", "nf4"):
        model = Llama(config, dtype=torch.bfloat16, device=DEVICE).requires_grad_(False)
        if kind == "nf4":
            quantize_linears(model)
        read = sum(t.nbytes for n, t in model.state_dict().items() if n != "tokens.weight" or model.head is None)
        ways = {"layer by layer": partial(eager_step, model, False), "flat": partial(eager_step, model, True)}
        if torch.cuda.is_available():
            ways["CUDA graph"] = partial(captured, model)
        for way, make in ways.items():
            row: dict[str, Any] = {"name": name, "weights": kind, "way": way, "bytes_read": read}
            try:
                row["seconds"] = _seconds(make(), rounds)
            except (RuntimeError, ValueError) as error:               # a kernel that a graph cannot hold, say
                row["error"] = str(error).splitlines()[0]
            rows.append(row)
        del model
    return rows


def show_cuda(found: dict[str, Any], out: Console) -> None:
    """The table of a GPU."""
    from benchmarks.studies.timing import table

    peak = found["bytes_per_second"]
    out.print(f"[bold]{found['device']}[/], torch {found['torch']}: a sum reads {peak / 1e9:.0f} GB/s", highlight=False)
    rows = [[f"{row['name']}, {row['weights']}, {row['way']}",
             *([f"{1 / row['seconds']:.1f}", f"{row['bytes_read'] / row['seconds'] / peak:.0%}"] if "seconds" in row else ["–", "–"]),
             row.get("error", "")] for row in found["models"]]
    table(out, ["one text behind 128 tokens", "tokens a second", "share of bandwidth", ""], rows)
