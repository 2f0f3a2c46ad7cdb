"""What language models end in: logits from hidden states and their loss, by a head of its own or by the token table used again."""

from typing import Any

from torch import Tensor, nn

from byhand.noise import Noise, at
from torch_impl.losses.softmax_cross_entropy import softmax_cross_entropy
from torch_impl.ops.linear import linear


class LanguageModel(nn.Module):
    """logits = head(h); without a head the token table is used again, and of an adapted table the weight without the adapter."""

    config: Any
    tied_table = "tokens"   # what the head reads where it is None
    tokens: Any
    head: nn.Module | None  # no default: a class attribute would hide the child of that name

    def logits(self, h: Tensor, *, noise: Noise | None = None) -> Tensor:
        """h (..., T, D) -> logits (..., T, V)."""
        return linear(h, self.tokens.weight) if self.head is None else self.head(h, noise=at(noise, "head"))

    def loss_of(self, h: Tensor, targets: Tensor, *, normalizer: float | None = None, noise: Noise | None = None) -> Tensor:
        """h (..., T, D), targets (..., T) -> loss ()."""
        return softmax_cross_entropy(self.logits(h, noise=noise), targets=targets, normalizer=normalizer)
