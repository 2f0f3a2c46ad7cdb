"""The affine layer whose weights are held in four bits (QLoRA: Dettmers et al. 2023, arXiv:2305.14314, equation 5)."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from byhand.checks import at_least_rank, choice, demand, floats, of_dtype, same_shape, size
from byhand.noise import Noise
from numpy_impl.layers.linear import Linear
from numpy_impl.layers.module import Module
from numpy_impl.quantize.double import double_dequantize, double_quantize
from numpy_impl.quantize.four_bit import dequantize_4bit, quantize_4bit

Kind = Literal["nf4", "fp4"]
_STRIP = 4 << 20  # bytes of the dequantized rows that exist at once; a matrix product loses little to being cut this coarsely


def linear_4bit(x: NDArray, bias: NDArray | None = None, *, codes: NDArray, absmax: NDArray, out_features: int, kind: Kind = "nf4",
                block: int = 64, strip: int | None = None) -> tuple[NDArray, Callable]:
    """y = x Wᵀ + b  over the last axis,  with  W[o, i] = table[code of (o, i)] · absmax[block of (o, i)].

    W is a constant that never exists as a whole: a strip of its rows is dequantized, multiplied and forgotten, in the forward and once more
    in the backward. x is not kept either, since only dW would need it.

    Parameters
    ----------
    x : (..., I)                  inputs, float32 or float64
    bias : (O,)                   b, optional
    codes : (⌈O·I/2⌉,) uint8      two codes a byte, as `quantize_4bit` packs W (O, I) row after row
    absmax : (⌈O·I/block⌉,)       the largest magnitude in each block of W
    out_features : int            O
    kind : "nf4" or "fp4"         the table of 16 numbers
    block : int                   how many numbers share an absmax; a block may go on in the next row
    strip : int, optional         how many rows of W to dequantize at once; by default 4 MiB of them

    Returns
    -------
    y : (..., O)
    backward : dy (..., O) -> dx (..., I), dbias (O,) or None

    Raises
    ------
    ValueError   if codes or absmax do not have the lengths of an (O, I) matrix, codes are not uint8, bias is not of shape (O,), x or
                 bias is not float32 or float64, or an option is out of range

    Examples
    --------
    >>> codes, absmax = quantize_4bit(np.array([[3.0, -3.0], [0.0, 5.0], [5.0, 0.0]], np.float32), block=2)
    >>> y, backward = linear_4bit(np.array([[1.0, 2.0]], np.float32), codes=codes, absmax=absmax, out_features=3, block=2)
    >>> y, backward(np.array([[1.0, 1.0, 0.0]], np.float32))
    (array([[-3., 10.,  5.]], dtype=float32), (array([[3., 2.]], dtype=float32), None))
    """
    floats("linear_4bit", x=x, bias=bias)
    at_least_rank("linear_4bit", 1, x=x)
    size("linear_4bit", at_least=0, out_features=out_features)
    _check_options("linear_4bit", kind, block)
    if strip is not None:
        size("linear_4bit", strip=strip)
    count = out_features * x.shape[-1]
    of_dtype("linear_4bit", "uint8", codes=codes)
    same_shape("linear_4bit", (-(-count // 2),), codes=codes)
    floats("linear_4bit", absmax=absmax)
    same_shape("linear_4bit", (-(-count // block),), absmax=absmax)
    same_shape("linear_4bit", (out_features,), bias=bias)

    def strips():
        return _strips(codes, absmax, (out_features, x_shape[-1]), kind, block, dtype, strip)

    x_shape, dtype = x.shape, x.dtype
    return _linear(x, bias, out_features, strips)


class Linear4bit(Module):
    """y = x · Wᵀ + bias, with the frozen W in four bits a number.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool               whether there is a bias, which is trained unless it is frozen
    kind : "nf4" or "fp4"     the 16 numbers that a code stands for
    block : int               how many weights share an absmax
    double : bool             whether the absmax are quantized too, to eight bits
    dtype                     of the bias and of `weight`
    rng                       np.random.Generator of the values before quantization, which are those of `Linear`

    Buffers: codes (⌈in·out/2⌉,) uint8 and absmax (⌈in·out/block⌉,) float32; if double, absmax_codes (of absmax's length) uint8,
    absmax_absmax (one for 256 of them) float32 and absmax_offset () float32 in place of absmax. With blocks of 64 a weight takes 4.5 bits,
    or 4.127. Forward and backward are those of `linear_4bit`: the pullback keeps neither x nor anything dequantized.

    Examples
    --------
    >>> linear = Linear(64, 3, rng=np.random.default_rng(0))
    >>> layer = Linear4bit.from_linear(linear, double=True)
    >>> bool(np.abs(layer.weight - linear.weight).max() < 0.2 * np.abs(linear.weight).max())
    True
    >>> {name: array.dtype.name for name, array in layer.state_dict().items()}
    {'bias': 'float32', 'codes': 'uint8', 'absmax_codes': 'uint8', 'absmax_absmax': 'float32', 'absmax_offset': 'float32'}
    >>> list(layer.parameters())
    ['bias']
    """

    buffers = ("codes", "absmax", "absmax_codes", "absmax_absmax", "absmax_offset")

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, kind: Kind = "nf4", block: int = 64, double: bool = False,
                 dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None):
        size("Linear4bit", in_features=in_features, out_features=out_features)
        self._hold(Linear(in_features, out_features, bias=bias, dtype=dtype, rng=rng), kind, block, double)

    @classmethod
    def from_linear(cls, linear: Linear, *, kind: Kind = "nf4", block: int = 64, double: bool = False) -> "Linear4bit":
        """A Linear4bit with the weight of `linear`, quantized, and its bias, which is not copied; a frozen bias stays frozen."""
        layer = cls.__new__(cls)
        layer._hold(linear, kind, block, double)
        return layer

    def _hold(self, linear, kind, block, double):
        _check_options("Linear4bit", kind, block)
        choice("Linear4bit", (False, True), double=double)
        matrix = getattr(linear, "weight", None)
        demand("Linear4bit", matrix is not None and matrix.ndim == 2, "a layer whose weight is a matrix", layer=linear)
        self.out_features, self.in_features = linear.weight.shape
        self.kind, self.block, self.double, self.dtype = kind, block, double, linear.weight.dtype
        self.bias = linear.bias
        self.codes, absmax = quantize_4bit(linear.weight, kind=kind, block=block)
        if double:
            self.absmax_codes, self.absmax_absmax, self.absmax_offset = double_quantize(absmax)
        else:
            self.absmax = absmax
        if linear.bias is not None and not linear.trains("bias"):
            self.freeze("bias")

    @property
    def weight(self) -> NDArray:
        """W (out, in), dequantized afresh."""
        shape = (self.out_features, self.in_features)
        return dequantize_4bit(self.codes, absmax=self._scales(), shape=shape, kind=self.kind, block=self.block, dtype=self.dtype)

    def strips(self) -> Iterator[tuple[slice, NDArray]]:
        """(rows, W[rows]) from the first row to the last, each dequantized when its turn comes: for whoever can do without the whole of W.

        Examples
        --------
        >>> layer = Linear4bit(3, 2)
        >>> [(rows, part.shape) for rows, part in layer.strips()]
        [(slice(0, 2, None), (2, 3))]
        """
        return ((rows, weight()) for rows, weight in self._strips(self.dtype))

    def _strips(self, dtype):
        # scales that are quantized themselves are dequantized anew each time and not kept: they take a float32 for every block
        return _strips(self.codes, self._scales(), (self.out_features, self.in_features), self.kind, self.block, dtype, None)

    def _scales(self):
        if self.double:
            return double_dequantize(self.absmax_codes, absmax=self.absmax_absmax, offset=self.absmax_offset)
        return self.absmax

    def forward(self, x: NDArray, *, noise: Noise | None = None) -> tuple[NDArray, Callable]:
        """x (..., in) -> y (..., out); backward: dy -> dx, grads. Like `Linear`, it has no use for `noise`."""
        floats("Linear4bit", x=x, bias=self.bias)
        at_least_rank("Linear4bit", 1, x=x)
        same_shape("Linear4bit", (*x.shape[:-1], self.in_features), x=x)

        y, linear_backward = _linear(x, self.bias, self.out_features, functools.partial(self._strips, x.dtype))

        def backward(dy):
            dx, dbias = linear_backward(dy)
            return dx, self.grads(bias=dbias)

        return y, backward


def _linear(x: NDArray, bias: NDArray | None, out_features: int, strips: Callable) -> tuple[NDArray, Callable]:
    """y = x Wᵀ + b, where each call of `strips` goes through W once."""
    x_shape, n, biased = x.shape, math.prod(x.shape[:-1]), bias is not None
    flat = x.reshape(n, x_shape[-1])                                # (N, I)
    y = np.empty((n, out_features), x.dtype)
    for rows, weight in strips():
        np.matmul(flat, weight().T, out=y[:, rows])                 # every row of W makes a column of y
    if biased:
        y += bias

    def backward(dy):
        # dx[n, i] = Σ_o dy[n, o] W[o, i]: every row of W adds to all of dx.
        dflat = dy.reshape(n, out_features)
        dx = np.zeros((n, x_shape[-1]), dy.dtype)
        part = np.empty_like(dx)
        for rows, weight in strips():
            dx += np.matmul(dflat[:, rows], weight(), out=part)
        return dx.reshape(x_shape), np.ones(n, dy.dtype) @ dflat if biased else None

    return y.reshape(*x_shape[:-1], out_features), backward


def _strips(codes, absmax, shape, kind, block, dtype, strip) -> Iterator[tuple[slice, Callable]]:
    """(rows, a function that dequantizes W[rows]) from the first row to the last, `strip` at a time, or as many as take 4 MiB.

    The function is called where the rows are multiplied, so that they are gone before the next ones take their place in the cache.
    """
    out_features, width = shape
    whole = math.lcm(block, 2)                                      # numbers from one edge to the next that blocks and bytes share
    strip = strip or max(1, _STRIP // max(1, width * dtype.itemsize))
    for row in range(0, out_features, strip):
        rows = slice(row, min(row + strip, out_features))
        # A row may begin within a block, or within a byte: then what is dequantized begins before it and ends behind it.
        begin, end = rows.start * width, rows.stop * width
        first, last = begin // whole * whole, min(-(-end // whole) * whole, out_features * width)

        def weight(rows=rows, begin=begin - first, end=end - first, first=first, last=last):
            numbers = dequantize_4bit(codes[first // 2:-(-last // 2)], absmax=absmax[first // block:-(-last // block)],
                                      shape=(last - first,), kind=kind, block=block, dtype=dtype)
            return numbers[begin:end].reshape(rows.stop - rows.start, width)

        yield rows, weight


def _check_options(function: str, kind: str, block: int) -> None:
    choice(function, ("nf4", "fp4"), kind=kind)
    size(function, block=block)
