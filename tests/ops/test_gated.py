"""The gated linear unit against torch's, which takes the two halves in one tensor, the gate last."""

import numpy as np
import torch
import torch.nn.functional as F

from numpy_impl.ops.gated import glu


def test_glu_is_torch_s():
    gate, up, dy = np.random.default_rng(0).standard_normal((3, 4, 5))
    y, backward = glu(gate, up)
    both = torch.tensor(np.concatenate([up, gate], -1), requires_grad=True)
    want = F.glu(both)
    want.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, want.detach(), rtol=1e-13)
    dgate, dup = backward(dy)
    np.testing.assert_allclose(np.concatenate([dup, dgate], -1), both.grad, rtol=1e-12)
