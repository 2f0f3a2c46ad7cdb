"""Batch norm against torch's module over several batches, then in inference."""

import numpy as np
import pytest
import torch

import numpy_impl.ops.batch_norm as by_hand
import torch_impl.ops.batch_norm as twin


@pytest.mark.parametrize("shape,module", [((6, 3), torch.nn.BatchNorm1d), ((4, 3, 2, 5), torch.nn.BatchNorm2d)])
def test_running_statistics_follow_torch_s_module_and_serve_inference(shape, module):
    rng = np.random.default_rng(0)
    layer = module(3, momentum=0.3).double()
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(4):
        x = 2 + 3 * rng.standard_normal(shape)
        kept = mean.copy(), var.copy()
        out, _ = by_hand.batch_norm(x, np.ones(3), np.zeros(3), running_mean=mean, running_var=var, momentum=0.3)
        np.testing.assert_array_equal((mean, var), kept)
        np.testing.assert_allclose(out.y, layer(torch.tensor(x)).detach(), rtol=1e-10, atol=1e-12)
        mean, var = out.running_mean, out.running_var
        np.testing.assert_allclose(mean, layer.running_mean, rtol=1e-12)
        np.testing.assert_allclose(var, layer.running_var, rtol=1e-12)
    layer.eval()
    out, _ = by_hand.batch_norm(x, running_mean=mean, running_var=var, training=False)
    np.testing.assert_allclose(out.y, layer(torch.tensor(x)).detach(), rtol=1e-10, atol=1e-12)
    assert out.running_mean is mean


def test_the_twin_leaves_its_running_statistics_alone():
    mean, var = torch.zeros(3), torch.ones(3)
    out = twin.batch_norm(torch.randn(5, 3), running_mean=mean, running_var=var)
    assert not mean.any()
    assert out.running_mean.any()
    assert torch.equal(var, torch.ones(3))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_spoils_its_channel_alone_and_in_inference_itself_alone(training, poison):
    x = np.random.default_rng(0).standard_normal((5, 3, 2))
    x[2, 1, 0] = poison
    mean, var = np.zeros(3), np.ones(3)
    got, _ = by_hand.batch_norm(x, running_mean=mean, running_var=var, training=training)
    want = twin.batch_norm(torch.tensor(x), running_mean=torch.tensor(mean), running_var=torch.tensor(var), training=training)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)  # NaN and infinities must stand in the same places
