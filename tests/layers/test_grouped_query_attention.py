"""Grouped-query attention against transformers' layers that have sinks (gpt-oss), a soft cap (Gemma 2) and normalised heads (Qwen3).

Windows are given to transformers as masks. The whole models of the Llama family are compared in tests/models/test_llama.py.
"""

import importlib

import numpy as np
import pytest
import torch

from numpy_impl.layers.grouped_query_attention import GroupedQueryAttention
from numpy_impl.layers.module import flatten
from numpy_impl.positions.rotary import rotary_frequencies, rotary_table
from torch_impl.layers.grouped_query_attention import GroupedQueryAttention as TorchGroupedQueryAttention

transformers = pytest.importorskip("transformers")

T, D, H, K, E = 9, 12, 6, 2, 4
KINDS = {
    "gpt_oss": ("GptOss", dict(attention_bias=True), dict(bias=True, sinks=True)),
    "gemma2": ("Gemma2", dict(attn_logit_softcapping=0.7, query_pre_attn_scalar=E), dict(soft_cap=0.7)),
    "qwen3": ("Qwen3", dict(rms_norm_eps=1e-3), dict(qk_norm=True, eps=1e-3)),
}


class Double:
    """torch, in which float32 is float64."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("window", [None, (3, 0), (2, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_transformers(monkeypatch, kind, window, side):
    prefix, their_options, options = KINDS[kind]
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    monkeypatch.setattr(module, "torch", Double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = getattr(transformers, f"{prefix}Config")(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=K, head_dim=E, num_hidden_layers=1, attn_implementation="eager",
        **their_options,
    )
    torch.manual_seed(0)
    theirs = getattr(module, f"{prefix}Attention")(config, layer_idx=0).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_()
    x, dy = np.random.default_rng(0).standard_normal((2, 2, T, D))
    cos, sin = rotary_table(np.arange(T), frequencies=rotary_frequencies(E, base=100.0), dtype=np.float64)
    at = np.arange(T)
    left, right = window or (T, T)
    seen = (at <= at[:, None] + right) & (at >= at[:, None] - left)
    if right != 4:
        seen &= at <= at[:, None]                                  # causal, but for the window that looks ahead
    leaf = torch.tensor(x, requires_grad=True)
    doubled = 1 if kind == "gpt_oss" else 2                        # the others write every angle twice
    angles = tuple(torch.tensor(table).repeat(1, doubled)[None] for table in (cos, sin))
    hidden = torch.where(torch.tensor(seen), 0.0, -torch.inf).double()
    want, _ = theirs(leaf, attention_mask=hidden, position_embeddings=angles)
    want.backward(torch.tensor(dy))

    options = options | dict(head_width=E, window=window)
    causal = right != 4
    if side == "numpy":
        ours = GroupedQueryAttention(D, H, K, **options, dtype=np.float64)
        ours.load_state_dict({name: theirs.get_parameter(name).detach().numpy() for name in ours.state_dict()})
        y, backward = ours.forward(x, rotary=(cos, sin), causal=causal)
        dx, _, grads = backward(dy)
        grads = flatten(grads)
    else:
        ours = TorchGroupedQueryAttention(D, H, K, **options, dtype=torch.float64)
        ours.load_state_dict({name: theirs.get_parameter(name) for name in ours.state_dict()}, strict=True)
        own_leaf = torch.tensor(x, requires_grad=True)
        out = ours(own_leaf, rotary=(torch.tensor(cos), torch.tensor(sin)), causal=causal)
        out.backward(torch.tensor(dy))
        y, dx, grads = out.detach().numpy(), own_leaf.grad, {name: p.grad for name, p in ours.named_parameters()}

    assert grads.keys() == dict(theirs.named_parameters()).keys()
    np.testing.assert_allclose(y, want.detach(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(dx, leaf.grad, rtol=0, atol=1e-9)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, theirs.get_parameter(name).grad, rtol=0, atol=1e-9, err_msg=name)


def test_a_long_window_is_computed_in_strips_and_gives_what_its_mask_gives():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 2, 200, 12)).astype(np.float32)
    results = []
    for window, mask in (((70, 0), None), (None, np.tri(200, dtype=bool) & ~np.tri(200, k=-71, dtype=bool))):
        attn = GroupedQueryAttention(12, 6, 2, window=window, rng=np.random.default_rng(1))
        y, backward = attn.forward(x, causal=True, mask=mask)
        dx, _, grads = backward(dy)
        results.append({"y": y, "dx": dx} | flatten(grads))
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=name)
