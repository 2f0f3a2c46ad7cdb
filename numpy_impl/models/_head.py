"""What language models end in: logits from hidden states and their loss, by a head of its own or by the token table used again."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, exact_rank, fail, given, integers
from byhand.noise import Noise, at
from numpy_impl.decode.cache import Cache, Places
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Grads, Module
from numpy_impl.losses.linear_cross_entropy import frozen_linear_cross_entropy, linear_cross_entropy
from numpy_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from numpy_impl.ops.linear import frozen_linear, linear


class LanguageModel(Module):
    """logits = head(h).  Without a head of its own (``head`` is None) the table of token embeddings is used twice, to read tokens and to
    predict them, and its gradient is a sum of two; of an adapted table, the head reads the weight without the adapter."""

    config: Any
    tied_table = "tokens"   # what the head reads where it is None
    kind_of_cache: type[Cache] = Cache
    tokens: Any             # an Embedding, or what stands in its place
    head: Any               # a Linear, what stands in its place, or None

    def logits(self, h: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """h (..., T, D) -> logits (..., T, V); backward: dlogits -> dh, grads of the head."""
        if self.head is not None:
            logits, own_backward = self.head.forward(h, noise=at(noise, "head"))

            def backward(dlogits):
                dh, dhead = own_backward(dlogits)
                return dh, {"head": dhead}

        elif self.tokens.trains("weight"):
            logits, table_backward = linear(h, self.tokens.weight)

            def backward(dlogits):
                dh, dtable, _ = table_backward(dlogits)
                return dh, {"tokens": {"weight": dtable}}

        else:
            logits, frozen_backward = frozen_linear(h, weight=self.tokens.weight)

            def backward(dlogits):
                return frozen_backward(dlogits)[0], {}

        return logits, backward

    def extend(self, ids: NDArray, cache: Cache, *, real: NDArray | None = None, last: bool = True) -> NDArray:
        """Logits (B, V) behind the last token of each row, when ids (B, T) follow the tokens in the cache; the cache takes them in.

        An encoder–decoder's are the tokens of the target, the first of them the config's start. real (B, T) tells tokens from padding,
        which is passed over, wherever it stands; every row has a token. With last=False, logits (B, T, V) behind each of the new
        tokens, and a row may have none. There is no backward.

        Raises
        ------
        ValueError   if ids are no (B, T) tokens for the rows of the cache, the last token is asked for in a row that has none, or there
                     are more in all than the model takes
        """
        return self.extend_hidden(ids, cache, real=real, last=last)[0]

    def extend_hidden(self, ids: NDArray, cache: Cache, *, real: NDArray | None = None, last: bool = True) -> tuple[NDArray, NDArray]:
        """As `extend`, with what the head reads: logits (B, V) or (B, T, V), and h (B, T, D) of all new tokens."""
        who = f"{type(self).__name__}.extend"
        given(who, ids=ids)
        integers(who, ids=ids)
        exact_rank(who, 2, ids=ids)
        if not isinstance(cache, self.kind_of_cache):
            fail(who, f"a cache of its own new_cache, a {self.kind_of_cache.__name__}", f"one of type {type(cache).__name__}")
        places = cache.place(ids.shape, real)
        chosen = places.last()                                          # (B,)
        demand(who, not last or bool((chosen >= 0).all()), "a token in every row", ids=ids, real=real)
        h = self._extended(ids, cache, places)                          # (B, T, D)
        cache.advance(places)
        return self.logits(h[np.arange(len(ids)), chosen] if last else h)[0], h

    def _extended(self, ids: NDArray, cache: Any, places: Places) -> NDArray:
        """ids (B, T) -> h (B, T, D), what the head reads; a model that can be asked for one token after the other has it."""
        raise TypeError(f"{type(self).__name__} cannot be extended")

    def loss_of(self, h: NDArray, targets: NDArray, *, normalizer: float | None = None,
                noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """h (..., T, D), targets (..., T) -> loss (); backward: dloss () -> dh, grads of the head.

        Where the head is a matrix and nothing else, the logits of all tokens never exist together.
        """
        name, table = ("tokens", self.tokens) if self.head is None else ("head", self.head)
        plain = type(table) in (Embedding, Linear) and getattr(table, "bias", None) is None
        options = dict(targets=targets, normalizer=normalizer)
        if plain and table.trains("weight"):
            loss, fused_backward = linear_cross_entropy(h, table.weight, **options)

            def backward(dloss):
                dh, dweight = fused_backward(dloss)
                return dh, {name: {"weight": dweight}}

        elif plain:
            loss, frozen_backward = frozen_linear_cross_entropy(h, weight=table.weight, **options)

            def backward(dloss):
                return frozen_backward(dloss), {}

        else:
            logits, logits_backward = self.logits(h, noise=noise)
            loss, own_backward = softmax_cross_entropy(logits, **options)

            def backward(dloss):
                return logits_backward(own_backward(dloss))

        return loss, backward


def add_grads(one: Mapping[str, Any], other: Mapping[str, Any]) -> Grads:
    """Nested gradients, those of both; where a name is in both, the sum."""
    total = dict(one)
    for name, grad in other.items():
        if name not in one:
            total[name] = grad
        else:
            total[name] = add_grads(one[name], grad) if isinstance(grad, Mapping) else one[name] + grad
    return total
