"""The kernels that flash_attention and flash_attention_varlen choose from: what each can do, which is best, and how it is called."""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from byhand import checks
from byhand.checks import at_least_rank, choice, fail, floats, in_range, per_axis, positive, same_shape
from byhand.noise import Noise
from torch_impl.attention.scaled_dot_product import scaled_dot_product

Kernel = Literal["auto", "math", "sdpa", "flex", "flash_attn"]
Window = tuple[int | None, int | None]

KERNELS = ("auto", "math", "sdpa", "flex", "flash_attn")
HALVES = (torch.float16, torch.bfloat16)
_FAR = 1 << 40


@dataclasses.dataclass(frozen=True)
class Call:
    """One call, after its checks: which keys each query sees, and what becomes of the scores.

    place, low, high : (T,)   query i stands beside key place[i] and sees the keys low[i] ≤ j < high[i]
    packed : bool             whether these bounds follow from documents, or from `causal` and `window` alone
    """

    query: Tensor
    key: Tensor
    value: Tensor
    place: Tensor
    low: Tensor
    high: Tensor
    packed: bool
    causal: bool
    window: Window
    scale: float
    soft_cap: float | None
    alibi_slopes: Tensor | None
    dropout: float
    noise: Noise | None

    @property
    def drops(self) -> bool:
        return self.noise is not None and self.dropout > 0

    @property
    def needs_gradient(self) -> bool:
        return torch.is_grad_enabled() and any(x.requires_grad for x in (self.query, self.key, self.value))

    @property
    def bounded(self) -> bool:
        """Whether the bounds say more than PyTorch's own causal flag can."""
        return self.packed or self.window != (None, None)

    @property
    def plain(self) -> bool:
        """Whether PyTorch's own causal flag, which aligns the first query with the first key, says all there is to say."""
        flag = not self.bounded and (not self.causal or self.query.shape[-2] == self.key.shape[-2])
        return flag and self.alibi_slopes is None and self.soft_cap is None and not self.drops


def checked(
    who: str, query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float | None, soft_cap: float | None,
    alibi_slopes: Tensor | None, dropout: float, tile: int | tuple[int, int] | None,
) -> float:
    """Raise what both must, as the NumPy side does; the scale with its default filled in."""
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, _, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    checks.window(who, window=window)
    scale = 1 / math.sqrt(max(e, 1)) if scale is None else scale
    in_range(who, -1e30, 1e30, scale=scale)
    if soft_cap is not None:
        positive(who, soft_cap=soft_cap)
    if alibi_slopes is not None:
        floats(who, alibi_slopes=alibi_slopes)
        at_least_rank(who, 3, query=query)
        same_shape(who, lead[-1:], alibi_slopes=alibi_slopes)
    in_range(who, 0, 1, dropout=dropout)
    if tile is not None:
        per_axis(who, 2, tile=tile)
    return scale


def sight(place: Tensor, start: int | Tensor, stop: int | Tensor, causal: bool, window: Window) -> tuple[Tensor, Tensor]:
    """(low, high): the query at `place` among the keys from `start` to `stop` sees the keys low ≤ j < high."""
    left, right = (_FAR if reach is None else min(reach, _FAR) for reach in window)
    right = 0 if causal else right
    return (place - left).clamp(start, stop), (place + right + 1).clamp(start, stop)


# Choosing


def choose(who: str, kernel: Kernel, call: Call) -> str:
    """The kernel that runs this call: the one that was named, or the best that can.

    Raises
    ------
    ValueError   naming the kernel and what it cannot do
    """
    choice(who, KERNELS, kernel=kernel)
    if kernel != "auto":
        why = next(_obstacles(kernel, call), None)
        if why is not None:
            fail(who, f"another kernel than {kernel!r}", why)
        return kernel
    return next(name for name in _preferences(call) if next(_obstacles(name, call), None) is None)


def _preferences(call: Call) -> tuple[str, ...]:
    if call.query.dtype == torch.float64:
        return ("math",)                                   # for checking
    if not call.query.is_cuda or call.query.dtype not in HALVES:
        return ("sdpa", "math")
    # Where that flag is enough, PyTorch picks cuDNN or flash; given a mask, it needs all T × S of it in memory.
    return ("sdpa", "flash_attn", "flex", "math") if call.plain else ("flash_attn", "flex", "sdpa", "math")


