"""How much memory a step of fine-tuning takes in NumPy: planned from shapes, and measured in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any, Literal

from byhand.checks import choice, demand, size
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from byhand.finetuning.sizes import Shape, Storage, adapter_parameters, weight_bytes

Method = Literal["qlora", "lora", "full"]

METHODS: tuple[Method, ...] = ("qlora", "lora", "full")
_INTERPRETER = 40 << 20   # resident bytes of CPython 3.11 with NumPy 2 and all that a step imports
_STRIP = 4 << 20          # of dequantized rows at once: numpy_impl/quantize/linear_4bit.py
_FLOAT = 4


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Bytes that are resident at the worst moment of a run.

    interpreter : Python, NumPy and the libraries
    weights : of the base, quantized or not, embeddings and norms included
    adapters, gradients, states : what trains, its gradients, AdamW's two moments
    activations : what the backward needs, and what it works with
    building : what is in memory besides the finished part while the last block is made and quantized; instead of the four before
    """

    interpreter: int
    weights: int
    adapters: int
    gradients: int
    states: int
    activations: int
    building: int

    @property
    def step(self) -> int:
        """The peak during a step."""
        return self.interpreter + self.weights + self.adapters + self.gradients + self.states + self.activations

    @property
    def total(self) -> int:
        """The peak of the whole run."""
        return max(self.step, self.interpreter + self.weights + self.building)


def plan_memory(config: GPT2Config | LlamaConfig, *, method: Method = "qlora", r: int = 8, targets: Any = ("q_proj", "v_proj"),
                double: bool = True, block: int = 64, batch: int = 1, length: int = 128, recompute: bool = True) -> MemoryPlan:
    """What one update of that model takes in float32, before anything of it is built.

    Parameters
    ----------
    config           of the model
    method           "qlora": 4-bit matrices in the blocks, LoRA's adapters; "lora": float32 matrices, adapters; "full": every weight trains
    r, targets       of the adapters, as LoRAConfig takes them
    double, block    of the quantization
    batch, length    sequences, and tokens of each
    recompute        whether blocks keep their inputs only

    Raises
    ------
    ValueError   if an option is out of its range

    Examples
    --------
    >>> from byhand.configs.llama import LLAMA_PRESETS
    >>> plan = plan_memory(LLAMA_PRESETS["llama-2-7b"])
    >>> round(plan.weights / 1e9, 1), plan.total < 8e9
    (4.4, True)
    >>> plan_memory(LLAMA_PRESETS["llama-2-7b"], method="full").total > 100e9
    True
    """
    who = "plan_memory"
    choice(who, METHODS, method=method)
    choice(who, (False, True), double=double, recompute=recompute)
    size(who, batch=batch, length=length, block=block)
    size(who, at_least=0, r=r)
    demand(who, type(config) in (GPT2Config, LlamaConfig), "the config of a GPT-2 or a Llama, without experts", config=config)
    shapes = linear_shapes(config)
    inside = sum(rows * columns for rows, columns in shapes.values())            # numbers in the matrices of one block
    rest = config.parameters - config.n_layers * inside
    head = 0 if getattr(config, "tied", True) else config.vocabulary * config.d_model     # is made after the blocks
    storage: Storage = ("4bit-double" if double else "4bit") if method == "qlora" else "float32"
    matrices = sum(weight_bytes(rows * columns, storage, block=block) for rows, columns in shapes.values())
    trained = config.parameters
    if method != "full":
        names = {f"blocks.{i}.{name}": shape for i in range(config.n_layers) for name, shape in shapes.items()}
        chosen = LoRAConfig(r=r, targets=targets).select(dict.fromkeys(names, "Linear"), function=who)
        trained = sum(adapter_parameters(names[name], r) for name in chosen)
    kept, worked = _block_activations(config, length, training=method == "full")
    n = batch * length
    through = config.n_layers * (config.d_model if recompute else kept) + (kept if recompute else 0) + worked
    vocabulary = min(n, 512) * config.vocabulary                                 # logits of a chunk, whose gradient takes their place
    largest = max(rows * columns for rows, columns in shapes.values())
    workspace = min(_STRIP, largest * _FLOAT) if method == "qlora" else 0
    copies = trained if method != "full" else config.n_layers * inside           # scaled to the largest norm; large tables' are given back
    return MemoryPlan(
        interpreter=_INTERPRETER,
        weights=config.n_layers * matrices + rest * _FLOAT,
        adapters=trained * _FLOAT if method != "full" else 0,
        gradients=(trained + copies) * _FLOAT,
        states=2 * trained * _FLOAT,
        activations=(n * through + vocabulary) * _FLOAT + workspace,
        building=(inside + largest - head) * _FLOAT - matrices if method == "qlora" else 0,
    )


def linear_shapes(config: GPT2Config | LlamaConfig) -> dict[str, Shape]:
    """The shape (out, in) of every matrix in a block, by its name there."""
    d = config.d_model
    if isinstance(config, GPT2Config):
        f = config.d_hidden or 4 * d
        attention: dict[str, Shape] = {f"attn.{name}": (d, d) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        return attention | {"mlp.up_proj": (f, d), "mlp.down_proj": (d, f)}
    e, f = config.head_width or 0, config.d_hidden or 0
    h, k = config.n_heads * e, (config.n_kv_heads or 0) * e
    attention = {"attn.q_proj": (h, d), "attn.k_proj": (k, d), "attn.v_proj": (k, d), "attn.o_proj": (d, h)}
    return attention | {"mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f)}


def _block_activations(config: GPT2Config | LlamaConfig, length: int, *, training: bool) -> tuple[int, int]:
    """Numbers for each token that a block's pullbacks keep, and those that its backward works with besides.

    Counted by tracemalloc on blocks in which one width after the other was doubled. Attention keeps the triangle of its probabilities.
    """
    d, f = config.d_model, config.d_hidden or 4 * config.d_model
    h = config.n_heads * (config.head_width or 0) if isinstance(config, LlamaConfig) else d
    k = (config.n_kv_heads or 0) * (config.head_width or 0) if isinstance(config, LlamaConfig) else d
    own = 1 if training else 0                       # an input kept for the gradient of its weight
    kept = (3 + own) * f + (3 + own) * d + (6 + own) * h + 2 * k + config.n_heads * length // 2
    worked = 3 * f + 7 * d + 2 * h + 3 * k
    return kept, worked


def measure_memory(**options: Any) -> dict[str, int]:
    """Run one update in a process of its own; its resident bytes, as Linux counts them.

    options   model, the name of a preset, and those of `plan_memory`

    Returns
    -------
    imported    after the imports
    built       the peak until the model stands (VmHWM)
    step        the peak of the update (VmHWM, set back before it)
    total       the higher of the two
    milliseconds   of the update

    Raises
    ------
    ValueError   where there is no /proc, the method is unknown, or the process failed; with the last line of what it said
    """
    demand("measure_memory", os.path.exists("/proc/self/clear_refs"), "Linux, whose /proc tells the peak", platform=sys.platform)
    choice("measure_memory", METHODS, method=options.get("method", "qlora"))
    command = [sys.executable, "-m", "byhand.finetuning.memory_worker", json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stderr.strip().rpartition("\n")[2]
    demand("measure_memory", done.returncode == 0, "a process that ends well", exit=done.returncode, error=said)
    return json.loads(done.stdout.splitlines()[-1])
