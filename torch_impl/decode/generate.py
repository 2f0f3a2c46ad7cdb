"""Text token by token: each one the likeliest, or drawn, and read before the next one is chosen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byhand.checks import demand
from byhand.configs.generation import GenerationConfig
from byhand.noise import Noise, at
from torch_impl.decode._prompts import pad_of, room_behind
from torch_impl.decode.gumbel import gumbel
from torch_impl.decode.process import process

_RUNS, _LENGTH, _EOS, _CONTEXT, _STOP = range(5)
_REASONS = ("", "length", "eos", "context", "stop")


class Generated(NamedTuple):
    """What was written behind each prompt: sequences (B, L), lengths (B,), why each row ended ("eos", "length", "context" or "stop"), and
    the smallest lead of a chosen token over the next best, gap (), float64."""

    sequences: Tensor
    lengths: Tensor
    reasons: tuple[str, ...]
    gap: Tensor


@torch.no_grad()
def generate(
    model: Any, ids: Tensor, *, config: GenerationConfig, real: Tensor | None = None, cache: Any = None, noise: Noise | None = None,
    on_tokens: Callable[[Tensor, Tensor], Any] | None = None,
) -> Generated:
    """yₙ = argmax(sₙ + gₙ),  sₙ = process(logits behind prompt, y₀ … yₙ₋₁),  with Gumbel noise gₙ,  or without, where the temperature is 0.

    ids (B, T), real (B, T) -> sequences (B, L), the pad behind each one's end. on_tokens(tokens (B,), ended (B,)) may return booleans, ()
    or (B,), True for rows that shall end. Row b's noise is that of its number in the batch and of n. Each step asks once which rows go on.
    """
    room = _check(model, ids, config, real, cache, noise, on_tokens)
    cache = model.new_cache() if cache is None else cache
    pad = pad_of(config)
    b, device = len(ids), ids.device
    rows = torch.arange(b, device=device)  # those that run: the cache, logits, history and told hold these alone
    eos = torch.tensor(config.eos, dtype=torch.int64, device=device)
    history, told = ids, real
    steps: list[Tensor] = []
    lengths, why = torch.zeros_like(rows), torch.full_like(rows, _LENGTH)
    gap = torch.full((), torch.inf, dtype=torch.float64, device=device)
    most = config.max_new_tokens if b else 0
    logits = model.extend(ids, cache, real=real) if most else None
    for n in range(most):
        scores = process(logits, history=history, generated=n, config=config, real=told)
        chosen, margins = _chosen(scores, rows, b, at(noise, str(n)) if config.temperature > 0 else None)
        gap = torch.cat([margins.double(), gap[None]]).amin()
        lengths[rows] += 1
        steps.append(torch.full_like(lengths, pad).index_copy(0, rows, chosen))

        over = torch.full_like(rows, _LENGTH) if n + 1 == most else torch.where(room[rows] <= n, _CONTEXT, _RUNS)
        why[rows] = torch.where(torch.isin(chosen, eos), _EOS, over)
        stop = None if on_tokens is None else on_tokens(steps[-1].clone(), why != _RUNS)
        if stop is not None:
            stopped = _stopped(stop, b, device)[rows] & (why[rows] != _EOS)
            why[rows[stopped]] = _STOP
        still = (why[rows] == _RUNS).nonzero().view(-1)
        if not len(still):
            break
        if len(still) < len(rows):
            cache.reorder(still)
            rows, chosen, history, told = rows[still], chosen[still], history[still], None if told is None else told[still]
        history = torch.cat([history, chosen[:, None]], 1)
        told = None if told is None else torch.cat([told, told.new_ones(len(rows), 1)], 1)
        logits = model.extend(chosen[:, None], cache)

    sequences = torch.stack(steps, 1) if steps else ids.new_zeros((b, 0), dtype=torch.int64)
    return Generated(sequences, lengths, tuple(_REASONS[i] for i in why.tolist()), gap)


def _chosen(scores: Tensor, rows: Tensor, b: int, noise: Noise | None) -> tuple[Tensor, Tensor]:
    """scores (N, V) of the rows that run, of b -> the tokens chosen (N,), and how far each was above the next best (N,)."""
    if noise is not None:
        scores = scores + gumbel((b, scores.shape[-1]), noise=noise, device=scores.device)[rows]
    best = scores.max(-1)
    others = scores.scatter(-1, best.indices[:, None], -torch.inf)
    return best.indices, best.values - others.amax(-1)


def _stopped(stop: Any, b: int, device: torch.device) -> Tensor:
    """What on_tokens has returned, booleans () or (B,) -> (B,)."""
    try:
        found = torch.as_tensor(stop, device=device)
    except (TypeError, ValueError, RuntimeError):  # no array, or rows of several lengths
        found = torch.empty(0)
    fits = found.dtype == torch.bool and found.shape in ((), (b,))
    demand("generate", fits, f"None, or booleans () or ({b},), from on_tokens", on_tokens=stop)
    return found.expand(b)


def _check(model: Any, ids: Tensor, config: GenerationConfig, real: Tensor | None, cache: Any, noise: Noise | None,
           on_tokens: Callable | None) -> Tensor:
    """Refuse what will not do; -> (B,) how many tokens the model can read behind each prompt."""
    who = "generate"
    demand(who, isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    demand(who, config.beams == 1, "one beam: beam_search is for more", beams=config.beams)
    demand(who, not config.stop or on_tokens is not None, "on_tokens for strings to stop at: it sees no text itself", stop=config.stop)
    demand(who, noise is None or isinstance(noise, Noise), "noise as a byhand.noise.Noise or None", noise=noise)
    demand(who, noise is not None or config.temperature == 0, "noise to draw with, or temperature 0", temperature=config.temperature)
    room = room_behind(who, model, ids, real, cache)
    return torch.full((len(ids),), torch.iinfo(torch.int64).max, device=ids.device) if room is None else room
