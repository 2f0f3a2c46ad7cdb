"""What writing text costs: tokens a second with a cache, against PyTorch, transformers and the bare products with the weights; prompts and
batches apart; by length of context and kind of cache; beams against one.

`python -m benchmarks decode` starts this file as processes of its own, one for each BLAS setting and one for the GPU:
`python -m benchmarks.studies.decode cpu|cuda ROUNDS THREADS` prints its figures as one line of JSON.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.studies.timing import answer, ms, table, transformers_version
from byhand.configs.generation import GenerationConfig
from byhand.configs.llama import LLAMA_PRESETS, LlamaConfig

SMALL = LlamaConfig(vocabulary=32000, max_length=2048, d_model=288, n_layers=6, n_heads=6, d_hidden=768, tied=True)
WRITTEN = {"Llama of width 288, 6 layers, 32,000 tokens": (SMALL, 200), "SmolLM2-135M": (LLAMA_PRESETS["smollm2-135m"], 24)}
PROMPT = 16
BATCHES, BATCH_PROMPT, BATCH_TOKENS = (1, 2, 4, 8, 16, 32), 128, 24
CONTEXTS = (32, 128, 512, 1024, 1984)
KINDS = ("contiguous", "paged", "int8", "nf4")


def cpu(rounds: int, threads: int) -> dict[str, Any]:
    """Every figure of one process: seconds are medians over `rounds`, in which the columns take turns."""
    import torch

    from benchmarks.about import describe

    torch.set_num_threads(threads)
    models = _models(SMALL)
    return {"about": describe() | {"transformers": transformers_version()},
            "written": [_written(name, config, count, rounds) for name, (config, count) in WRITTEN.items()],
            "batches": [_batch(b, models, rounds) for b in BATCHES],
            "contexts": [_context(n, models["numpy"], rounds) for n in CONTEXTS],
            "beams": _beams(models, rounds)}


def _models(config: LlamaConfig) -> dict[str, Any]:
    """The same weights on both sides: the torch model's are the NumPy model's memory."""
    import torch

    from numpy_impl.models.llama import Llama
    from torch_impl.models.llama import Llama as TorchLlama

    ours = Llama(config, rng=np.random.default_rng(0))
    with torch.device("meta"):
        theirs = TorchLlama(config)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()}, assign=True)
    return {"numpy": ours, "torch": theirs.requires_grad_(False)}


def _written(name: str, config: LlamaConfig, count: int, rounds: int) -> dict[str, Any]:
    """Seconds a token of one text, written greedily behind a short prompt: the median over all tokens of all rounds, which take turns."""
    import torch

    models = _models(config)
    writers = {
        "numpy": _numpy_writer(models["numpy"]),
        "torch": _torch_writer(models["torch"]),
        "torch, layer by layer": _torch_writer(models["torch"], flat=False),
        "transformers": _transformers_writer(config, models["numpy"].state_dict()),
        "products": _products([a for n, a in models["numpy"].state_dict().items() if a.ndim == 2]),
        "torch products": _torch_products([a for n, a in models["numpy"].state_dict().items() if a.ndim == 2]),
    }
    available = {column: writer for column, writer in writers.items() if writer is not None}
    times: dict[str, list[float]] = {column: [] for column in available}
    texts: dict[str, list[int]] = {}
    prompt = np.random.default_rng(0).integers(0, config.vocabulary, PROMPT).tolist()
    with torch.inference_mode():
        for measured in range(-1, rounds):
            for column in times:
                step, last, text = available[column](prompt), None, []
                for _ in range(count):
                    started = time.perf_counter()
                    last = step(last)
                    if measured >= 0:
                        times[column].append(time.perf_counter() - started)
                    text.append(last)
                texts[column] = text
    seconds = {column: statistics.median(found) for column, found in times.items()}
    written = [text for column, text in texts.items() if "products" not in column]
    sizes = {name: value for name, value in dataclasses.asdict(config).items() if name != "rope"}
    return {"name": name, "config": sizes, "tokens": count, "seconds": seconds,
            "same": all(text == written[0] for text in written), "ratios": {column: s / seconds["numpy"] for column, s in seconds.items()}}


Writer = Callable[[list[int]], Callable[[int | None], int]]    # a prompt -> (the last token, None at first -> the next one)


def _numpy_writer(model: Any) -> Writer:
    def start(prompt: list[int]) -> Callable[[int | None], int]:
        cache = model.new_cache()
        logits = model.extend(np.array([prompt]), cache)

        def step(last: int | None) -> int:
            return int((logits if last is None else model.extend(np.array([[last]]), cache)).argmax())

        return step

    return start


def _torch_writer(model: Any, flat: bool = True) -> Writer:
    """By `llama_step`, or by the layers as they are: what PyTorch calls eager."""
    import torch

    def start(prompt: list[int]) -> Callable[[int | None], int]:
        model._flat = lambda: flat
        cache = model.new_cache()
        logits = model.extend(torch.tensor([prompt]), cache)

        def step(last: int | None) -> int:
            return int((logits if last is None else model.extend(torch.tensor([[last]]), cache)).argmax())

        return step

    return start


def _transformers_writer(config: LlamaConfig, state: dict[str, NDArray]) -> Writer | None:
    """Transformers' model with these weights, one forward a token with its cache: what its `generate` does, without what that adds."""
    import torch

    try:
        import transformers
    except ImportError:
        return None
    from byhand.hugging_face.llama import llama_config_to_hugging_face, llama_to_hugging_face

    kind = transformers.AutoConfig.for_model(**llama_config_to_hugging_face(config))
    kind._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(kind)
    weights = {name: torch.from_numpy(array) for name, array in llama_to_hugging_face(state, config).items()}
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    rotary = type(model.model.rotary_emb)(kind)                         # its frequencies are no weights: on the meta device they are lost
    model.model.rotary_emb = rotary
    model.eval()

    def start(prompt: list[int]) -> Callable[[int | None], int]:
        cache = transformers.DynamicCache(config=kind)
        logits = model(torch.tensor([prompt]), past_key_values=cache, use_cache=True, logits_to_keep=1).logits

        def step(last: int | None) -> int:
            new = logits if last is None else model(torch.tensor([[last]]), past_key_values=cache, use_cache=True).logits
            return int(new[0, -1].argmax())

        return step

    return start


