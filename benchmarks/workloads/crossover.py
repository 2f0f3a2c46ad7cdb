"""By number of elements: from which size a GPU is worth its transfers. Forward and backward of four ops."""

from collections.abc import Mapping

from benchmarks.workload import Column, Points, Size, Work, workload
from benchmarks.workloads._common import differentiated, implementation, normals

WIDTH = 256
EVERY = [4**exponent for exponent in range(5, 13)]                 # 1,024 to 16,777,216
ELEMENTS: Mapping[Size, Points] = {"small": [4**5, 4**9], "medium": [4**5, 4**7, 4**9, 4**11], "large": EVERY}
SQUARES: Mapping[Size, Points] = {"small": [4**5, 4**8], "medium": [4**5, 4**7, 4**9, 4**10], "large": EVERY}


@workload("gelu_tanh by elements", ELEMENTS, axis="elements")
def gelu_tanh(column: Column, *, elements: int) -> Work:
    """One row."""
    return differentiated(column, implementation(column.side, "ops.gelu.gelu_tanh"), normals((elements,)))


@workload("softmax by elements", ELEMENTS, axis="elements")
def softmax(column: Column, *, elements: int) -> Work:
    """Rows of 256."""
    return differentiated(column, implementation(column.side, "ops.softmax.softmax"), normals((elements // WIDTH, WIDTH)))


@workload("layer_norm by elements", ELEMENTS, axis="elements")
def layer_norm(column: Column, *, elements: int) -> Work:
    """Rows of 256."""
    arrays = normals((elements // WIDTH, WIDTH), (WIDTH,), (WIDTH,))
    return differentiated(column, implementation(column.side, "ops.layer_norm.layer_norm"), arrays)


@workload("linear by elements", SQUARES, axis="elements")
def linear(column: Column, *, elements: int) -> Work:
    """A square matrix of inputs times a square matrix of weights, each of so many elements."""
    side = round(elements**0.5)
    arrays = normals((side, side), (side, side), scale=side**-0.5)
    return differentiated(column, implementation(column.side, "ops.linear.linear"), arrays)
