"""Sampling by the Gumbel-max trick: noise is added, and the largest sum wins (Gumbel 1954; Maddison, Tarlow & Minka 2014,
arXiv:1411.0030)."""

import torch
from torch import Tensor

from byhand.checks import demand
from byhand.noise import Noise
from torch_impl.decode._rows import largest
from torch_impl.ops.random_bits import _words, random_bits

_REACH = 26.1     # the width of the noise's range, 26.004, and a little for rounding


@torch.no_grad()
def gumbel(
    shape: tuple[int, ...], *, noise: Noise, dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Tensor:
    """g = −log(−log u),  u = (bits + ½) / 2³²  with the 32 random bits of each entry: never 0 or 1.

    -> g of `shape`, computed in float64.
    """
    return _gumbel(random_bits(noise, shape, device=device)).to(dtype)


@torch.no_grad()
def sample(logits: Tensor, *, noise: Noise | None = None) -> Tensor:
    """argmaxᵢ (logitsᵢ + gᵢ)  with Gumbel noise g, which draws i with probability softmax(logits)ᵢ;  argmax logits without noise.

    logits (..., V) -> ids (...) int64.  On a CPU noise is only made for what can win.
    """
    demand("sample", noise is None or isinstance(noise, Noise), "noise as a byhand.noise.Noise or None", noise=noise)
    top = largest("sample", logits)
    if noise is None:
        return logits.max(-1).indices
    flat = (logits >= top - _REACH).reshape(-1).nonzero().view(-1) if logits.device.type == "cpu" else None
    if flat is None or 4 * len(flat) >= logits.numel():
        return (logits + gumbel(tuple(logits.shape), noise=noise, device=logits.device)).max(-1).indices
    words = _words(noise, flat // 4).view(torch.int32).gather(1, flat[:, None] % 4).view(torch.uint32).view(-1)
    scores = torch.full(logits.shape, -torch.inf, dtype=torch.float64)
    scores.view(-1)[flat] = logits.reshape(-1)[flat] + _gumbel(words)
    return scores.max(-1).indices


def _gumbel(bits: Tensor) -> Tensor:
    return bits.to(torch.float64).add_(0.5).mul_(2.0**-32).log_().neg_().log_().neg_()
