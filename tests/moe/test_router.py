"""The router against those of Mixtral, Qwen-MoE, DeepSeek-V2 and DeepSeek-V3, and what its choices promise."""

import importlib

import numpy as np
import pytest
import torch

from numpy_impl.moe.balance_bias import balance_bias
from numpy_impl.moe.router import router
from torch_impl.moe.router import router as torch_router

pytest.importorskip("transformers")

TOKENS, WIDTH, EXPERTS = 40, 12, 16
MIXTRAL = dict(hidden_size=WIDTH, num_local_experts=EXPERTS, num_experts_per_tok=2)
QWEN = dict(hidden_size=WIDTH, num_experts=EXPERTS, num_experts_per_tok=3)
DEEPSEEK = dict(hidden_size=WIDTH, num_attention_heads=4, n_routed_experts=EXPERTS, num_experts_per_tok=3, n_group=4, topk_group=2)

ORACLES = [
    ("mixtral.Mixtral", "TopKRouter", MIXTRAL, dict(k=2, renormalise=True)),
    ("qwen2_moe.Qwen2Moe", "TopKRouter", dict(QWEN, norm_topk_prob=False), dict(k=3)),
    ("qwen2_moe.Qwen2Moe", "TopKRouter", dict(QWEN, norm_topk_prob=True), dict(k=3, renormalise=True)),
    # DeepSeek-V2 shuts groups out with a score of 0. A softmax that underflows would tie with them; none does here.
    ("deepseek_v2.DeepseekV2", "TopkRouter", dict(DEEPSEEK, routed_scaling_factor=16.0, topk_method="group_limited_greedy"),
     dict(k=3, groups=4, top_groups=2, scale=16.0)),
    # So did DeepSeek-V3 in earlier versions, where an expert with a negative sum of score and bias lost to one that was shut out; the
    # biases here are above 0.
    ("deepseek_v3.DeepseekV3", "TopkRouter", dict(DEEPSEEK, routed_scaling_factor=2.5, norm_topk_prob=True),
     dict(k=3, score="sigmoid", renormalise=True, groups=4, top_groups=2, group_score="top2", scale=2.5, bias=True)),
    ("deepseek_v3.DeepseekV3", "TopkRouter", dict(DEEPSEEK, routed_scaling_factor=1.0, norm_topk_prob=False),
     dict(k=3, score="sigmoid", groups=4, top_groups=2, group_score="top2", bias=True)),
]


@pytest.mark.parametrize(("family", "kind", "settings", "options"), ORACLES)
def test_routes_and_gradients_are_those_of_transformers(family, kind, settings, options):
    model, _, name = family.partition(".")
    config = getattr(importlib.import_module(f"transformers.models.{model}.configuration_{model}"), f"{name}Config")(**settings)
    theirs = getattr(importlib.import_module(f"transformers.models.{model}.modeling_{model}"), f"{name}{kind}")(config)
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((TOKENS, WIDTH)), rng.standard_normal((EXPERTS, WIDTH)) / 3, rng.random(EXPERTS) / 2
    state = {"weight": torch.tensor(weight)} | ({"e_score_correction_bias": torch.tensor(bias)} if "bias" in options else {})
    theirs.load_state_dict(state)

    logits, want_weights, want_ids = theirs(torch.tensor(x, dtype=torch.float32))
    cotangent = rng.standard_normal((TOKENS, EXPERTS))            # one number a token and expert, whatever order the choices stand in
    (want_weights * torch.tensor(cotangent).gather(1, want_ids)).sum().backward()

    options = options | ({"bias": bias.astype(np.float32)} if "bias" in options else {})
    routes, backward = router(logits.detach().numpy(), **options)
    assert (np.sort(routes.ids, -1) == np.sort(want_ids.numpy(), -1)).all()
    assert routes.weights.dtype == np.float32
    np.testing.assert_allclose(_dense(routes.weights, routes.ids), _dense(want_weights.detach().numpy(), want_ids.numpy()), rtol=2e-6)
    dlogits = backward(np.take_along_axis(cotangent, routes.ids, -1).astype(np.float32), np.zeros_like(routes.scores))
    want = theirs.weight.grad.numpy()
    np.testing.assert_allclose(dlogits.T @ x, want, atol=2e-6 * np.abs(want).max())
    assert len(np.unique(routes.ids)) > EXPERTS / 2


