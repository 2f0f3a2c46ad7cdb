"""LoRA for a table of embeddings (Hu et al. 2021, arXiv:2106.09685)."""

import copy
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from byhand.checks import exact_rank, fail, floats, ids_below, in_range, same_shape
from byhand.noise import Noise, at
from numpy_impl.finetune._adapted import Adapter, _Adapted
from numpy_impl.finetune.dora import dora_delta, dora_norm
from numpy_impl.layers.embedding import Embedding
from numpy_impl.layers.module import Module
from numpy_impl.ops.dropout import drop_path
from numpy_impl.ops.embedding import embedding


def lora_embedding_delta(
    lora_A: NDArray,
    lora_B: NDArray,
    *,
    ids: NDArray,
    scaling: float,
    padding_idx: int | None = None,
) -> tuple[NDArray, Callable]:
    """Δ = s · Aᵀ[ids] Bᵀ:  what an adapter adds to a frozen table[ids], as if the table were table + s · (B A)ᵀ.

    An id stands for a row of zeros with a single 1. That row times the table picks a row of the table, and so it picks a row of Aᵀ.

    Parameters
    ----------
    lora_A : (R, V)      A; of its columns only those of the ids that occur get a gradient
    lora_B : (D, R)      B
    ids : (...)          integers in [0, V)
    scaling : float      s, of `lora_scaling`
    padding_idx : int    id whose column of A gets no gradient, counted from the end if negative; None for none

    Returns
    -------
    Δ : (..., D)
    backward : dy (..., D) -> dA (R, V), dB (D, R)

    Raises
    ------
    ValueError   if shapes do not fit, dtypes differ or are not float32 or float64, an id or padding_idx is out of range or no integer,
                 or scaling is not finite

    Examples
    --------
    >>> delta, backward = lora_embedding_delta(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0], [10.0]]), ids=np.array([2, 0, 2]), scaling=0.5)
    >>> delta
    array([[ 1.5, 15. ],
           [ 0.5,  5. ],
           [ 1.5, 15. ]])
    >>> dA, dB = backward(np.ones((3, 2)))
    >>> dA, dB.ravel()                                # id 1 did not occur, id 2 twice
    (array([[ 5.5,  0. , 11. ]]), array([3.5, 3.5]))
    """
    who = "lora_embedding_delta"
    floats(who, lora_A=lora_A, lora_B=lora_B)
    exact_rank(who, 2, lora_A=lora_A, lora_B=lora_B)
    same_shape(who, (lora_B.shape[0], lora_A.shape[0]), lora_B=lora_B)
    ids_below(who, lora_A.shape[1], ids=ids)
    in_range(who, -1e30, 1e30, scaling=scaling)

    thin, embedding_backward = embedding(lora_A.T, ids=ids, padding_idx=padding_idx)   # (..., R)
    thin *= scaling
    flat = thin.reshape(ids.size, lora_A.shape[0])                                     # (N, R)

    def backward(dy):
        # Two linear maps, t = s · Aᵀ[ids] and Δ = t Bᵀ, walked backwards.
        dlora_B = dy.reshape(ids.size, lora_B.shape[0]).T @ flat                       # (D, R)
        dthin = dy @ lora_B                                                            # (..., R)
        dthin *= scaling
        return embedding_backward(dthin).T, dlora_B

    return thin @ lora_B.T, backward


