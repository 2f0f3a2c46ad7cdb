"""Linear attention (Katharopoulos, Vyas, Pappas & Fleuret 2020, arXiv:2006.16236): without softmax, keys and values sum up to a state."""

import torch
import torch.nn.functional as F
from torch import Tensor

from byhand.checks import at_least_rank, floats, positive, same_shape

_CHUNK = 64


def linear_attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False, eps: float = 1e-6) -> Tensor:
    """y_t = φ(q_t) · Σ_s φ(k_s) v_sᵀ / (φ(q_t) · Σ_s φ(k_s) + ε)  over the keys s that query t may see,  with  φ(x) = elu(x) + 1.

    query (..., T, E), key (..., S, E), value (..., S, W) -> y (..., T, W). All chunks of a causal sequence are computed at once: each one's
    state is a cumulative sum over the chunks before it.
    """
    who = "linear_attention"
    floats(who, query=query, key=key, value=value)
    at_least_rank(who, 2, query=query, key=key, value=value)
    *lead, t, e = query.shape
    s, w = key.shape[-2], value.shape[-1]
    same_shape(who, (*lead, s, e), key=key)
    same_shape(who, (*lead, s, w), value=value)
    positive(who, eps=eps)

    # Sums over a long text, and squares of small ones in the backward, are more than half precision holds.
    wide = torch.promote_types(query.dtype, torch.float32)
    phi_q, phi_k = _phi(query.to(wide)), _phi(key.to(wide))
    values = F.pad(value.to(wide), (0, 1), value=1.0)  # (..., S, W + 1): a column of ones beside the values sums the weights
    n = min(t, s) if causal else 0  # the last n queries stand beside the last n keys
    state = phi_k[..., : s - n, :].mT @ values[..., : s - n, :]  # (..., E, W + 1)
    sums = phi_q[..., : t - n, :] @ state
    if n > 0:
        q, k, v = (_chunked(x[..., x.shape[-2] - n :, :]) for x in (phi_q, phi_k, values))  # (..., chunks, chunk, ·)
        kv = k.mT @ v
        states = state.unsqueeze(-3) + torch.cat([torch.zeros_like(kv[..., :1, :, :]), kv[..., :-1, :, :]], -3).cumsum(-3)
        near = q @ states + (q @ k.mT).tril() @ v
        sums = torch.cat([sums, near.flatten(-3, -2)[..., :n, :]], -2)
    return (sums[..., :w] / (sums[..., w:] + eps)).to(query.dtype)


def _phi(x: Tensor) -> Tensor:
    return torch.exp(x.clamp(max=0)) + F.relu(x)  # F.elu(x) + 1 would cancel far below 0


def _chunked(x: Tensor) -> Tensor:
    """(..., n, N) -> (..., chunks, chunk, N), padded with zeros."""
    return F.pad(x, (0, 0, 0, -x.shape[-2] % _CHUNK)).unflatten(-2, (-1, _CHUNK))