def test_a_router_stays_in_its_groups():
    logits = np.random.default_rng(1).standard_normal((200, 24))
    free, _ = router(logits, k=4)
    assert (np.array([len(set(row)) for row in (free.ids // 4).tolist()]) > 2).mean() > 0.5    # left to itself it does not
    for group_score in ("max", "top2"):
        ids = router(logits, k=4, groups=6, top_groups=2, group_score=group_score)[0].ids
        assert max(len(set(row)) for row in (ids // 4).tolist()) == 2
        assert (np.diff(np.sort(ids, -1), axis=-1) > 0).all()
    best = router(logits, k=1, groups=6, top_groups=1)[0].ids                                  # the best expert's group is the best
    assert (best == logits.argmax(-1, keepdims=True)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_are_routed(dtype):
    logits = np.array([[1e30, 3e4, -1e30, 2e4], [-3e38, 0.0, 88.0, 89.0]], dtype)
    for before in (True, False):
        routes, backward = router(logits, k=2, renormalise=True, before=before)
        assert routes.ids.tolist() == [[0, 1], [3, 2]]
        np.testing.assert_allclose(routes.weights, [[1, 0], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))]], rtol=1e-6)
        assert np.isfinite(backward(np.ones_like(routes.weights), routes.scores)).all()
    routes, backward = router(logits, k=2, score="sigmoid", renormalise=True)
    assert routes.scores.tolist()[0] == [1, 1, 0, 1] and routes.ids.tolist() == [[0, 1], [3, 2]]
    assert np.isfinite(backward(np.ones_like(routes.weights), routes.scores)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_routed_in_float32(dtype):
    logits = torch.randn(20, 8, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    routes = torch_router(logits, k=2)
    assert routes.weights.dtype == routes.scores.dtype == torch.float32
    assert torch.equal(routes.scores, logits.float().softmax(-1))
    routes.weights.sum().backward()
    assert logits.grad.dtype == dtype and logits.grad.abs().max() > 0


def test_no_token_and_one_token():
    routes, backward = router(np.zeros((0, 4)), k=2)
    assert routes.ids.shape == (0, 2) and backward(routes.weights, routes.scores).shape == (0, 4)
    routes, _ = router(np.zeros(3), k=3)
    assert routes.ids.tolist() == [0, 1, 2]                                                    # of equals the lower first


def test_steps_of_the_bias_even_out_a_skewed_router():
    rng = np.random.default_rng(2)
    skew, rate, bias = np.linspace(-1.5, 1.5, 8), 0.01, np.zeros(8)
    shares = []
    for _ in range(300):
        ids = router(rng.standard_normal((256, 8)) + skew, k=2, score="sigmoid", bias=bias)[0].ids
        counts = np.bincount(ids.ravel(), minlength=8)
        bias = balance_bias(bias, counts=counts, rate=rate)
        shares.append(counts / counts.mean())
    assert shares[0].max() > 2.5 and shares[0].min() < 0.1
    late = np.mean(shares[-50:], 0)
    assert 0.8 < late.min() and late.max() < 1.2
    assert (np.diff(bias) < 0).all()                                                           # the more wanted, the more held back
    logits = rng.standard_normal((5, 8))
    routes, _ = router(logits, k=2, score="sigmoid", bias=bias)
    assert (routes.weights == np.take_along_axis(routes.scores, routes.ids, -1)).all()         # the bias weighs nothing


def _dense(weights, ids):
    out = np.zeros((len(ids), EXPERTS), weights.dtype)
    np.put_along_axis(out, ids, weights, -1)
    return out