def _obstacles(kernel: str, call: Call) -> Iterator[str]:
    """What keeps a kernel from this call: first what was asked of it, then where it should run."""
    query, value = call.query, call.value
    widths, device = (query.shape[-1], value.shape[-1]), query.device.type
    if kernel == "math":
        return
    if call.drops:
        yield "dropout, whose mask only 'math' draws from the noise"
    if kernel == "sdpa":
        if call.soft_cap is not None:
            yield f"soft_cap={call.soft_cap!r}, and SDPA has none"
        return
    if 0 in (*query.shape, *value.shape):
        yield f"an empty array: query {tuple(query.shape)}, value {tuple(value.shape)}"
    if kernel == "flex":
        if device == "cpu" and call.needs_gradient:
            yield "arrays on the CPU that need a gradient, and FlexAttention has no backward there"
        if device != "cpu" and query.dtype == torch.float64:
            yield f"float64 on {device}"
        if device != "cpu" and min(widths) < 16:
            yield f"widths {widths} on {device}, where FlexAttention needs 16 or more"
        return
    if query.dtype not in HALVES:
        yield f"{str(query.dtype).removeprefix('torch.')}, where flash-attn takes float16 and bfloat16"
    if widths[0] != widths[1] or widths[0] > 256:
        yield f"widths {widths}, where flash-attn takes one width of at most 256"
    if not call.scale > 0:
        yield f"scale={call.scale!r}, where flash-attn needs one above 0"
    if device != "cuda":
        yield f"arrays on {device}, and flash-attn runs on CUDA"
    if flash_attn("flash_attn_func") is None:
        yield "no distribution flash-attn 2.6 or newer in this environment"


@functools.cache
def flash_attn(function: str) -> Callable[..., Tensor] | None:
    """A function of the distribution flash-attn, version 2.6 (the first with a soft cap) or newer; None where it is not there.

    The distribution is asked for first: any folder on the path may be called flash_attn.
    """
    try:
        major, minor = (int(part) for part in importlib.metadata.version("flash-attn").split(".")[:2])
        if (major, minor) < (2, 6) or importlib.util.find_spec("flash_attn") is None:
            return None
        found = getattr(importlib.import_module("flash_attn"), function, None)
    except (ImportError, OSError, ValueError):             # absent, or built for another torch or CUDA
        return None
    return found if callable(found) else None


# Running


def run_dense(kernel: str, call: Call) -> Tensor:
    """"math" and "sdpa": scaled_dot_product, with window, documents and ALiBi as a mask and a bias of T × S entries."""
    s = call.key.shape[-2]
    keys = torch.arange(s, device=call.query.device)
    mask = bias = None
    if call.bounded:
        mask = (keys >= call.low[:, None]) & (keys < call.high[:, None])                      # (T, S)
    if call.alibi_slopes is not None:
        distance = (keys - call.place[:, None]).abs()
        bias = (-call.alibi_slopes[:, None, None] * distance).to(call.query.dtype)             # (H, T, S)
    return scaled_dot_product(
        call.query, call.key, call.value, bias, mask=mask, causal=call.causal and not call.bounded, scale=call.scale,
        soft_cap=call.soft_cap, dropout=call.dropout, noise=call.noise, kernel=kernel,
    )


def run_flex(call: Call) -> Tensor:
    """FlexAttention: window and documents as a block mask, soft cap and ALiBi as a change of the scores. Compiled on a GPU only."""
    *lead, t, _ = call.query.shape
    s, w = call.value.shape[-2:]
    place, slopes, cap = call.place, call.alibi_slopes, call.soft_cap

    def change(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        return score if slopes is None else score - slopes[h] * (j - place[i]).abs()

    if call.packed:
        blocks = _blocks(call.low, call.high, s)
    else:
        blocks = _blocks_of_window(t, s, call.causal, call.window, call.query.device)
    options = dict(score_mod=None if cap is None and slopes is None else change, block_mask=blocks, scale=call.scale)
    four = [x.reshape(-1, *([1] * (3 - x.ndim)), *x.shape[-3:]) for x in (call.query, call.key, call.value)]     # (B, H, ·, ·)
    if call.query.is_cuda:  # pragma: no cuda
        return _compiled()(*four, **options).reshape(*lead, t, w)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        four = [x.detach() for x in four]                      # FlexAttention asks the arrays, not whether gradients are wanted
        return flex_attention(*four, **options).reshape(*lead, t, w)


def _blocks(low: Tensor, high: Tensor, s: int) -> BlockMask:
    """Which tiles hold anything visible, and which are visible throughout: it takes all T × S entries to find out."""

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (j >= low[i]) & (j < high[i])

    return create_block_mask(seen, None, None, len(low), s, device=low.device)


@functools.lru_cache(maxsize=32)
def _blocks_of_window(t: int, s: int, causal: bool, window: Window, device: torch.device) -> BlockMask:
    """The same for a window, found once: a training asks for it at every step."""
    return _blocks(*sight(torch.arange(t, device=device) + (s - t), 0, s, causal, window), s)


@functools.cache
def _compiled() -> Any:  # pragma: no cuda
    return torch.compile(flex_attention)


def to_flash_attn(x: Tensor) -> Tensor:  # pragma: no cuda
    """(..., H, T, E) -> (B, T, H, E), the layout of flash-attn; heads may be missing."""
    return x.reshape(-1, *([1] * (3 - x.ndim)), *x.shape[-3:]).transpose(1, 2)


def flash_attn_options(call: Call) -> dict[str, Any]:  # pragma: no cuda
    """What flash_attn_func and flash_attn_varlen_func share."""
    slopes = None if call.alibi_slopes is None else call.alibi_slopes.float()
    return dict(softmax_scale=call.scale, softcap=call.soft_cap or 0.0, alibi_slopes=slopes)
