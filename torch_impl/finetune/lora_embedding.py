"""LoRA for a table of embeddings (Hu et al. 2021, arXiv:2106.09685)."""

import torch
from torch import Tensor, nn

from byhand.checks import exact_rank, fail, floats, ids_below, in_range, same_shape
from byhand.noise import Noise, at
from torch_impl.finetune._adapted import Adapter, _Adapted
from torch_impl.finetune.dora import dora_delta, dora_norm
from torch_impl.layers.embedding import Embedding
from torch_impl.ops.dropout import drop_path
from torch_impl.ops.embedding import embedding


def lora_embedding_delta(
    lora_A: Tensor,
    lora_B: Tensor,
    *,
    ids: Tensor,
    scaling: float,
    padding_idx: int | None = None,
) -> Tensor:
    """Δ = s · Aᵀ[ids] Bᵀ:  what an adapter adds to a frozen table[ids].

    lora_A (R, V), lora_B (D, R), ids (...) -> Δ (..., D).
    """
    who = "lora_embedding_delta"
    floats(who, lora_A=lora_A, lora_B=lora_B)
    exact_rank(who, 2, lora_A=lora_A, lora_B=lora_B)
    same_shape(who, (lora_B.shape[0], lora_A.shape[0]), lora_B=lora_B)
    ids_below(who, lora_A.shape[1], ids=ids)
    in_range(who, -1e30, 1e30, scaling=scaling)
    return (embedding(lora_A.mT, ids=ids, padding_idx=padding_idx) * scaling) @ lora_B.mT


class LoRAEmbedding(_Adapted):
    """y = table[ids] + Σ s · Aᵀ[ids] Bᵀ  over the active adapters.  ids (...) integers -> y (..., D).

    lora_A (R, V) starts at zero and lora_B (D, R) as unit normals; padding_idx keeps a column of A from being trained. Dropout takes the
    update from whole tokens. With DoRA the moved table V is scaled column by column: y_d = m_d · V[ids]_d / ‖V_d‖.
    """

    def __init__(self, base: Embedding, *, r: int | None, alpha: float, rslora: bool = False, dropout: float = 0.0, dora: bool = False,
                 detach_norm: bool = True, start: str = "kaiming", rng: torch.Generator | None = None):
        if not isinstance(base, Embedding):
            fail("LoRAEmbedding", "base as an Embedding", type(base).__name__)
        super().__init__(base)
        if r is not None:
            self.add(r=r, alpha=alpha, rslora=rslora, dropout=dropout, dora=dora, detach_norm=detach_norm, start=start, rng=rng)

    @property
    def weight(self) -> Tensor:
        """The frozen table (V, D) without adapters: what a head that is tied to it reads."""
        return self._original.weight

    def forward(self, ids: Tensor, *, noise: Noise | None = None) -> Tensor:
        y = self.base(ids, noise=at(noise, "base"))
        for name, adapter in self._running:
            y = y + self._delta(adapter, ids, at(noise, name))
        return y

    def _delta(self, adapter: Adapter, ids: Tensor, noise: Noise | None) -> Tensor:
        delta = lora_embedding_delta(
            adapter.lora_A, adapter.lora_B, ids=ids, scaling=adapter.scaling, padding_idx=self.base.padding_idx
        )
        if adapter.dora:
            norm = self._norms(adapter)
            norm = norm.detach() if adapter.detach_norm else norm
            delta = dora_delta(self._original(ids).detach(), delta, adapter.magnitude, norm)
        return drop_path(delta.reshape(-1, delta.shape[-1]), p=adapter.dropout, noise=noise).reshape(delta.shape)

    def _shapes(self, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        vocabulary, d_model = self.base.weight.shape
        return (r, vocabulary), (d_model, r)

    def _start(self, r: int, start: str, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        shape_A, shape_B = self._shapes(r)
        return self._like.new_zeros(shape_A), self._like.new_empty(shape_B).normal_(generator=rng)

    def _norms(self, adapter: Adapter) -> Tensor:
        return dora_norm(adapter.lora_A, adapter.lora_B, weight=self.weight.detach().mT, scaling=adapter.scaling)

    def _update(self, adapter: Adapter) -> Tensor:
        update = adapter.scaling * (adapter.lora_B @ adapter.lora_A).mT
        return dora_delta(self.weight, update, adapter.magnitude, self._norms(adapter)) if adapter.dora else update

    def _stand_in(self, weight: Tensor) -> Embedding:
        plain = Embedding(1, 1, device="meta")              # on which nothing is drawn from the generator
        plain.padding_idx, plain.weight = self.base.padding_idx, nn.Parameter(weight, requires_grad=False)
        return plain
