"""Unit length at the two places where its gradient has a kink: exactly ε long, and zero."""

import numpy as np
import torch
import torch.nn.functional as F

from numpy_impl.ops.l2_normalize import l2_normalize


def test_the_gradient_at_the_kinks_is_torch_s():
    x, dy = np.array([[3.0, 4.0], [0.0, 0.0], [3.0, 0.0]]), np.array([[1.0, -2.0], [0.5, 2.0], [1.0, 1.0]])
    tensor = torch.tensor(x, requires_grad=True)
    F.normalize(tensor, dim=-1, eps=5.0).backward(torch.tensor(dy))
    _, backward = l2_normalize(x, eps=5.0)
    np.testing.assert_allclose(backward(dy), tensor.grad, rtol=1e-14)
