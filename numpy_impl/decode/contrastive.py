"""Contrastive search: probable, and unlike what has been said (Su et al. 2022, "A contrastive framework for neural text generation",
arXiv:2202.06417)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, in_range, size
from byhand.configs.generation import GenerationConfig
from numpy_impl.decode._hypotheses import largest
from numpy_impl.decode._prompts import pad_of, room_behind
from numpy_impl.decode.generate import _CONTEXT, _EOS, _LENGTH, _REASONS, _RUNS, Generated
from numpy_impl.decode.process import process
from numpy_impl.ops.softmax import softmax


def contrastive(model: Any, ids: NDArray, *, config: GenerationConfig, k: int = 4, alpha: float = 0.6, real: NDArray | None = None,
                cache: Any = None) -> Generated:
    """yₙ = argmax over the k most probable tokens v of  (1 − α) · p(v) − α · maxⱼ cos(h_v, h_j),  p = softmax(process(logits)).

    h_v is what the head reads when the model has read v, h_j what it read behind each token of the text so far. A token that leads back to
    where the text has been is passed over for another one that is probable, and so the text does not run in circles, as greedy text does.
    With α = 0 or k = 1 it is greedy text.

    All candidates of all rows are read in one call, each by a row of its own in the cache; what is said behind the chosen ones is the next
    step's logits. Every token that is written has therefore been read, the last one too. Of equal scores the more probable token comes,
    of equally probable ones the lower id. A row that has ended is no longer computed.

    Parameters
    ----------
    model          with `new_cache` and `extend_hidden`, such as `GPT2` or `Llama`
    ids : (B, T)   int64, a prompt a row, at least one token long; for an encoder–decoder its start tokens
    config         temperature 0: nothing is drawn; one beam and no stop strings: text is not seen here
    k : int        how many candidates there are in each step; more than there are tokens are all of them
    alpha : float  α in [0, 1], what unlikeness counts against probability
    real : (B, T)  booleans, True where ids is no padding, which may stand on either side; None: nowhere
    cache          of the model, with what comes before ids, B rows (`model.new_cache(source)` for an encoder–decoder), which h_j does not
                   know; None: a new one. It is used up

    Returns
    -------
    generated : Generated   sequences (B, L), lengths (B,), reasons, and the gap () of the scores among the candidates

    Raises
    ------
    ValueError   if alpha is outside [0, 1] or k no positive integer, a prompt is empty or longer than the model's context, ids are no
                 integers or real does not fit them, config asks for what is excluded above, logits are NaN or +∞, or the rules leave a row
                 no token

    Examples
    --------
    >>> from byhand.configs.gpt2 import GPT2Config
    >>> from numpy_impl.models.gpt2 import GPT2
    >>> model = GPT2(GPT2Config(7, 16, 8, 1, 2), rng=np.random.default_rng(0))
    >>> found = contrastive(model, np.array([[1, 2, 3]]), config=GenerationConfig(max_new_tokens=5), k=3)
    >>> found.sequences.shape, found.reasons
    ((1, 5), ('length',))
    """
    room = _check(model, ids, config, k, alpha, real, cache)
    b, t = ids.shape
    most, k = config.max_new_tokens, min(k, getattr(model.config, "target_vocabulary", model.config.vocabulary))
    sequences, lengths, gap = np.full((b, most), pad_of(config)), np.zeros(b, np.int64), np.inf
    why = np.where(room > 0, _RUNS, _CONTEXT) if most else np.full(b, _LENGTH)
    rows = held = np.flatnonzero(why == _RUNS)                          # those that run, alone in all that follows; and in the cache
    if len(rows):
        cache = model.new_cache() if cache is None else cache
        logits, h = model.extend_hidden(ids, cache, real=real)
        logits, history = logits[rows], np.concatenate([ids, sequences], 1)[rows]
        told = np.ones(history.shape, bool)                             # (N, T + L)
        told[:, :t] = True if real is None else real[rows]
        said = np.zeros((*history.shape, h.shape[-1]), h.dtype)         # (N, T + L, D): h_j / ‖h_j‖
        said[:, :t] = _unit(h[rows])
    for n in range(most if len(rows) else 0):
        so_far, row = slice(t + n), np.arange(len(rows))
        scores = process(logits, history=history[:, so_far], generated=n, config=config, real=None if real is None else told[:, so_far])
        candidates = largest(scores, k)                                 # (N, k), the most probable first
        cache.reorder(np.repeat(held, k))
        logits, h = model.extend_hidden(candidates.reshape(-1, 1), cache)
        h = _unit(h).reshape(len(rows), k, -1)
        cosines = np.where(told[:, None, so_far], h @ said[:, so_far].swapaxes(1, 2), -np.inf)                          # (N, k, T + n)
        weighed = (1 - alpha) * np.take_along_axis(softmax(scores)[0], candidates, 1) - alpha * cosines.max(-1)
        weighed[np.take_along_axis(scores, candidates, 1) == -np.inf] = -np.inf                                        # excluded by a rule
        best, others = weighed.argmax(1), weighed.copy()
        others[row, best] = -np.inf
        gap = min(gap, float((weighed[row, best] - others.max(1)).min()))

        chosen = candidates[row, best]
        sequences[rows, n] = history[:, t + n] = chosen
        said[:, t + n] = h[row, best]
        lengths[rows] += 1
        over = _LENGTH if n + 1 == most else np.where(room[rows] <= n + 1, _CONTEXT, _RUNS)
        why[rows] = np.where(np.isin(chosen, config.eos), _EOS, over)
        still = np.flatnonzero(why[rows] == _RUNS)
        if not len(still):
            break
        held = (k * row + best)[still]
        logits, rows, history, told, said = logits[held], rows[still], history[still], told[still], said[still]
    return Generated(sequences[:, : lengths.max(initial=0)], lengths, tuple(_REASONS[i] for i in why), np.array(gap))


def _unit(h: NDArray) -> NDArray:
    """h / ‖h‖ along the last axis; 0 stays 0."""
    length = np.sqrt((h * h).sum(-1, keepdims=True))
    return np.divide(h, length, out=np.zeros_like(h), where=length > 0)


def _check(model: Any, ids: NDArray, config: GenerationConfig, k: int, alpha: float, real: NDArray | None, cache: Any) -> NDArray:
    """Refuse what will not do; -> (B,) how many tokens the model can read behind each prompt."""
    who = "contrastive"
    demand(who, isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    demand(who, config.temperature == 0, "temperature 0: it draws nothing", temperature=config.temperature)
    demand(who, config.beams == 1, "one beam: beam_search is for more", beams=config.beams)
    demand(who, not config.stop, "no stop strings: it sees no text", stop=config.stop)
    size(who, k=k)
    in_range(who, 0, 1, alpha=alpha)
    room = room_behind(who, model, ids, real, cache)
    return np.full(len(ids), config.max_new_tokens) if room is None else room
