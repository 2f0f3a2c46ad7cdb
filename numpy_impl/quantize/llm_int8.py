"""LLM.int8(): 8-bit matrix products with outliers in full precision (Dettmers, Lewis, Belkada and Zettlemoyer 2022, arXiv:2208.07339)."""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, demand, exact_rank, floats, given, of_dtype, same_shape, size
from byhand.noise import Noise
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.ops._blocks import blocks
from numpy_impl.quantize.int8 import dequantize_int8_absmax, quantize_int8_absmax
from numpy_impl.quantize.int8_matmul import int8_matmul

_COLUMNS = 256  # columns of the weight that are made floats at a time


class Int8Outliers(NamedTuple):
    """x ≈ codes · absmax / 127 in the columns that are no outliers."""

    codes: NDArray
    absmax: NDArray
    outliers: NDArray


def quantize_int8_outliers(x: NDArray, *, threshold: float = 6.0) -> Int8Outliers:
    """codes = round(x · 127 / absmax) in the columns that hold no |x| ≥ threshold, 0 in the others, the outliers.

    Transformers put features of large magnitude into a few columns, the same ones for every token. One such number sets the scale
    of its whole row, and the other numbers of the row share the few codes around 0; without those columns the rest keeps its precision.

    Parameters
    ----------
    x : (..., I)        activations, float32 or float64
    threshold : float   above 0; infinity leaves only what is not finite

    Returns
    -------
    codes : (..., I) int8
    absmax : (...) float32      max|x| of each row over its entries below the threshold, be they in an outlier's column: these are
                                the rules, and the bits, of bitsandbytes
    outliers : (I,) bool        the columns in which an entry is not below the threshold: NaN is not

    Raises
    ------
    ValueError   if x has no axis, or threshold is not above 0

    Examples
    --------
    >>> codes, absmax, outliers = quantize_int8_outliers(np.array([[0.5, 60.0, -1.0], [0.1, 0.2, 0.0]]))
    >>> codes
    array([[  64,    0, -127],
           [  64,    0,    0]], dtype=int8)
    >>> absmax, outliers
    (array([1. , 0.2], dtype=float32), array([False,  True, False]))
    """
    given("quantize_int8_outliers", x=x)
    floats("quantize_int8_outliers", x=x)
    at_least_rank("quantize_int8_outliers", 1, x=x)
    _check_threshold("quantize_int8_outliers", threshold)
    outliers = np.zeros(x.shape[-1:], bool)
    with np.errstate(over="ignore"):                                              # what float32 cannot hold becomes infinite: an outlier
        kept = np.array(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), np.float32)  # (N, I), a copy
        limit = np.float32(threshold)
    for piece in blocks(*kept.shape):
        large = ~(np.abs(kept[piece]) < limit)
        if large.any():
            outliers |= large.any(0)
            kept[piece][large] = 0
    codes, absmax = quantize_int8_absmax(kept)
    codes[:, outliers] = 0
    return Int8Outliers(codes.reshape(x.shape), absmax.reshape(x.shape[:-1]), outliers)


def llm_int8_linear(x: NDArray, bias: NDArray | None = None, *, codes: NDArray, absmax: NDArray,
                    threshold: float = 6.0) -> tuple[NDArray, Callable]:
    """y = x̂ Wᵀ + b,  with  W = codes · absmax / 127  and  x̂ what 8-bit codes keep of x, but x itself in the columns of its outliers.

    Parameters
    ----------
    x : (..., I)          activations, float32 or float64
    bias : (O,)           b, optional
    codes : (O, I)        int8, the weight's, one row an output (`quantize_int8_absmax`)
    absmax : (O,)         of the weight's rows
    threshold : float     a column of x with an entry of at least this magnitude is an outlier; above 0, infinity for none

    Returns
    -------
    y : (..., O)
    backward : dy (..., O) -> dx (..., I), dbias (O,) or None

    The sums over int8 products are exact; codes of x are made anew in every call, a scale a row. What is not finite in x is an outlier
    whatever the threshold, so it reaches y as in any product. Rounding x has no useful derivative: the backward is straight-through, that
    of x Wᵀ + b. The weight is frozen, and never stands in floats as a whole; the pullback keeps nothing of x.

    Raises
    ------
    ValueError   if codes are not int8, shapes do not fit, or threshold is not above 0

    Examples
    --------
    >>> codes, absmax = quantize_int8_absmax(np.array([[1.0, 0.5], [-2.0, 0.0]]))
    >>> y, backward = llm_int8_linear(np.array([[0.3, -0.1], [50.0, 0.2]]), codes=codes, absmax=absmax)
    >>> y.round(3)
    array([[   0.25 ,   -0.6  ],
           [  50.101, -100.   ]])
    """
    given("llm_int8_linear", x=x, codes=codes, absmax=absmax)
    floats("llm_int8_linear", x=x, bias=bias)
    floats("llm_int8_linear", absmax=absmax)
    of_dtype("llm_int8_linear", "int8", codes=codes)
    at_least_rank("llm_int8_linear", 1, x=x)
    exact_rank("llm_int8_linear", 2, codes=codes)
    same_shape("llm_int8_linear", (codes.shape[0], x.shape[-1]), codes=codes)
    same_shape("llm_int8_linear", codes.shape[:1], absmax=absmax, bias=bias)
    _check_threshold("llm_int8_linear", threshold)

    x_shape, dtype, (outputs, width) = x.shape, x.dtype, codes.shape
    x = x.reshape(math.prod(x_shape[:-1]), width)                              # (N, I)
    scale = absmax.astype(dtype) / 127                                         # (O,), so that W = codes · scale
    x_codes, x_absmax, outliers = quantize_int8_outliers(x, threshold=threshold)
    y = int8_matmul(x_codes, codes).astype(dtype)                              # (N, O), in units of both scales
    y *= x_absmax.astype(dtype)[:, None] / 127
    if outliers.any():
        y += x[:, outliers] @ codes[:, outliers].T.astype(dtype)
    y *= scale
    if bias is not None:
        y += bias

    def backward(dy):
        # As if y were x Wᵀ + b: dx = dy W = (dy · scale) codes, a few columns at a time, so that few codes are floats at once.
        dy = dy.reshape(len(x_absmax), outputs)
        dbias = None if bias is None else np.ones(len(dy), dtype) @ dy
        scaled = dy * scale
        dx = np.empty((len(dy), width), dtype)
        for start in range(0, width, _COLUMNS):
            columns = slice(start, start + _COLUMNS)
            np.matmul(scaled, codes[:, columns].astype(dtype), out=dx[:, columns])
        return dx.reshape(x_shape), dbias

    return y.reshape(*x_shape[:-1], outputs), backward


