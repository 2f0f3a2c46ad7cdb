"""The sigmoid keeps its digits where it is nearly 0."""

import numpy as np

from numpy_impl.ops.sigmoid import sigmoid


def test_far_to_the_left_it_is_exp():
    x = np.array([-40.0, -300.0, -700.0])
    y, backward = sigmoid(x)
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-14)
    np.testing.assert_allclose(backward(np.ones(3)), np.exp(x), rtol=1e-14)
    np.testing.assert_array_equal(sigmoid(np.array([-1e4, 1e4], np.float32))[0], [0, 1])