class LoRAEmbedding(_Adapted):
    """y = table[ids] + Σ s · Aᵀ[ids] Bᵀ  over the active adapters.

    With DoRA the moved table V = table + s · (B A)ᵀ is scaled column by column: y_d = m_d · V[ids]_d / ‖V_d‖, the norm being over all ids.

    Parameters
    ----------
    base : Embedding     the table (V, D); frozen from now on. Its padding_idx also keeps a column of A from being trained.
    r, alpha, rslora, dora, detach_norm, rng : of the adapter "default", as in `LoRALinear`; r = None adds none
    dropout : float      probability in [0, 1] with which a token gets no update. An id stands for a row of zeros with a single 1, and
                         dropping that 1 takes the whole update away; those that stay grow by 1 / (1 − p).

    lora_A (R, V) starts at zero and lora_B (D, R) as unit normals, the other way round than elsewhere and whatever `start` says. A is the
    factor that is looked up: as it is zero for every id that training never sees, the rows of those ids stay exactly what they were (with
    DoRA the magnitudes (D,) move them all the same).

    Raises
    ------
    ValueError   if base is no Embedding, or a value is out of range

    Examples
    --------
    >>> layer = LoRAEmbedding(Embedding(5, 3, rng=np.random.default_rng(0)), r=2, alpha=4, rng=np.random.default_rng(1))
    >>> y, backward = layer.forward(np.array([[4, 1]]))
    >>> bool((y == layer.base(np.array([[4, 1]]))).all())                   # nothing has changed yet
    True
    >>> grads = backward(np.ones_like(y))["adapters"]["default"]
    >>> grads["lora_A"].any(axis=0)                                         # only the columns of the ids 1 and 4
    array([False,  True, False, False,  True])
    """

    def __init__(self, base: Embedding, *, r: int | None, alpha: float, rslora: bool = False, dropout: float = 0.0, dora: bool = False,
                 detach_norm: bool = True, start: str = "kaiming", rng: np.random.Generator | None = None):
        if not isinstance(base, Embedding):
            fail("LoRAEmbedding", "base as an Embedding", type(base).__name__)
        super().__init__(base)
        if r is not None:
            self.add(r=r, alpha=alpha, rslora=rslora, dropout=dropout, dora=dora, detach_norm=detach_norm, start=start, rng=rng)

    @property
    def weight(self) -> NDArray:
        """The frozen table (V, D) without adapters: what a head that is tied to it reads."""
        return self._original.weight

    def forward(self, ids: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """ids (...) integers -> y (..., D); backward: dy -> grads. Every adapter drops out by the stream of its name."""
        y, base_backward = self.base.forward(ids, noise=at(noise, "base"))
        pullbacks = {}
        for name, adapter in self._running:
            delta, pullbacks[name] = (self._dora if adapter.dora else self._lora)(adapter, ids, at(noise, name))
            y = y + delta

        def backward(dy):
            return {"base": base_backward(dy), "adapters": {name: pullback(dy) for name, pullback in pullbacks.items()}}

        return y, backward

    def _lora(self, adapter: Adapter, ids: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        """Δ; backward: dy -> grads."""
        delta, delta_backward = lora_embedding_delta(
            adapter.lora_A, adapter.lora_B, ids=ids, scaling=adapter.scaling, padding_idx=self.base.padding_idx
        )
        dropped, drop_backward = _drop_tokens(delta, adapter.dropout, noise)

        def backward(dy):
            dlora_A, dlora_B = delta_backward(drop_backward(dy))
            return adapter.grads(lora_A=dlora_A, lora_B=dlora_B)

        return dropped, backward

    def _dora(self, adapter: Adapter, ids: NDArray, noise: Noise | None) -> tuple[NDArray, Callable]:
        """The same around the direction of the moved table, whose columns are the rows of W = tableᵀ."""
        low_rank, low_rank_backward = lora_embedding_delta(
            adapter.lora_A, adapter.lora_B, ids=ids, scaling=adapter.scaling, padding_idx=self.base.padding_idx
        )
        norm, norm_backward = dora_norm(adapter.lora_A, adapter.lora_B, weight=self.weight.T, scaling=adapter.scaling)
        delta, delta_backward = dora_delta(self._original(ids), low_rank, adapter.magnitude, norm)
        dropped, drop_backward = _drop_tokens(delta, adapter.dropout, noise)

        def backward(dy):
            _, dlow_rank, dmagnitude, dnorm = delta_backward(drop_backward(dy))        # the first would be the frozen table's
            dlora_A, dlora_B = low_rank_backward(dlow_rank)
            if not adapter.detach_norm:
                through_A, through_B = norm_backward(dnorm)
                dlora_A, dlora_B = dlora_A + through_A, dlora_B + through_B
            return adapter.grads(lora_A=dlora_A, lora_B=dlora_B, magnitude=dmagnitude)

        return dropped, backward

    def _shapes(self, r: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        vocabulary, d_model = self.base.weight.shape
        return (r, vocabulary), (d_model, r)

    def _start(self, r: int, start: str, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        shape_A, shape_B = self._shapes(r)
        return np.zeros(shape_A), rng.standard_normal(shape_B)

    def _norms(self, adapter: Adapter) -> NDArray:
        return dora_norm(adapter.lora_A, adapter.lora_B, weight=self.weight.T, scaling=adapter.scaling)[0]

    def _update(self, adapter: Adapter) -> NDArray:
        update = adapter.scaling * (adapter.lora_B @ adapter.lora_A).T
        return dora_delta(self.weight, update, adapter.magnitude, self._norms(adapter))[0] if adapter.dora else update

    def _stand_in(self, weight: NDArray) -> Module:
        plain = copy.copy(self.base)
        plain.weight = weight
        return plain


def _drop_tokens(delta: NDArray, p: float, noise: Noise | None) -> tuple[NDArray, Callable]:
    """Dropout of whole tokens of delta (..., D); backward: dy -> ddelta."""
    shape = delta.shape
    rows = (math.prod(shape[:-1]), shape[-1])
    dropped, drop_backward = drop_path(delta.reshape(rows), p=p, noise=noise)
    return dropped.reshape(shape), lambda dy: drop_backward(dy.reshape(rows)).reshape(shape)
