"""Contrastive search: probable, and unlike what has been said (Su et al. 2022, "A contrastive framework for neural text generation",
arXiv:2202.06417)."""

from typing import Any

import torch
from torch import Tensor

from byhand.checks import demand, in_range, size
from byhand.configs.generation import GenerationConfig
from torch_impl.decode._hypotheses import largest
from torch_impl.decode._prompts import pad_of, room_behind
from torch_impl.decode._rows import widened
from torch_impl.decode.generate import _CONTEXT, _EOS, _LENGTH, _REASONS, _RUNS, Generated
from torch_impl.decode.process import process
from torch_impl.ops.softmax import softmax


@torch.no_grad()
def contrastive(model: Any, ids: Tensor, *, config: GenerationConfig, k: int = 4, alpha: float = 0.6, real: Tensor | None = None,
                cache: Any = None) -> Generated:
    """yₙ = argmax over the k most probable tokens v of  (1 − α) · p(v) − α · maxⱼ cos(h_v, h_j),  p = softmax(process(logits)).

    ids (B, T), real (B, T) -> sequences (B, L), lengths (B,), reasons, and the gap () of the scores among the candidates, on the device of
    ids. Each step asks once which rows go on.
    """
    room = _check(model, ids, config, k, alpha, real, cache)
    (b, t), device = ids.shape, ids.device
    most, k = config.max_new_tokens, min(k, getattr(model.config, "target_vocabulary", model.config.vocabulary))
    sequences, lengths = torch.full((b, most), pad_of(config), device=device), torch.zeros(b, dtype=torch.int64, device=device)
    eos = torch.tensor(config.eos, dtype=torch.int64, device=device)
    gap = torch.full((), torch.inf, dtype=torch.float64, device=device)
    why = torch.where(room > 0, _RUNS, _CONTEXT) if most else torch.full((b,), _LENGTH, device=device)
    rows = held = (why == _RUNS).nonzero().view(-1)  # those that run, and where in the cache they stand; what follows holds these alone
    if len(rows):
        cache = model.new_cache() if cache is None else cache
        logits, h = model.extend_hidden(ids, cache, real=real)
        logits, history = logits[rows], torch.cat([ids, sequences], 1)[rows]
        told = torch.ones_like(history, dtype=torch.bool)  # (N, T + L)
        if real is not None:
            told[:, :t] = real[rows]
        said = h.new_zeros(*history.shape, h.shape[-1])  # (N, T + L, D)
        said[:, :t] = _unit(h[rows])
    for n in range(most if len(rows) else 0):
        row, so_far = torch.arange(len(rows), device=device), t + n
        scores = process(logits, history=history[:, :so_far], generated=n, config=config, real=None if real is None else told[:, :so_far])
        candidates = largest(scores, k)  # (N, k), the most probable first
        cache.reorder(held.repeat_interleave(k))
        logits, h = model.extend_hidden(candidates.view(-1, 1), cache)
        h = _unit(h).view(len(rows), k, -1)
        cosines = (h @ said[:, :so_far].mT).masked_fill(~told[:, None, :so_far], -torch.inf)  # (N, k, T + n)
        weighed = (1 - alpha) * softmax(widened(scores)).gather(-1, candidates) - alpha * cosines.amax(-1)
        weighed = weighed.masked_fill(scores.gather(-1, candidates) == -torch.inf, -torch.inf)
        first = weighed.max(-1)
        best, others = first.indices, weighed.scatter(-1, first.indices[:, None], -torch.inf)
        gap = torch.cat([(first.values - others.amax(-1)).double(), gap[None]]).amin()

        chosen = candidates[row, best]
        sequences[rows, n] = history[:, so_far] = chosen
        said[:, so_far] = h[row, best]
        lengths[rows] += 1
        over = torch.full_like(rows, _LENGTH) if n + 1 == most else torch.where(room[rows] <= n + 1, _CONTEXT, _RUNS)
        why[rows] = torch.where(torch.isin(chosen, eos), _EOS, over)
        still = (why[rows] == _RUNS).nonzero().view(-1)
        if not len(still):
            break
        held = (k * row + best)[still]
        logits, rows, history, told, said = logits[held], rows[still], history[still], told[still], said[still]
    return Generated(sequences[:, : max(lengths.tolist(), default=0)], lengths, tuple(_REASONS[i] for i in why.tolist()), gap)


def _unit(h: Tensor) -> Tensor:
    """h / ‖h‖ along the last axis; 0 stays 0."""
    length = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
    return h / torch.where(length > 0, length, 1)


def _check(model: Any, ids: Tensor, config: GenerationConfig, k: int, alpha: float, real: Tensor | None, cache: Any) -> Tensor:
    """Refuse what will not do; -> (B,) how many tokens the model can read behind each prompt."""
    who = "contrastive"
    demand(who, isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    demand(who, config.temperature == 0, "temperature 0: it draws nothing", temperature=config.temperature)
    demand(who, config.beams == 1, "one beam: beam_search is for more", beams=config.beams)
    demand(who, not config.stop, "no stop strings: it sees no text", stop=config.stop)
    size(who, k=k)
    in_range(who, 0, 1, alpha=alpha)
    room = room_behind(who, model, ids, real, cache)
    return torch.full((len(ids),), config.max_new_tokens, device=ids.device) if room is None else room
