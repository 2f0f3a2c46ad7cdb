"""Layer norm where E[x²] − μ² would cancel."""

import numpy as np

from numpy_impl.ops.layer_norm import layer_norm


def test_a_mean_far_above_the_spread_costs_no_digits():
    x = np.random.default_rng(0).integers(-3, 4, (4, 64)).astype(np.float32)
    y, _ = layer_norm(x)
    far, _ = layer_norm(x + 2.0**20)  # every entry and every sum of them is exact in float32's 24 bits, a square is not
    np.testing.assert_allclose(far, y, atol=0.1)
    near, _ = layer_norm(x + 2.0**12)
    np.testing.assert_allclose(near, y, atol=1e-3)
