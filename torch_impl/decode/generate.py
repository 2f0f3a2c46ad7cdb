"""Text token by token: each one the likeliest, or drawn, and read before the next one is chosen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byhand.checks import booleans, demand, exact_rank, given, integers, same_shape
from byhand.configs.generation import GenerationConfig
from byhand.noise import Noise, at
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
    pad = config.pad if config.pad is not None else config.eos[0] if config.eos else 0
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
            stopped = torch.as_tensor(stop, dtype=torch.bool, device=device).expand(b)[rows] & (why[rows] != _EOS)
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


def _check(model: Any, ids: Tensor, config: GenerationConfig, real: Tensor | None, cache: Any, noise: Noise | None,
           on_tokens: Callable | None) -> Tensor:
    """Refuse what will not do; -> (B,) how many tokens the model can read behind each prompt."""
    who = "generate"
    demand(who, isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    demand(who, config.beams == 1, "one beam: beam_search is for more", beams=config.beams)
    demand(who, not config.stop or on_tokens is not None, "on_tokens for strings to stop at: it sees no text itself", stop=config.stop)
    demand(who, noise is None or isinstance(noise, Noise), "noise as a byhand.noise.Noise or None", noise=noise)
    demand(who, noise is not None or config.temperature == 0, "noise to draw with, or temperature 0", temperature=config.temperature)
    demand(who, hasattr(model, "extend"), "a model that can be extended by a token", model=type(model).__name__)
    demand(who, cache is not None or not hasattr(model, "encode"), "a cache of an encoder–decoder: model.new_cache(source)", cache=cache)
    given(who, ids=ids)
    integers(who, ids=ids)
    exact_rank(who, 2, ids=ids)
    booleans(who, real=real)
    same_shape(who, ids.shape, real=real)
    b, t = ids.shape
    prompts = torch.full((b,), t, device=ids.device) if real is None else real.sum(-1)
    prompted = {"ids": ids} if real is None else {"ids": ids, "real": real}
    demand(who, bool((prompts > 0).all()), "at least one token in every prompt", **prompted)
    most = getattr(model.config, "max_length", None)
    if most is None:
        return torch.full((b,), config.max_new_tokens, device=ids.device)
    before = getattr(cache, "lengths", ())
    read = prompts + torch.as_tensor(before, device=ids.device) if len(before) == b else prompts
    demand(who, bool((read <= most).all()), f"prompts of at most {most} tokens, the model's context",
           tokens=max(read.tolist(), default=0))
    return most - read