def _check_threshold(function: str, threshold: float) -> None:
    number = isinstance(threshold, numbers.Real) and not isinstance(threshold, bool)
    demand(function, number and threshold > 0, "threshold > 0", threshold=threshold)


class Linear8bit(Module):
    """y = x̂ Wᵀ + bias  by `llm_int8_linear`: a linear layer with a frozen weight of 8-bit codes.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool         whether there is a bias, which can be trained
    threshold : float   of outliers among the activations, above 0
    dtype               of the bias and of what `weight` gives
    rng                 np.random.Generator of the initial values, Linear's

    codes (out, in) int8 and absmax (out,) float32 are buffers: a byte a weight.

    Examples
    --------
    >>> layer = Linear8bit.from_linear(Linear(3, 2, rng=np.random.default_rng(0)))
    >>> y, backward = layer.forward(np.ones((4, 3), dtype=np.float32))
    >>> dx, grads = backward(np.ones_like(y))
    >>> dx.shape, list(grads), layer.weight.shape
    ((4, 3), ['bias'], (2, 3))
    """

    buffers = ("codes", "absmax")

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, threshold: float = 6.0,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        size("Linear8bit", in_features=in_features, out_features=out_features)
        self._quantize(Linear(in_features, out_features, bias=bias, dtype=dtype, rng=rng), threshold)

    @classmethod
    def from_linear(cls, linear: Any, *, threshold: float = 6.0) -> "Linear8bit":
        """The 8-bit layer in the place of a `Linear` (anything with a weight (out, in) and a bias or None), which stays as it is; what is
        frozen there is frozen here."""
        layer = cls.__new__(cls)
        layer._quantize(linear, threshold)
        return layer

    def _quantize(self, linear: Any, threshold: float) -> None:
        _check_threshold("Linear8bit", threshold)
        matrix = getattr(linear, "weight", None)
        demand("Linear8bit", matrix is not None and matrix.ndim == 2, "a layer whose weight is a matrix", layer=linear)
        self.threshold, self._dtype = threshold, linear.weight.dtype
        self.codes, self.absmax = quantize_int8_absmax(linear.weight)
        self.bias = None if linear.bias is None else linear.bias.copy()
        if self.bias is not None and isinstance(linear, Module) and not linear.trains("bias"):
            self.freeze("bias")

    @property
    def weight(self) -> NDArray:
        """A fresh (out, in) array of what the codes stand for."""
        return dequantize_int8_absmax(self.codes, absmax=self.absmax, dtype=self._dtype)

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., in) -> y (..., out); backward: dy -> dx, grads. `noise` is not used."""
        floats("Linear8bit", x=x, bias=self.bias)
        at_least_rank("Linear8bit", 1, x=x)
        same_shape("Linear8bit", (*x.shape[:-1], self.codes.shape[1]), x=x)
        y, linear_backward = llm_int8_linear(x, self.bias, codes=self.codes, absmax=self.absmax, threshold=self.threshold)

        def backward(dy):
            dx, dbias = linear_backward(dy)
            return dx, self.grads(bias=dbias)

        return y, backward
