"""IA³ (Liu et al. 2022, arXiv:2205.05638): fine-tuning that learns to turn single features up and down."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from byhand.checks import demand, matching
from byhand.noise import Noise, at
from numpy_impl.finetune._projections import OnFrozen, measure, need_projection, projections, wrap
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.quantize.linear_4bit import Linear4bit


class IA3Linear(OnFrozen):
    """y = l ⊙ (x Wᵀ + b),  or with feed_forward  y = (l ⊙ x) Wᵀ + b,  with a learned vector l; W and b are frozen.

    Parameters
    ----------
    base : Linear or Linear4bit   the projection in whose place it stands, in → out; it is frozen
    feed_forward : bool           whether l scales what the projection reads, not what it gives

    ia3_l (out,), or (in,) with feed_forward, starts at 1: at first the layer is its base. Scaling keys and values acts on the outputs
    of k_proj and v_proj; scaling the hidden features of a feed-forward layer acts on the input of its last projection.

    Since (l ⊙ x) Wᵀ = x (W diag(l))ᵀ and l ⊙ (x Wᵀ) = x (diag(l) W)ᵀ, l can be multiplied into W: `merge`. A merged vector is not
    trained; a quantized base is merged in full precision. `unfreeze` thaws the base only for a pattern that names it, such as
    "*.base.bias".

    Raises
    ------
    ValueError   if base is no projection; from `merge` if it has been merged or an adapter stands on the base, from `unmerge` if it has not

    Examples
    --------
    >>> layer = IA3Linear(Linear(3, 2, rng=np.random.default_rng(0)))
    >>> x = np.ones((4, 3), dtype=np.float32)
    >>> y, backward = layer.forward(x)
    >>> np.array_equal(y, layer.base(x))
    True
    >>> dx, grads = backward(y)
    >>> np.allclose(grads["ia3_l"], (y * y).sum(0)), grads["base"]
    (True, {})
    """

    def __init__(self, base: Linear | Linear4bit, *, feed_forward: bool = False):
        need_projection("IA3Linear", base)
        super().__init__(base)
        self.feed_forward = feed_forward
        n_out, n_in, dtype = measure(base)
        self.ia3_l = np.ones(n_in if feed_forward else n_out, dtype)
        self._unmerged: tuple[Module, ...] = ()      # the base as it was before l was merged; a tuple holds no children

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., in) -> y (..., out); backward: dy -> dx, grads."""
        scale_input = self.feed_forward and not self.merged
        scale_output = not self.feed_forward and not self.merged
        h, input_backward = self._scale(x) if scale_input else _leave(x)
        h, base_backward = self.base.forward(h, noise=at(noise, "base"))
        y, output_backward = self._scale(h) if scale_output else _leave(h)

        def backward(dy):
            dh, dl_by_output = output_backward(dy)
            dh, dbase = base_backward(dh)
            dx, dl_by_input = input_backward(dh)
            return dx, {"base": dbase} | self.grads(ia3_l=dl_by_input if scale_input else dl_by_output)

        return y, backward

    def trains(self, name: str) -> bool:
        return not self.merged and super().trains(name)

    @property
    def merged(self) -> bool:
        """Whether l is multiplied into the base."""
        return self._unmerged != ()

    def merge(self) -> None:
        """Put a plain layer with diag(l) W and l ⊙ b, or with W diag(l) and b, in the base's place, so that l costs nothing."""
        demand("IA3Linear.merge", not self.merged, "a layer that is not merged", merged=self.merged)
        need_projection("IA3Linear.merge", self.base)                    # an adapter may have taken its place since
        base, weight, bias = self.base, self.base.weight, self.base.bias
        plain = object.__new__(Linear)                                   # its constructor would draw a weight, only for it to be replaced
        if self.feed_forward:
            plain.weight = weight * self.ia3_l                           # column i of W reads feature i
        else:
            plain.weight = weight * self.ia3_l[:, None]                  # row o of W makes feature o
        plain.bias = None if bias is None else bias.copy() if self.feed_forward else bias * self.ia3_l
        self.base, self._unmerged = plain.freeze(), (base,)

    def unmerge(self) -> None:
        """Put the base back as it was, bit for bit."""
        demand("IA3Linear.unmerge", self.merged, "a layer that is merged", merged=self.merged)
        (self.base,), self._unmerged = self._unmerged, ()

    def _scale(self, x: NDArray) -> tuple[NDArray, Callable]:
        """z = l ⊙ x  over the last axis; backward: dz -> dx, dl."""
        l, kept = self.ia3_l, x if self.trains("ia3_l") else None        # only dl reads x

        def backward(dz):
            # z[n,i] = l[i] x[n,i], so each row has its dx, and dl sums over the rows.
            dl = None if kept is None else (dz * kept).sum(tuple(range(dz.ndim - 1)))
            return dz * l, dl

        return x * l, backward


def apply_ia3(model: Module, *, targets: Sequence[str] = ("k_proj", "v_proj"), feed_forward: Sequence[str] = ("down_proj",)) -> list[str]:
    """Freeze the model, and put an IA3Linear in the place of every projection whose name matches.

    Parameters
    ----------
    model : Module        changed in place
    targets               names or shell patterns of projections whose outputs are scaled: "k_proj", "blocks.0.*.v_proj"
    feed_forward          names or patterns of those whose inputs are

    Returns
    -------
    the dotted names of the projections, in the model's order

    Raises
    ------
    ValueError   if a pattern matches no projection (near names are suggested), or a projection is to be scaled on both sides; then
                 nothing is changed

    Examples
    --------
    >>> from byhand.configs.llama import LlamaConfig
    >>> from numpy_impl.models.llama import Llama
    >>> model = Llama(LlamaConfig(vocabulary=7, max_length=8, d_model=8, n_layers=1, n_heads=2, d_hidden=12))
    >>> apply_ia3(model)
    ['blocks.0.attn.k_proj', 'blocks.0.attn.v_proj', 'blocks.0.mlp.down_proj']
    >>> {name: len(vector) for name, vector in model.parameters().items()}
    {'blocks.0.attn.k_proj.ia3_l': 8, 'blocks.0.attn.v_proj.ia3_l': 8, 'blocks.0.mlp.down_proj.ia3_l': 12}
    """
    who, names = "apply_ia3", list(projections(model))
    outputs = matching(who, names, of="projections", targets=targets)
    inputs = matching(who, names, of="projections", feed_forward=feed_forward)
    both = [name for name in outputs if name in inputs]
    demand(who, not both, "each projection in targets or in feed_forward", both=both)
    chosen = [name for name in names if name in outputs or name in inputs]
    demand(who, len(chosen) > 0, "a target", targets=targets, feed_forward=feed_forward)
    wrap(model, chosen, lambda name, base: IA3Linear(base, feed_forward=name in inputs))
    return chosen


def _leave(x: NDArray) -> tuple[NDArray, Callable]:
    """x as it is; backward: dx -> dx, None."""
    return x, lambda dx: (dx, None)
