"""All rules of decoding one after the other: what is penalised, excluded and forced, and what may be drawn of the rest."""

import torch
from torch import Tensor

from byhand.checks import booleans, demand, exact_rank, given, same_shape, size
from byhand.configs.generation import GenerationConfig
from torch_impl.decode._rows import largest
from torch_impl.decode.constraints import ban_words, force_token, suppress
from torch_impl.decode.epsilon import keep_epsilon, keep_eta
from torch_impl.decode.min_p import keep_min_p
from torch_impl.decode.no_repeat_ngram import no_repeat_ngram
from torch_impl.decode.penalties import frequency_penalty, presence_penalty, repetition_penalty
from torch_impl.decode.temperature import temperature
from torch_impl.decode.top_k import keep_top_k
from torch_impl.decode.top_p import keep_top_p
from torch_impl.decode.typical import keep_typical


@torch.no_grad()
def process(
    scores: Tensor, *, history: Tensor, generated: int, config: GenerationConfig, real: Tensor | None = None
) -> Tensor:
    """Penalties, bans, forced tokens, temperature and truncation, as far as config asks for them, in the order of transformers.

    scores (N, V), history (N, L) int64, of which the last `generated` of each row were generated, real (N, L) booleans, False for padding
    -> y (N, V), −∞ for what cannot come.
    """
    given("process", scores=scores, history=history)
    demand("process", isinstance(config, GenerationConfig), "config as a GenerationConfig", config=config)
    exact_rank("process", 2, scores=scores, history=history)
    size("process", at_least=0, generated=generated)
    generated = int(generated)
    demand("process", generated <= history.shape[1], "generated <= the length of the history", generated=generated, history=history)
    largest("process", scores)
    booleans("process", real=real)
    same_shape("process", (scores.shape[0], history.shape[1]), history=history, real=real)
    y = _constrained(_penalised(scores, history, generated, config, real), history, generated, config, real)
    if y is not scores:
        largest("process", y, needs="rules that leave a token in every row")
    return _truncated(y, config) if config.temperature > 0 else y


def _penalised(y: Tensor, history: Tensor, generated: int, config: GenerationConfig, real: Tensor | None) -> Tensor:
    if config.repetition_penalty != 1:
        y = repetition_penalty(y, history=history, penalty=config.repetition_penalty, real=real)
    own = slice(history.shape[1] - generated, None)
    new, new_real = history[:, own], None if real is None else real[:, own]
    if config.frequency_penalty:
        y = frequency_penalty(y, history=new, penalty=config.frequency_penalty, real=new_real)
    if config.presence_penalty:
        y = presence_penalty(y, history=new, penalty=config.presence_penalty, real=new_real)
    return y


def _constrained(y: Tensor, history: Tensor, generated: int, config: GenerationConfig, real: Tensor | None) -> Tensor:
    if config.no_repeat_ngram:
        y = no_repeat_ngram(y, history=history, size=config.no_repeat_ngram, real=real)
    if config.banned:
        y = ban_words(y, history=history, words=config.banned, real=real)
    if config.eos and generated < config.min_new_tokens:
        y = suppress(y, tokens=config.eos)
    if config.forced_first is not None and generated == 0:
        y = force_token(y, token=config.forced_first)
    if config.forced_last is not None and generated == config.max_new_tokens - 1:
        y = force_token(y, token=config.forced_last)
    if config.suppressed:
        y = suppress(y, tokens=config.suppressed)
    return y


def _truncated(y: Tensor, config: GenerationConfig) -> Tensor:
    minimum = max(len(config.eos) + 1, 2) if config.beams > 1 else 1
    if config.temperature != 1:
        y = temperature(y, temperature=config.temperature)
    if config.top_k is not None:
        y = keep_top_k(y, k=max(config.top_k, minimum))
    if config.top_p is not None:
        y = keep_top_p(y, p=config.top_p, minimum=minimum)
    if config.min_p is not None:
        y = keep_min_p(y, p=config.min_p, minimum=minimum)
    if config.typical is not None:
        y = keep_typical(y, mass=config.typical, minimum=minimum)
    if config.epsilon is not None:
        y = keep_epsilon(y, epsilon=config.epsilon, minimum=minimum)
    if config.eta is not None:
        y = keep_eta(y, epsilon=config.eta, minimum=minimum)
    return y
