"""Which of a draft's tokens are kept, so that the text is drawn from the target (Leviathan, Kalman & Matias 2023, "Fast inference from
transformers via speculative decoding", arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318)."""

from typing import NamedTuple

import torch
from torch import Tensor

from byhand.checks import demand, exact_rank, floats, given, ids_below, of_dtype, same_shape
from byhand.noise import Noise, at
from torch_impl.decode.gumbel import sample
from torch_impl.ops.random_bits import random_bits

_MOST = 1 << 10  # drafted tokens; the numbers a row draws do not depend on how many there are


class Accepted(NamedTuple):
    """What becomes of each row's draft: how many of its tokens are kept, count (B,), and the token (B,) behind those."""

    count: Tensor
    token: Tensor


@torch.no_grad()
def accept(draft: Tensor | None, target: Tensor, tokens: Tensor, *, noise: Noise, drafted: Tensor | None = None) -> Accepted:
    """Keep token x with probability min(1, p(x) / q(x)) if those before it were kept;  draw the one behind the last that is kept from
    max(0, p − q) / Σ max(0, p − q) where one was rejected, and from p where none was.

    draft (B, G, V): q, None where no token was drawn;  target (B, G+1, V): p;  tokens (B, G), of which drafted (B,) of each row count
    -> count (B,), token (B,).
    """
    drafted = _check(draft, target, tokens, noise, drafted)
    b, g = tokens.shape
    p = target[:, :g].gather(-1, tokens[..., None])[..., 0]  # (B, G)
    q = 1.0 if draft is None else draft.gather(-1, tokens[..., None])[..., 0]
    bits = random_bits(at(noise, "accept"), (b, _MOST), part=((0, b), (0, g)), device=tokens.device)
    u = bits.to(torch.float64) * 2.0**-32 + 2.0**-33
    kept = (u * q < p) & (torch.arange(g, device=tokens.device) < drafted[:, None])
    count = kept.long().cumprod(1).sum(1)

    rejected = count < drafted
    wanted = target[torch.arange(b, device=tokens.device), count]  # (B, V)
    said = torch.zeros_like(wanted)
    if g:
        first = count.clamp(max=g - 1)[:, None]
        if draft is None:
            said.scatter_(1, tokens.gather(1, first), 1)
        else:
            said = draft.gather(1, first[..., None].expand(-1, -1, draft.shape[-1]))[:, 0]
    missing = torch.where(rejected[:, None], wanted - said, wanted).clamp(min=0)
    missing = torch.where((missing > 0).any(-1, keepdim=True), missing, wanted)  # p and q may be equal but for rounding
    return Accepted(count, sample(missing.log(), noise=at(noise, "token")))


def _check(draft: Tensor | None, target: Tensor, tokens: Tensor, noise: Noise, drafted: Tensor | None) -> Tensor:
    given("accept", target=target, tokens=tokens)
    floats("accept", target=target, draft=draft)
    of_dtype("accept", "int64", tokens=tokens)
    exact_rank("accept", 2, tokens=tokens)
    exact_rank("accept", 3, target=target)
    (b, g), v = tokens.shape, target.shape[-1]
    demand("accept", g <= _MOST, f"at most {_MOST} tokens in a draft", tokens=tokens)
    same_shape("accept", (b, g + 1, v), target=target)
    same_shape("accept", (b, g, v), draft=draft)
    ids_below("accept", v, tokens=tokens)
    for name, array in (("target", target), ("draft", draft)):
        if array is not None:
            demand("accept", bool((array >= 0).all()), "probabilities, none of them negative or NaN", **{name: array})
    demand("accept", isinstance(noise, Noise), "noise as a byhand.noise.Noise", noise=noise)
    if drafted is None:
        return torch.full((b,), g, device=tokens.device)
    same_shape("accept", (b,), drafted=drafted)
    ids_below("accept", g + 1, drafted=drafted)
    return drafted
