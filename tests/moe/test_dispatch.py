"""The sparse dispatch against the dense computation, on drawn routes of every kind; and against transformers' experts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numpy_impl.layers.feed_forward import ACTIVATIONS
from numpy_impl.layers.gated_feed_forward import GATES
from numpy_impl.moe.dense_experts import dense_experts
from numpy_impl.moe.experts import experts
from numpy_impl.moe.permute import Plan, plan
from torch_impl.moe.experts import experts as torch_experts
from torch_impl.moe.grouped_linear import grouped_linear as torch_grouped_linear
from torch_impl.moe.permute import plan as torch_plan


@st.composite
def routes(draw):
    """(tokens, experts, shape of the weights, plan): routed by the tokens, some perhaps dropped, or chosen by the experts."""
    tokens, count = draw(st.sampled_from((0, 1, 2, 3, 8, 33))), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    way = draw(st.sampled_from(("different", "any", "one expert", "half of the experts", "chosen by experts")))
    if way == "chosen by experts":
        each = draw(st.integers(0, tokens))
        chosen = np.array([np.sort(rng.permutation(tokens)[:each]) for _ in range(count)], dtype=np.int64).reshape(count, each)
        return tokens, count, chosen.shape, Plan(chosen.reshape(-1), np.arange(chosen.size), np.full(count, each))
    k = draw(st.integers(1, count))
    if way == "different":
        ids = np.argsort(rng.random((tokens, count)), axis=1)[:, :k]
    elif way == "one expert":
        ids = np.full((tokens, k), rng.integers(count))
    else:
        ids = rng.integers(0, (count + 1) // 2 if way == "half of the experts" else count, (tokens, k))
    kept = rng.random(ids.shape) < draw(st.sampled_from((0.0, 0.5, 0.9))) if draw(st.booleans()) else None
    return tokens, count, ids.shape, plan(ids, experts=count, kept=kept)


@settings(max_examples=600)
@given(routes(), st.sampled_from((*GATES, *ACTIVATIONS)), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_sparse_is_dense(route, activation, width, hidden, seed):
    tokens, count, shape, planned = route
    rng = np.random.default_rng(seed)
    shapes = [(tokens, width), shape, (count, hidden, width), (count, hidden, width), (count, width, hidden)]
    x, weights, gate, up, down = (np.asarray(rng.standard_normal(s)) for s in shapes)
    arrays = x, weights, gate if activation in GATES else None, up, down
    y, backward = experts(*arrays, plan=planned, activation=activation)
    want, dense_backward = dense_experts(*arrays, plan=planned, activation=activation)
    _close("y", y, want)
    dy = rng.standard_normal(y.shape)
    for name, got, wanted in zip(("dx", "dweights", "dgate", "dup", "ddown"), backward(dy), dense_backward(dy), strict=True):
        assert (got is None) == (wanted is None) == (name == "dgate" and activation not in GATES)
        if got is not None:
            _close(name, got, wanted)
            if name in ("dgate", "dup", "ddown"):
                assert not got[planned.counts == 0].any(), f"{name} of experts without rows"


def _close(name, got, want):
    assert got.shape == want.shape and got.dtype == want.dtype == np.float64, name
    scale = np.abs(want).max(initial=1.0)
    assert np.abs(got - want).max(initial=0.0) <= 1e-11 * scale, name


def test_what_no_row_reaches_gets_exactly_nothing():
    """Token 1 is dropped altogether and expert 2 is chosen by nobody: NaN there shows nowhere."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((3, 4)), rng.standard_normal((3, 2))
    gate, up, down = (rng.standard_normal(shape) for shape in ((3, 5, 4), (3, 5, 4), (3, 4, 5)))
    x[1], gate[2], up[2], down[2] = np.nan, np.nan, np.nan, np.nan
    kept = np.array([[True, True], [False, False], [True, False]])
    y, backward = experts(x, weights, gate, up, down, plan=plan(np.array([[0, 1], [2, 0], [1, 2]]), experts=3, kept=kept))
    dx, dweights, *dexperts = backward(np.ones_like(y))
    assert np.isfinite(y).all() and np.isfinite(dx).all() and not y[1].any() and not dx[1].any()
    assert not dweights[~kept].any() and dweights[kept].all()
    assert all(np.isfinite(d).all() and d[:2].any() and not d[2].any() for d in dexperts)


