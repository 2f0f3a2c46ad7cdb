"""Beam search, and diverse beam search (Vijayakumar et al. 2016, "Diverse beam search", arXiv:1610.02424)."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byhand.checks import demand
from byhand.configs.generation import GenerationConfig
from torch_impl.decode._hypotheses import Hypotheses, largest
from torch_impl.decode._prompts import pad_of, room_behind
from torch_impl.decode.process import process
from torch_impl.ops.softmax import log_softmax

_LOG_MOST = 80  # e⁸⁰ and e⁻⁸⁰ are float32 numbers


class Beams(NamedTuple):
    """What a beam search found for each prompt, best first: sequences (B, n_best, L), scores (B, n_best), lengths (B, n_best)."""

    sequences: Tensor
    scores: Tensor
    lengths: Tensor


@torch.no_grad()
def beam_search(model: Any, ids: Tensor, *, config: GenerationConfig, real: Tensor | None = None, cache: Any = None) -> Beams:
    """The texts y with the best  Σₙ log p(yₙ | prompt, y₁ … yₙ₋₁) / length**length_penalty  that a search along `beams` texts finds.

    ids (B, T), real (B, T) -> sequences (B, n_best, L), the pad behind each one's end, scores and lengths (B, n_best), all on the device of
    the logits. A text that there is not has the score −∞ and length 0. Each step asks once whether any row is still open.
    """
    _check(model, ids, config, real, cache)
    b, beams, width = ids.shape[0], config.beams, config.beams // config.groups
    cache = model.new_cache() if cache is None else cache
    logits = model.extend(ids, cache, real=real).repeat_interleave(beams, 0)            # (B · beams, V)
    groups = [Hypotheses(b, width, config=config, pad=pad_of(config), like=logits) for _ in range(config.groups)]
    first = torch.arange(b, device=logits.device)[:, None]
    for generated in range(config.max_new_tokens):
        scores = log_softmax(logits).unflatten(0, (b, config.groups, width))            # (B, G, w, V)
        said: list[Tensor] = []
        parents: list[Tensor] = []
        for i, group in enumerate(groups):
            own = _avoided(scores[:, i], said, config.diversity_penalty).flatten(0, 1)
            history, real_too = _history(ids, group.tokens[:, :, :generated], real)
            own = process(own, history=history, generated=generated, config=config, real=real_too)
            parents.append(beams * first + i * width + group.advance(own.unflatten(0, (b, width))))
            said.append(group.said)
        if not torch.stack([group.open for group in groups]).any():
            break
        rows = torch.cat(parents, 1).flatten() if generated else first.repeat_interleave(beams)
        cache.reorder(rows)
        logits = model.extend(torch.cat([group.tokens[:, :, generated] for group in groups], 1).reshape(-1, 1), cache)

    scores, lengths, texts = (torch.cat([getattr(group, name) for group in groups], 1) for name in ("scores", "lengths", "finished"))
    best = largest(scores, config.n_best)                                               # (B, n_best)
    lengths = lengths.gather(1, best)
    return Beams(texts[first, best][:, :, : max(lengths.flatten().tolist(), default=0)], scores.gather(1, best), lengths)


def _avoided(scores: Tensor, said: list[Tensor], penalty: float) -> Tensor:
    """scores (B, w, V), less `penalty` for every time that a token is among those `said` (B, w) by the groups before."""
    if not said or not penalty:
        return scores
    tokens = torch.arange(scores.shape[-1], device=scores.device)
    times = (torch.cat(said, 1)[:, :, None] == tokens).sum(1).to(scores.dtype)          # (B, V)
    return scores - penalty * times[:, None]


def _history(ids: Tensor, texts: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Prompts ids (B, T) and what their beams wrote, texts (B, w, N) -> both (B · w, T + N), and which of it is no padding."""
    w = texts.shape[1]

    def joined(prompts: Tensor, behind: Tensor) -> Tensor:
        return torch.cat([prompts.repeat_interleave(w, 0), behind.flatten(0, 1)], 1)

    return joined(ids, texts), None if real is None else joined(real, torch.ones_like(texts, dtype=torch.bool))


def _check(model: Any, ids: Tensor, config: GenerationConfig, real: Tensor | None, cache: Any) -> None:
    who = "beam_search"
    demand(who, isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    demand(who, config.temperature == 0, "temperature 0: it draws nothing", temperature=config.temperature)
    demand(who, not config.stop, "no stop strings: it sees no text", stop=config.stop)
    within = abs(config.length_penalty) * math.log(max(config.max_new_tokens, 1)) <= _LOG_MOST
    demand(who, within, "max_new_tokens ** length_penalty to be a float32 above 0",
           max_new_tokens=config.max_new_tokens, length_penalty=config.length_penalty)
    room_behind(who, model, ids, real, cache)
    vocabulary = getattr(model.config, "target_vocabulary", model.config.vocabulary)
    demand(who, config.beams <= vocabulary, f"at most as many beams as there are tokens, {vocabulary}", beams=config.beams)
