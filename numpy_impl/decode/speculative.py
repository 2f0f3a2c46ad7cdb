"""Speculative decoding: a draft is guessed, and checked as a whole (Leviathan, Kalman & Matias 2023, "Fast inference from transformers via
speculative decoding", arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318)."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, in_range, size
from byhand.configs.generation import GenerationConfig
from byhand.noise import Noise, at
from numpy_impl.decode._drafts import Drafter, LookUp, ModelDrafter
from numpy_impl.decode._prompts import pad_of, room_behind
from numpy_impl.decode._text import Text
from numpy_impl.decode.accept import accept
from numpy_impl.decode.gumbel import sample
from numpy_impl.ops.softmax import softmax


class Speculated(NamedTuple):
    """What was written behind each prompt, and how well it was guessed.

    sequences (B, L) int64   the tokens, an end token included; the pad stands behind the end
    lengths (B,) int64       how many of them are no pad
    reasons (B,)             why each row ended: "eos", "length" (max_new_tokens) or "context" (the model takes no more)
    rounds (B,) int64        how often the model checked a draft of the row; it was called once more, for the prompt
    drafted (B,) int64       how many tokens were guessed
    accepted (B,) int64      how many of them the model kept, those behind the end not counted
    """

    sequences: NDArray
    lengths: NDArray
    reasons: tuple[str, ...]
    rounds: NDArray
    drafted: NDArray
    accepted: NDArray


def speculative(
    model: Any, draft: Any, ids: NDArray, *, config: GenerationConfig, lookahead: int = 4, real: NDArray | None = None, cache: Any = None,
    draft_cache: Any = None, noise: Noise | None = None,
) -> Speculated:
    """Text distributed as `generate` with the model alone draws it; with temperature 0, token for token what `generate` writes.

    In each round the draft guesses up to G tokens, x₁ … x_G with xᵢ ~ q(· | …, xᵢ₋₁). The model reads them all in one call, which tells
    p(· | …, xᵢ) behind every one of them. `accept` decides how many are kept and draws one token more, so that a round writes from 1
    to G + 1. Both models' caches then forget what was rejected. Why it pays: a call with a few tokens reads the model's weights once, as a
    call with one does, and reading them is what takes the time.

    p and q are softmax(process(logits)): the rules, temperature and truncation of config hold for both, and it is the target under these
    rules that the text is distributed as. Rows of a batch keep different numbers of tokens, and grow each at its own speed. A row that has
    ended stays in the batch as padding. What a row draws depends on its number in the batch, not on the rows beside it.

    Parameters
    ----------
    model               with `new_cache` and `extend`, such as `GPT2` or `Llama`
    draft               the same, with the same vocabulary: a smaller model. None: what once followed the last tokens in the text is guessed
    ids : (B, T)        int64, a prompt a row, at least one token long; for an encoder–decoder its start tokens
    config              with one beam and no stop strings: text is not seen here
    lookahead : int     G, how many tokens are guessed at most
    real : (B, T)       booleans, True where ids is no padding, which may stand on either side; None: nowhere
    cache, draft_cache  with what comes before ids, B rows (`model.new_cache(source)` for an encoder–decoder, which takes one row alone);
                        None: new ones. They are used up
    noise : Noise       which stream is drawn with; needed where the temperature is above 0, and there alone looked at

    Returns
    -------
    speculated : Speculated   sequences (B, L), lengths (B,), reasons, rounds (B,), drafted (B,), accepted (B,)

    Raises
    ------
    ValueError   if the vocabularies differ, lookahead is no integer from 1 to 32, a prompt is empty or longer than one of the contexts, ids
                 are no integers or real does not fit them, there is no noise to draw with, config asks for what is excluded above, logits
                 are NaN or +∞, or the rules leave no token behind a text, drafted tokens included

    Examples
    --------
    >>> from byhand.configs.gpt2 import GPT2Config
    >>> from numpy_impl.models.gpt2 import GPT2
    >>> model = GPT2(GPT2Config(7, 16, 8, 1, 2), rng=np.random.default_rng(0))
    >>> config = GenerationConfig(max_new_tokens=11)
    >>> found = speculative(model, model, np.array([[1, 2, 3]]), config=config)          # a draft that is always right
    >>> found.lengths, found.rounds, found.drafted, found.accepted
    (array([11]), array([2]), array([8]), array([8]))
    """
    ends, room = _check(model, draft, ids, config, lookahead, real, cache, draft_cache, noise)
    noise = Noise(seed=0) if noise is None else noise                    # any will do to draw what is certain
    text = Text(ids, real, ends, room=config.max_new_tokens + lookahead, config=config)
    rounds, drafted, accepted = np.zeros((3, len(ids)), np.int64)
    if text.live.any():
        cache = model.new_cache() if cache is None else cache
        logits = model.extend(ids, cache, real=real)
        base = cache.lengths                                            # the tokens that it holds before the first written one
        drafter: Drafter = LookUp()
        if draft is not None:
            drafter = ModelDrafter(draft, draft.new_cache() if draft_cache is None else draft_cache, text, room)
        scores = text.scores(logits[:, None], text.live[:, None])[:, 0]
        text.append(np.zeros(len(ids), np.int64), sample(scores, noise=at(noise, "token")))
    while text.live.any():
        noise = dataclasses.replace(noise, step=noise.step + 1)
        most = np.where(text.live, np.minimum(text.ends - text.counts - 1, lookahead), 0)
        tokens, said, count = drafter.propose(text, most, at(noise, "draft"))
        unread = text.behind(text.counts - 1, tokens.shape[1] + 1)      # the last token, and the draft
        wanted = text.live[:, None] & (np.arange(tokens.shape[1] + 1) <= count[:, None])
        logits = model.extend(text.ids[unread], cache, real=wanted, last=False)
        target = softmax(text.scores(logits, wanted))[0]                # (B, G+1, V)
        said = None if said is None else said.astype(target.dtype, copy=False)
        kept, token = accept(said, target, tokens, noise=noise, drafted=count)
        rounds, drafted = rounds + text.live, drafted + count
        accepted += np.minimum(text.append(kept, token), kept)
        cache.crop(np.minimum(cache.lengths, base + text.counts - 1))   # the last token it has not read
        drafter.settle(text)
    return Speculated(text.sequences(pad_of(config)), text.counts, text.reasons(), rounds, drafted, accepted)


def _check(model: Any, draft: Any, ids: NDArray, config: GenerationConfig, lookahead: int, real: NDArray | None, cache: Any,
           draft_cache: Any, noise: Noise | None) -> tuple[NDArray, NDArray | None]:
    """Refuse what will not do; -> (B,) how many tokens may be written, and how many the draft can read."""
    who = "speculative"
    demand(who, isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    demand(who, config.beams == 1, "one beam: beam_search is for more", beams=config.beams)
    demand(who, not config.stop, "no stop strings: it sees no text", stop=config.stop)
    size(who, lookahead=lookahead)
    in_range(who, 1, 32, lookahead=lookahead)                            # so many every cache can take back
    demand(who, noise is None or isinstance(noise, Noise), "noise as a byhand.noise.Noise or None", noise=noise)
    demand(who, noise is not None or config.temperature == 0, "noise to draw with, or temperature 0", temperature=config.temperature)
    room = room_behind(who, model, ids, real, cache)
    ends = np.full(len(ids), config.max_new_tokens)
    ends = ends if room is None else np.minimum(ends, room + 1)          # the last token is not read
    if draft is None:
        return ends, None
    mine, its = (getattr(m.config, "target_vocabulary", m.config.vocabulary) for m in (model, draft))
    demand(who, mine == its, f"a draft with the model's vocabulary of {mine} tokens", vocabulary=its)
    return ends, room_behind(who, draft, ids, real, draft_cache, name="draft")
