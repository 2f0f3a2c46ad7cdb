"""Text token by token: each one the likeliest, or drawn, and read before the next one is chosen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand
from byhand.configs.generation import GenerationConfig
from byhand.noise import Noise, at
from numpy_impl.decode._prompts import pad_of, room_behind
from numpy_impl.decode.gumbel import gumbel
from numpy_impl.decode.process import process

_RUNS, _LENGTH, _EOS, _CONTEXT, _STOP = range(5)
_REASONS = ("", "length", "eos", "context", "stop")


class Generated(NamedTuple):
    """What was written behind each prompt.

    sequences (B, L) int64   the tokens, an end token included; the pad stands behind the end
    lengths (B,) int64       how many of them are no pad
    reasons (B,)             why each row ended: "eos", "length" (max_new_tokens), "context" (the model takes no more) or "stop" (on_tokens)
    gap ()                   float64: over all tokens that were chosen, by how much the score of the best was above the next best's; ∞ where
                             there never was another. Scores that are off by less than half of it lead to the same text
    """

    sequences: NDArray
    lengths: NDArray
    reasons: tuple[str, ...]
    gap: NDArray


def generate(
    model: Any, ids: NDArray, *, config: GenerationConfig, real: NDArray | None = None, cache: Any = None, noise: Noise | None = None,
    on_tokens: Callable[[NDArray, NDArray], Any] | None = None,
) -> Generated:
    """yₙ = argmax(sₙ + gₙ),  sₙ = process(logits behind prompt, y₀ … yₙ₋₁),  with Gumbel noise gₙ,  or without, where the temperature is 0.

    Of equal sums the lower id comes. gₙ is the stream of `noise` at the name n, and row b's is entries b·V to (b + 1)·V of it: what a row
    draws depends on its logits, its number in the batch and n, not on the rows beside it. The prompts are read at once, then a token a row
    and step. A row that has ended is no longer computed.

    Parameters
    ----------
    model          with `new_cache` and `extend`, such as `GPT2` or `Llama`
    ids : (B, T)   int64, a prompt a row, at least one token long; for an encoder–decoder its start tokens
    config         with one beam: `beam_search` is for more
    real : (B, T)  booleans, True where ids is no padding, which may stand on either side; None: nowhere
    cache          of the model, with what comes before ids, B rows (`model.new_cache(source)` for an encoder–decoder); None: a new one. It
                   is used up: afterwards it holds the rows that ran to the end, without their last token
    noise : Noise  which stream samples are drawn with; needed where the temperature is above 0, and there alone looked at
    on_tokens      called after each step with the tokens (B,), the pad where a row had ended before, and which rows have ended (B,); it may
                   return booleans, () or (B,), True for rows that shall end here

    Returns
    -------
    generated : Generated   sequences (B, L), L the length of the longest; lengths (B,), reasons, gap ()

    Raises
    ------
    ValueError   if a prompt is empty or longer than the model's context, ids are no integers or real does not fit them, there is no noise
                 to draw with, config has several beams, or strings to stop at without an on_tokens that sees text, an encoder–decoder is
                 given no cache, on_tokens returns anything else, logits are NaN or +∞, or the rules leave a row no token

    Examples
    --------
    >>> from byhand.configs.gpt2 import GPT2Config
    >>> from numpy_impl.models.gpt2 import GPT2
    >>> model = GPT2(GPT2Config(7, 6, 8, 1, 2), rng=np.random.default_rng(0))
    >>> config = GenerationConfig(max_new_tokens=9, temperature=1.0)
    >>> found = generate(model, np.array([[1, 2, 3], [0, 4, 5]]), config=config, noise=Noise(seed=0))
    >>> found.sequences.shape, found.reasons                 # six tokens are read, and a last one comes behind them
    ((2, 4), ('context', 'context'))
    """
    room = _check(model, ids, config, real, cache, noise, on_tokens)
    cache = model.new_cache() if cache is None else cache
    pad = pad_of(config)
    rows = np.arange(len(ids))                           # those that run: the cache, logits, history and told hold these alone
    history, told = ids, real
    steps: list[NDArray] = []
    lengths, why, gap = np.zeros(len(ids), np.int64), np.full(len(ids), _LENGTH), np.inf
    most = config.max_new_tokens if len(ids) else 0
    logits = model.extend(ids, cache, real=real) if most else None
    for n in range(most):
        scores = process(logits, history=history, generated=n, config=config, real=told)
        chosen, margins = _chosen(scores, rows, len(ids), at(noise, str(n)) if config.temperature > 0 else None)
        gap = min(gap, float(margins.min(initial=np.inf)))
        lengths[rows] += 1
        steps.append(np.full(len(ids), pad))
        steps[-1][rows] = chosen

        over = _LENGTH if n + 1 == most else np.where(room[rows] <= n, _CONTEXT, _RUNS)
        why[rows] = np.where(np.isin(chosen, config.eos), _EOS, over)
        stop = None if on_tokens is None else on_tokens(steps[-1].copy(), why != _RUNS)
        if stop is not None:
            stopped = _stopped(stop, len(ids))[rows] & (why[rows] != _EOS)
            why[rows[stopped]] = _STOP
        still = np.flatnonzero(why[rows] == _RUNS)
        if not len(still):
            break
        if len(still) < len(rows):
            cache.reorder(still)
            rows, chosen, history, told = rows[still], chosen[still], history[still], None if told is None else told[still]
        history = np.concatenate([history, chosen[:, None]], 1)
        told = None if told is None else np.concatenate([told, np.ones((len(rows), 1), bool)], 1)
        logits = model.extend(chosen[:, None], cache)

    sequences = np.stack(steps, 1) if steps else np.zeros((len(ids), 0), np.int64)
    return Generated(sequences, lengths, tuple(_REASONS[i] for i in why), np.array(gap))


def _chosen(scores: NDArray, rows: NDArray, b: int, noise: Noise | None) -> tuple[NDArray, NDArray]:
    """scores (N, V) of the rows that run, of b -> the tokens chosen (N,), and how far each was above the next best (N,)."""
    if noise is not None:
        scores = scores + gumbel((b, scores.shape[1]), noise=noise)[rows]
    best, row = scores.argmax(1), np.arange(len(scores))
    others = scores.copy()
    others[row, best] = -np.inf
    return best, scores[row, best] - others.max(1)


def _stopped(stop: Any, b: int) -> NDArray:
    """What on_tokens has returned, booleans () or (B,) -> (B,)."""
    try:
        found = np.asarray(stop)
    except ValueError:                                   # rows of several lengths
        found = np.asarray(None)
    fits = found.dtype == bool and found.shape in ((), (b,))
    demand("generate", fits, f"None, or booleans () or ({b},), from on_tokens", on_tokens=stop)
    return np.broadcast_to(found, b)


def _check(model: Any, ids: NDArray, config: GenerationConfig, real: NDArray | None, cache: Any, noise: Noise | None,
           on_tokens: Callable | None) -> NDArray:
    """Refuse what will not do; -> (B,) how many tokens the model can read behind each prompt."""
    who = "generate"
    demand(who, isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    demand(who, config.beams == 1, "one beam: beam_search is for more", beams=config.beams)
    demand(who, not config.stop or on_tokens is not None, "on_tokens for strings to stop at: it sees no text itself", stop=config.stop)
    demand(who, noise is None or isinstance(noise, Noise), "noise as a byhand.noise.Noise or None", noise=noise)
    demand(who, noise is not None or config.temperature == 0, "noise to draw with, or temperature 0", temperature=config.temperature)
    room = room_behind(who, model, ids, real, cache)
    return np.full(len(ids), np.iinfo(np.int64).max) if room is None else room