def _products(weights: list[NDArray]) -> Writer:
    """Every matrix times a vector, and nothing else: what no implementation in NumPy can be faster than."""
    inputs = {w.shape[1]: np.random.default_rng(1).standard_normal((1, w.shape[1])).astype(w.dtype) for w in weights}

    def step(last: int | None) -> int:
        for weight in weights:
            inputs[weight.shape[1]] @ weight.T
        return 0

    return lambda prompt: step


def _torch_products(weights: list[NDArray]) -> Writer:
    import torch
    import torch.nn.functional as F

    inputs = {w.shape[1]: torch.randn(1, w.shape[1]) for w in weights}
    matrices = [torch.from_numpy(w) for w in weights]

    def step(last: int | None) -> int:
        for weight in matrices:
            F.linear(inputs[weight.shape[1]], weight)
        return 0

    return lambda prompt: step


def _batch(b: int, models: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Tokens a second of b prompts that are read, and of b texts that are then written a token at a time."""
    import torch

    rng = np.random.default_rng(0)
    prompt, new = rng.integers(0, SMALL.vocabulary, (b, BATCH_PROMPT)), rng.integers(0, SMALL.vocabulary, (BATCH_TOKENS, b, 1))
    reading: dict[str, list[float]] = {"numpy": [], "torch": []}
    writing: dict[str, list[float]] = {"numpy": [], "torch": []}
    with torch.inference_mode():
        for measured in range(-1, rounds):
            for side, model in models.items():
                array = np.asarray if side == "numpy" else torch.from_numpy
                cache = model.new_cache()
                started = time.perf_counter()
                model.extend(array(prompt), cache)
                read = time.perf_counter()
                for tokens in new:
                    model.extend(array(tokens), cache)
                if measured >= 0:
                    reading[side].append(read - started)
                    writing[side].append(time.perf_counter() - read)
    return {"batch": b, "prefill": {side: b * BATCH_PROMPT / statistics.median(s) for side, s in reading.items()},
            "decode": {side: b * BATCH_TOKENS / statistics.median(s) for side, s in writing.items()}}


def _context(n: int, model: Any, rounds: int) -> dict[str, Any]:
    """Seconds of a token behind n others, and bytes held, by kind of cache."""
    ids = np.random.default_rng(0).integers(0, SMALL.vocabulary, (1, n))
    caches = {kind: model.new_cache(kind) for kind in KINDS}
    for cache in caches.values():
        model.extend(ids, cache)
    held = {kind: cache.nbytes for kind, cache in caches.items()}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for measured in range(-1, 4 * rounds):
        for kind, cache in caches.items():
            started = time.perf_counter()
            model.extend(ids[:, :1], cache)
            if measured >= 0:
                times[kind].append(time.perf_counter() - started)
    return {"context": n, "seconds": {kind: statistics.median(found) for kind, found in times.items()}, "bytes": held}


def _beams(models: dict[str, Any], rounds: int, count: int = 32) -> dict[str, Any]:
    """Seconds of a text written greedily and by 4 beams, each by the loop that `byhand generate` runs."""
    import torch

    from benchmarks.studies.timing import in_turn
    from numpy_impl.decode.beam_search import beam_search
    from numpy_impl.decode.generate import generate
    from torch_impl.decode.beam_search import beam_search as torch_beam_search
    from torch_impl.decode.generate import generate as torch_generate

    ids = np.random.default_rng(0).integers(0, SMALL.vocabulary, (1, PROMPT))
    one, four = GenerationConfig(max_new_tokens=count), GenerationConfig(max_new_tokens=count, beams=4)
    seconds = in_turn(rounds, {
        "numpy, greedy": lambda: generate(models["numpy"], ids, config=one),
        "numpy, 4 beams": lambda: beam_search(models["numpy"], ids, config=four),
        "torch, greedy": lambda: torch_generate(models["torch"], torch.from_numpy(ids), config=one),
        "torch, 4 beams": lambda: torch_beam_search(models["torch"], torch.from_numpy(ids), config=four),
    })
    return {"tokens": count, "seconds": seconds}


# Shown


def show(figures: dict[str, Any], out: Console) -> None:
    """A table for each question."""
    for blas, found in figures["cpu"].items():
        about = found["about"]
        out.print(f"[bold]{blas} BLAS[/]: {about['blas']}; torch {about['torch']}; transformers {about['transformers']}", highlight=False)
        columns = list(found["written"][0]["seconds"])
        written, others = [c for c in columns if "products" not in c], [c for c in columns if c not in ("numpy", "products")]
        rows = [[f"{row['name']}, {row['tokens']} tokens", *(f"{1 / row['seconds'][c]:.1f}" for c in written)] for row in found["written"]]
        table(out, ["tokens a second", *written], rows)
        rows = [[row["name"], *(f"{row['ratios'][c]:.2f}" for c in others), f"{row['ratios']['products']:.0%}"] for row in found["written"]]
        table(out, ["time ÷ numpy's", *others, "products' share"], rows)
        if not all(row["same"] for row in found["written"]):
            out.print("The columns did not write the same.", style="yellow")
        rows = [[str(row["batch"]), *(f"{row[what][side]:,.0f}" for what in ("prefill", "decode") for side in row[what])]
                for row in found["batches"]]
        table(out, ["batch, tokens a second", "numpy reads", "torch reads", "numpy writes", "torch writes"], rows)
        rows = [[f"{row['context']:,}", *map(ms, row["seconds"].values()), *(f"{b / 2**20:.2f}" for b in row["bytes"].values())]
                for row in found["contexts"]]
        table(out, ["context, ms a token", *KINDS, *(f"{kind}, MiB" for kind in KINDS)], rows)
        seconds = found["beams"]["seconds"]
        rows = [[side, ms(seconds[f"{side}, greedy"]), ms(seconds[f"{side}, 4 beams"]),
                 f"{seconds[f'{side}, 4 beams'] / seconds[f'{side}, greedy']:.2f}"] for side in ("numpy", "torch")]
        table(out, [f"{found['beams']['tokens']} tokens, ms", "greedy", "4 beams", "beams ÷ greedy"], rows)
    if "cuda" in figures:
        from benchmarks.studies.decode_cuda import show_cuda

        show_cuda(figures["cuda"], out)


def main() -> None:
    """Print the figures of this process."""
    from benchmarks.studies.decode_cuda import cuda

    answer(cpu, cuda)


if __name__ == "__main__":
    main()
