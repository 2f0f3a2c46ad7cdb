"""What language models end in: logits from hidden states and their loss, by a head of its own or by the token table used again."""

from typing import Any

import torch
from torch import Tensor, nn

from byhand.checks import demand, exact_rank, fail, given, integers
from byhand.noise import Noise, at
from torch_impl.decode.cache import Cache, Places
from torch_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from torch_impl.ops.linear import linear


class LanguageModel(nn.Module):
    """logits = head(h); without a head the token table is used again, and of an adapted table the weight without the adapter."""

    config: Any
    tied_table = "tokens"   # what the head reads where it is None
    kind_of_cache: type[Cache] = Cache
    tokens: Any
    head: nn.Module | None  # no default: a class attribute would hide the child of that name

    def logits(self, h: Tensor, *, noise: Noise | None = None) -> Tensor:
        """h (..., T, D) -> logits (..., T, V)."""
        return linear(h, self.tokens.weight) if self.head is None else self.head(h, noise=at(noise, "head"))

    @torch.no_grad()
    def extend(self, ids: Tensor, cache: Cache, *, real: Tensor | None = None, last: bool = True) -> Tensor:
        """Logits (B, V) behind the last token of each row, when ids (B, T) follow the tokens in the cache, which takes them in; with
        last=False, (B, T, V) behind each of the new ones. real (B, T) tells tokens from padding, which is passed over; every row has a
        token, or with last=False perhaps none."""
        return self.extend_hidden(ids, cache, real=real, last=last)[0]

    @torch.no_grad()
    def extend_hidden(self, ids: Tensor, cache: Cache, *, real: Tensor | None = None, last: bool = True) -> tuple[Tensor, Tensor]:
        """As `extend`, with what the head reads: logits (B, V) or (B, T, V), and h (B, T, D) of all new tokens."""
        who = f"{type(self).__name__}.extend"
        given(who, ids=ids)
        integers(who, ids=ids)
        exact_rank(who, 2, ids=ids)
        if not isinstance(cache, self.kind_of_cache):
            fail(who, f"a cache of its own new_cache, a {self.kind_of_cache.__name__}", f"one of type {type(cache).__name__}")
        places = cache.place(tuple(ids.shape), real, device=ids.device)
        chosen = places.last()  # (B,)
        told = ids.shape[1] > 0 if places.real is None else bool((chosen >= 0).all())
        demand(who, not last or told or not len(ids), "a token in every row", ids=ids, real=real)
        h = self._extended(ids, cache, places)  # (B, T, D)
        cache.advance(places)
        return self.logits(h[torch.arange(len(ids), device=h.device), chosen] if last else h), h

    def _extended(self, ids: Tensor, cache: Any, places: Places) -> Tensor:
        """ids (B, T) -> h (B, T, D), what the head reads; a model that can be asked for one token after the other has it."""
        raise TypeError(f"{type(self).__name__} cannot be extended")

    def loss_of(self, h: Tensor, targets: Tensor, *, normalizer: float | None = None, noise: Noise | None = None) -> Tensor:
        """h (..., T, D), targets (..., T) -> loss ()."""
        return softmax_cross_entropy(self.logits(h, noise=noise), targets=targets, normalizer=normalizer)
