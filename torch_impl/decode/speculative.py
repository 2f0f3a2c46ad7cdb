"""Speculative decoding: a draft is guessed, and checked as a whole (Leviathan, Kalman & Matias 2023, "Fast inference from transformers via
speculative decoding", arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318)."""

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from byhand.checks import demand, in_range, size
from byhand.configs.generation import GenerationConfig
from byhand.noise import Noise, at
from torch_impl.decode._drafts import Drafter, LookUp, ModelDrafter
from torch_impl.decode._prompts import pad_of, room_behind
from torch_impl.decode._rows import widened
from torch_impl.decode._text import Text
from torch_impl.decode.accept import accept
from torch_impl.decode.gumbel import sample
from torch_impl.ops.softmax import softmax


class Speculated(NamedTuple):
    """What was written behind each prompt, sequences (B, L), lengths (B,) and reasons; and how well it was guessed: rounds (B,) in which
    the model checked a draft, tokens that were drafted (B,), and those of them that were accepted (B,)."""

    sequences: Tensor
    lengths: Tensor
    reasons: tuple[str, ...]
    rounds: Tensor
    drafted: Tensor
    accepted: Tensor


@torch.no_grad()
def speculative(
    model: Any, draft: Any, ids: Tensor, *, config: GenerationConfig, lookahead: int = 4, real: Tensor | None = None, cache: Any = None,
    draft_cache: Any = None, noise: Noise | None = None,
) -> Speculated:
    """Text distributed as `generate` with the model alone draws it; with temperature 0, token for token what `generate` writes.

    The draft, a smaller model or None for what once followed in the text, guesses up to `lookahead` tokens; the model reads them in one
    call. ids (B, T), real (B, T) -> Speculated. All is on the device of ids; each round waits for the device to count what was kept.
    """
    ends, room = _check(model, draft, ids, config, lookahead, real, cache, draft_cache, noise)
    noise = Noise(seed=0) if noise is None else noise  # any will do to draw what is certain
    device = ids.device
    text = Text(ids, real, ends, room=config.max_new_tokens + lookahead, config=config)
    rounds, drafted, accepted = torch.zeros(3, len(ids), dtype=torch.int64, device=device)
    if text.live.any():
        cache = model.new_cache() if cache is None else cache
        logits = model.extend(ids, cache, real=real)
        base = cache.lengths
        drafter: Drafter = LookUp()
        if draft is not None:
            drafter = ModelDrafter(draft, draft.new_cache() if draft_cache is None else draft_cache, text, room)
        scores = text.scores(logits[:, None], text.live[:, None])[:, 0]
        text.append(torch.zeros_like(text.counts), sample(scores, noise=at(noise, "token")))
    while text.live.any():
        noise = dataclasses.replace(noise, step=noise.step + 1)
        most = torch.where(text.live, (text.ends - text.counts - 1).clamp(max=lookahead), 0)
        tokens, said, count = drafter.propose(text, most, at(noise, "draft"))
        unread = text.behind(text.counts - 1, tokens.shape[1] + 1)  # the last token, and the draft
        wanted = text.live[:, None] & (torch.arange(tokens.shape[1] + 1, device=device) <= count[:, None])
        logits = model.extend(text.ids[unread], cache, real=wanted, last=False)
        target = softmax(widened(text.scores(logits, wanted)))  # (B, G+1, V)
        said = None if said is None else said.to(target.dtype)
        kept, token = accept(said, target, tokens, noise=noise, drafted=count)
        rounds, drafted = rounds + text.live, drafted + count
        accepted = accepted + torch.minimum(text.append(kept, token), kept)
        cache.crop(torch.minimum(cache.lengths, base + text.counts.cpu() - 1))  # the last token it has not read
        drafter.settle(text)
    return Speculated(text.sequences(pad_of(config)), text.counts, text.reasons(), rounds, drafted, accepted)


def _check(model: Any, draft: Any, ids: Tensor, config: GenerationConfig, lookahead: int, real: Tensor | None, cache: Any,
           draft_cache: Any, noise: Noise | None) -> tuple[Tensor, Tensor | None]:
    """Refuse what will not do; -> (B,) how many tokens may be written, and how many the draft can read."""
    who = "speculative"
    demand(who, isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    demand(who, config.beams == 1, "one beam: beam_search is for more", beams=config.beams)
    demand(who, not config.stop, "no stop strings: it sees no text", stop=config.stop)
    size(who, lookahead=lookahead)
    in_range(who, 1, 32, lookahead=lookahead)
    demand(who, noise is None or isinstance(noise, Noise), "noise as a byhand.noise.Noise or None", noise=noise)
    demand(who, noise is not None or config.temperature == 0, "noise to draw with, or temperature 0", temperature=config.temperature)
    room = room_behind(who, model, ids, real, cache)
    ends = torch.full((len(ids),), config.max_new_tokens, device=ids.device)
    ends = ends if room is None else torch.minimum(ends, room + 1)
    if draft is None:
        return ends, None
    mine, its = (getattr(m.config, "target_vocabulary", m.config.vocabulary) for m in (model, draft))
    demand(who, mine == its, f"a draft with the model's vocabulary of {mine} tokens", vocabulary=its)
    return ends, room_behind(who, draft, ids, real, draft_cache, name="draft")