@pytest.mark.parametrize(("count", "k", "tokens"), [(8, 2, 50), (4, 4, 7), (6, 1, 1), (16, 2, 3)])
def test_transformers_eager_experts(count, k, tokens):
    modeling = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    config = modeling.MixtralConfig(num_local_experts=count, hidden_size=12, intermediate_size=20, num_experts_per_tok=k)
    config._experts_implementation = "eager"
    theirs = modeling.MixtralExperts(config).double()
    rng = np.random.default_rng(count)
    x, weights = rng.standard_normal((tokens, 12)), rng.random((tokens, k))
    gate, up, down = (rng.standard_normal(shape) for shape in ((count, 20, 12), (count, 20, 12), (count, 12, 20)))
    ids = np.argsort(rng.random((tokens, count)), axis=1)[:, :k]
    dy = rng.standard_normal(x.shape)
    y, backward = experts(x, weights, gate, up, down, plan=plan(ids, experts=count))

    with torch.no_grad():
        theirs.gate_up_proj.copy_(torch.from_numpy(np.concatenate([gate, up], axis=1)))
        theirs.down_proj.copy_(torch.from_numpy(down))
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, weights)]
    want = theirs(leaves[0], torch.from_numpy(ids), leaves[1])
    dx, dweights, dgate_up, ddown = torch.autograd.grad(want, [*leaves, theirs.gate_up_proj, theirs.down_proj], torch.from_numpy(dy))
    dgate, dup = dgate_up.chunk(2, dim=1)
    _close("y", y, want.detach().numpy())
    for got, wanted in zip(backward(dy), (dx, dweights, dgate, dup, ddown), strict=True):
        _close("a gradient", got, wanted.numpy())


def _grouped_inputs(dtype, counts=(3, 0, 4, 1), inputs=16, outputs=8):
    generator = torch.Generator().manual_seed(0)
    shapes = ((sum(counts), inputs), (len(counts), outputs, inputs), (len(counts), outputs))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes], torch.tensor(counts)


@pytest.mark.parametrize("counts", [(3, 0, 4, 1), (0, 0, 8), (0, 0)])
def test_the_grouped_kernel_is_the_loop(counts):
    """Also under the expanded gradient of a sum, which torch's kernel alone refuses."""
    try:
        torch._grouped_mm(torch.ones(16, 16), torch.ones(1, 16, 16), offs=torch.tensor([16], dtype=torch.int32))
    except (AttributeError, NotImplementedError, RuntimeError) as why:
        pytest.skip(f"this torch has no such kernel on the CPU: {why}")
    arrays, counts = _grouped_inputs(torch.float32, counts)
    got, want = (torch_grouped_linear(*arrays, counts=counts, kernel=kernel) for kernel in ("grouped", "loop"))
    torch.testing.assert_close(got, want)
    for one, other in zip(torch.autograd.grad(got.sum(), arrays), torch.autograd.grad(want.sum(), arrays), strict=True):
        torch.testing.assert_close(one, other)


def test_grouped_where_it_is_impossible(monkeypatch):
    (x, weight, bias), counts = _grouped_inputs(torch.float64)
    with pytest.raises(ValueError, match="needs bfloat16, float16 or float32 for kernel='grouped'"):
        torch_grouped_linear(x, weight, bias, counts=counts, kernel="grouped")
    (x, weight, bias), counts = _grouped_inputs(torch.bfloat16, inputs=12)
    with pytest.raises(ValueError, match="multiples of 8"):
        torch_grouped_linear(x, weight, bias, counts=counts, kernel="grouped")
    assert torch_grouped_linear(x, weight, bias, counts=counts).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="did you mean 'loop'"):
        torch_grouped_linear(x, weight, bias, counts=counts, kernel="loops")  # type: ignore[arg-type]
    monkeypatch.delattr(torch.nn.functional, "grouped_mm", raising=False)
    monkeypatch.delattr(torch, "_grouped_mm", raising=False)
    with pytest.raises(ValueError, match="needs a torch that has"):
        torch_grouped_linear(x, weight, bias, counts=counts, kernel="grouped")


def test_router_weights_may_be_wider_than_half_precision():
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(np.argsort(rng.random((6, 4)), axis=1)[:, :2].copy())
    arrays = [torch.from_numpy(rng.standard_normal(shape)) for shape in ((6, 8), (6, 2), (4, 8, 8), (4, 8, 8), (4, 8, 8))]
    x, weights, gate, up, down = (a.bfloat16() for a in arrays)
    y = torch_experts(x, weights.float(), gate, up, down, plan=torch_plan(ids, experts=4))
    want = torch_experts(*(a.bfloat16().double() for a in arrays), plan=torch_plan(ids, experts=4))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), want, rtol=0.05, atol=0.05 * float(want.abs().max()))
    with pytest.raises(ValueError, match="in one dtype"):
        torch_experts(x.float(), weights.double(), gate.float(), up.float(), down.float(), plan=torch_plan(ids, experts=4))


@pytest.mark.gpu
@pytest.mark.parametrize("counts", [(300, 0, 211, 1), (0, 512), (0, 0)])
def test_the_grouped_kernel_on_a_gpu(counts):
    arrays, counts = _grouped_inputs(torch.bfloat16, counts, 64, 128)
    leaves = [a.detach().cuda().requires_grad_() for a in arrays]
    results = {}
    for kernel in ("auto", "grouped", "loop"):
        y = torch_grouped_linear(*leaves, counts=counts.cuda(), kernel=kernel)
        results[kernel] = [y.detach(), *torch.autograd.grad(y.sum(), leaves)]
    for kernel in ("auto", "grouped"):
        for got, want in zip(results[kernel], results["loop"], strict=True):
            torch.testing.assert_close(got, want, rtol=0.02, atol=0.02 * float(want.abs().max()) if want.numel() else 0)
