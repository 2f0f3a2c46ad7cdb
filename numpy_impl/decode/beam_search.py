"""Beam search: the likeliest text, looked for along several texts at once; and diverse beam search, in groups that avoid each other
(Vijayakumar et al. 2016, "Diverse beam search", arXiv:1610.02424)."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand
from byhand.configs.generation import GenerationConfig
from numpy_impl.decode._hypotheses import Hypotheses, largest
from numpy_impl.decode._prompts import pad_of, room_behind
from numpy_impl.decode.process import process
from numpy_impl.ops.softmax import log_softmax

_LOG_MOST = 80  # e⁸⁰ and e⁻⁸⁰ are float32 numbers


class Beams(NamedTuple):
    """What a beam search found for each prompt, best first.

    sequences (B, n_best, L) int64   the tokens that were generated, the end token included; the pad stands behind the end
    scores (B, n_best)               Σ log p / length**length_penalty; −∞ where there are not so many texts
    lengths (B, n_best) int64        how many tokens are no pad; 0 where there is no text
    """

    sequences: NDArray
    scores: NDArray
    lengths: NDArray


def beam_search(model: Any, ids: NDArray, *, config: GenerationConfig, real: NDArray | None = None, cache: Any = None) -> Beams:
    """The texts y with the best  Σₙ log p(yₙ | prompt, y₁ … yₙ₋₁) / length**length_penalty  that a search along `beams` texts finds.

    Each step scores every next token of every running text, and takes from all of them together the best (1 + end tokens) · beams. Of these
    the first `beams` that do not end go on; an end among the best `beams` finishes its text. The `beams` best finished texts are kept. The
    search is over when, by `early_stopping`, none that runs can take a place among them, or with max_new_tokens, which finishes the best
    `beams`. It is the search of transformers, token for token.

    With groups > 1 each group is such a search with beams / groups beams. They take every step one after the other: before a group chooses,
    it takes diversity_penalty off the score of a token for every beam of the groups before it that has just chosen this token. The texts of
    all groups are returned in one order.

    Penalties and constraints (`process`) change the log-probabilities, which are not normalised again; the prompt is part of what a penalty
    looks at. Everything is computed in the dtype of the logits. Of equal scores the earlier beam comes first, then the lower token.

    Parameters
    ----------
    model          with `new_cache` and `extend`, such as `GPT2` or `Llama`
    ids : (B, T)   int64, a prompt a row, at least one token long; for an encoder–decoder its start tokens
    config         temperature 0: nothing is drawn; no stop strings: text is not seen here
    real : (B, T)  booleans, True where ids is no padding, which may stand on either side; None: nowhere
    cache          of the model, with what comes before ids, B rows (`model.new_cache(source)` for an encoder–decoder); None: a new one.
                   It is used up: afterwards it holds rows of the beams

    Returns
    -------
    beams : Beams   sequences (B, n_best, L), scores (B, n_best), lengths (B, n_best)

    Raises
    ------
    ValueError   if a prompt is empty or longer than the model's context, ids are no integers or real does not fit them, there are more
                 beams than tokens in the vocabulary, config asks for what is excluded above or for a length_penalty beyond all numbers,
                 an encoder–decoder is given no cache, logits are NaN or +∞, or the rules leave a text no token

    Examples
    --------
    >>> from byhand.configs.gpt2 import GPT2Config
    >>> from numpy_impl.models.gpt2 import GPT2
    >>> model = GPT2(GPT2Config(7, 16, 8, 1, 2), rng=np.random.default_rng(0))
    >>> config = GenerationConfig(max_new_tokens=5, beams=3, n_best=2, eos=6)
    >>> beam_search(model, np.array([[1, 2, 3], [4, 5, 0]]), config=config).scores.shape
    (2, 2)
    """
    _check(model, ids, config, real, cache)
    b, beams, width = ids.shape[0], config.beams, config.beams // config.groups
    cache = model.new_cache() if cache is None else cache
    logits = np.repeat(model.extend(ids, cache, real=real), beams, 0)                   # (B · beams, V): each prompt is read once
    v = logits.shape[1]
    groups = [Hypotheses(b, width, config=config, pad=pad_of(config), dtype=logits.dtype) for _ in range(config.groups)]
    first = np.arange(b)[:, None]
    for generated in range(config.max_new_tokens):
        scores = log_softmax(logits)[0].reshape(b, config.groups, width, v)             # (B, G, w, V)
        said: list[NDArray] = []                                                        # by each group, at this step
        parents: list[NDArray] = []                                                     # (B, w) of the B · beams rows
        for i, group in enumerate(groups):
            own = _avoided(scores[:, i], said, config.diversity_penalty).reshape(b * width, v)
            history, real_too = _history(ids, group.tokens[:, :, :generated], real)
            own = process(own, history=history, generated=generated, config=config, real=real_too)
            parents.append(beams * first + i * width + group.advance(own.reshape(b, width, v)))
            said.append(group.said)
        if not any(group.open.any() for group in groups):
            break
        # What the cache holds after the first step is the prompts, a row each: that is where all beams go on from.
        rows = np.concatenate(parents, 1).ravel() if generated else np.repeat(np.arange(b), beams)
        cache.reorder(rows)
        logits = model.extend(np.concatenate([group.tokens[:, :, generated] for group in groups], 1).reshape(-1, 1), cache)

    scores, lengths, texts = (np.concatenate([getattr(group, name) for group in groups], 1) for name in ("scores", "lengths", "finished"))
    best = largest(scores, config.n_best)                                               # (B, n_best)
    lengths = lengths[first, best]
    return Beams(texts[first, best][:, :, : lengths.max(initial=0)], scores[first, best], lengths)


def _avoided(scores: NDArray, said: list[NDArray], penalty: float) -> NDArray:
    """scores (B, w, V), less `penalty` for every time that a token is among those `said` (B, w) by the groups before."""
    if not said or not penalty:
        return scores
    times = (np.concatenate(said, 1)[:, :, None] == np.arange(scores.shape[-1])).sum(1, dtype=scores.dtype)          # (B, V)
    return scores - penalty * times[:, None]


def _history(ids: NDArray, texts: NDArray, real: NDArray | None) -> tuple[NDArray, NDArray | None]:
    """Prompts ids (B, T) and what their beams wrote, texts (B, w, N) -> both (B · w, T + N), and which of it is no padding."""
    b, w, n = texts.shape

    def joined(prompts: NDArray, behind: NDArray) -> NDArray:
        return np.concatenate([np.repeat(prompts, w, 0), behind.reshape(b * w, n)], 1)

    return joined(ids, texts), None if real is None else joined(real, np.ones(texts.shape, bool))


def _check(model: Any, ids: NDArray, config: GenerationConfig, real: NDArray | None, cache: Any) -> None:
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
