"""Clipping against torch.nn.utils, and what the generic laws do not see: shared arrays, float32's limits, gradients beyond repair."""

import numpy as np
import pytest
import torch

import numpy_impl.optim.clip as by_hand
import torch_impl.optim.clip as twin


def tree(scale=1.0):
    rng = np.random.default_rng(0)
    return {name: scale * rng.standard_normal(shape) for name, shape in (("w", (40, 30)), ("b", (30,)))} | {"s": np.asarray(scale)}


def parameters(grads):
    params = [torch.nn.Parameter(torch.zeros(grad.shape, dtype=torch.float64)) for grad in grads.values()]
    for param, grad in zip(params, grads.values(), strict=True):
        param.grad = torch.from_numpy(grad.copy())
    return params


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 30.0, 1e3])
def test_norm_as_torch_clips_in_place(max_norm):
    params = parameters(tree())
    norm = torch.nn.utils.clip_grad_norm_(params, max_norm)
    clipped = by_hand.clip_by_norm(tree(), max_norm=max_norm)
    assert float(clipped.norm) == pytest.approx(float(norm), rel=1e-13)
    for got, param in zip(clipped.grads.values(), params, strict=True):
        assert np.allclose(got, param.grad.numpy(), rtol=1e-13, atol=0)


def test_value_as_torch_clips_in_place():
    params = parameters(tree())
    torch.nn.utils.clip_grad_value_(params, 0.5)
    for got, param in zip(by_hand.clip_by_value(tree(), limit=0.5).values(), params, strict=True):
        assert np.array_equal(got, param.grad.numpy())


def test_nothing_is_copied_where_nothing_is_clipped():
    grads = tree()
    clipped = by_hand.clip_by_norm(grads, max_norm=1e3).grads
    assert clipped is not grads
    assert all(clipped[name] is grad for name, grad in grads.items())


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("module", [by_hand, twin])
def test_gradients_beyond_repair_are_returned_as_they_are(module, poison):
    """torch's own clipping would return zeros and NaN here."""
    grads = tree()
    grads["b"][3] = poison
    given = grads if module is by_hand else {name: torch.from_numpy(grad) for name, grad in grads.items()}
    clipped = module.clip_by_norm(given, max_norm=1.0)
    assert not np.isfinite(float(clipped.norm))
    assert np.isnan(float(clipped.norm)) == np.isnan(poison)
    for name, grad in grads.items():
        assert np.array_equal(np.asarray(clipped.grads[name]), grad, equal_nan=True)


@pytest.mark.parametrize("scale", [1e25, 1e-25, 1e-40])
def test_the_norm_holds_where_squares_of_float32_do_not(scale):
    grads = {name: grad.astype(np.float32) for name, grad in tree(scale).items()}
    norm = by_hand.global_norm(grads)
    assert norm.dtype == np.float32
    want = np.sqrt(sum((grad.astype(np.float64) ** 2).sum() for grad in grads.values()))
    assert float(norm) == pytest.approx(want, rel=1e-6, abs=1e-45)


def test_ten_million_entries_keep_their_digits():
    grads = {"w": np.random.default_rng(0).standard_normal(10_000_000, dtype=np.float32)}
    want = np.sqrt(np.square(grads["w"], dtype=np.float64).sum())
    assert float(by_hand.global_norm(grads)) == pytest.approx(want, rel=2e-7)


@pytest.mark.parametrize("module", [by_hand, twin])
def test_no_gradients_have_norm_zero(module):
    assert float(module.global_norm({})) == 0
    clipped = module.clip_by_norm({}, max_norm=1.0)
    assert clipped.grads == {}
    assert float(clipped.norm) == 0
    assert module.clip_by_value({}, limit=1.0) == {}


def test_low_precision_on_the_torch_side():
    grads = {name: torch.from_numpy(grad).to(torch.bfloat16) for name, grad in tree().items()} | {"f": torch.ones(3)}
    clipped = twin.clip_by_norm(grads, max_norm=1.0)
    assert {name: grad.dtype for name, grad in clipped.grads.items()} == {name: grad.dtype for name, grad in grads.items()}
    assert float(twin.global_norm(clipped.grads)) == pytest.approx(1.0, rel=1e-2)
