"""The encoder–decoder Transformer against torch.nn.Transformer, between embeddings and a head written out here."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from byhand.configs.transformer import TRANSFORMER_PRESETS, TransformerConfig
from byhand.noise import Noise
from numpy_impl.layers.module import flatten
from numpy_impl.models.transformer import Transformer
from numpy_impl.optim.adamw import AdamW
from torch_impl.models.transformer import Transformer as TorchTransformer

TINY = TransformerConfig(vocabulary=11, d_model=12, n_heads=3, encoder_layers=2, decoder_layers=3, d_hidden=20, dropout=0.0)
SOURCE = np.random.default_rng(0).integers(0, 11, (3, 6))
KNOWN = np.arange(6) < np.array([[6], [2], [4]])
LABELS = np.random.default_rng(1).integers(0, 11, (3, 5))
LABELS[1, 3:] = LABELS[2, 1] = -100


def theirs_of(config):
    """torch.nn.Transformer with these sizes. By itself it ends post-norm stacks in another norm, which the paper does not have."""
    options = dict(dim_feedforward=config.d_hidden, dropout=0.0, batch_first=True, norm_first=config.order == "pre", dtype=torch.float64)
    encoder, decoder = (
        stack(layer(config.d_model, config.n_heads, **options), n, nn.LayerNorm(config.d_model).double() if config.order == "pre" else None,
              **more)
        for stack, layer, n, more in (
            (nn.TransformerEncoder, nn.TransformerEncoderLayer, config.encoder_layers, dict(enable_nested_tensor=False)),
            (nn.TransformerDecoder, nn.TransformerDecoderLayer, config.decoder_layers, {}),
        )
    )
    return nn.Transformer(config.d_model, config.n_heads, custom_encoder=encoder, custom_decoder=decoder, batch_first=True)


def theirs_from(state):
    """Our names -> nn.Transformer's."""
    found = {}
    for name, value in state.items():
        stack, *rest = name.split(".")
        if stack in ("encoder_norm", "decoder_norm"):
            found[f"{stack[:7]}.norm.{rest[0]}"] = value
        elif stack in ("encoder", "decoder"):
            i, part, *rest = rest
            renamed = {"norm1": "norm1", "norm_cross": "norm2", "norm2": "norm3" if stack == "decoder" else "norm2",
                       "attn": "self_attn", "cross_attn": "multihead_attn", "mlp": ""}[part]
            end = ".".join(rest)
            for a, b in (("up_proj", "linear1"), ("down_proj", "linear2"), ("o_proj", "out_proj")):
                end = end.replace(a, b)
            found[f"{stack}.layers.{i}.{renamed}.{end}".replace("..", ".")] = value     # their mlp stands in the layer itself
    for name in [name for name in found if "q_proj" in name]:
        found[name.replace("q_proj.", "in_proj_")] = np.concatenate([found.pop(name.replace("q_proj", f"{x}_proj")) for x in "qkv"])
    return {name: torch.tensor(value) for name, value in found.items()}


def read(config):
    """What the decoder reads: the labels, one place later."""
    return np.concatenate([np.full((3, 1), config.start), np.where(LABELS == -100, config.padding, LABELS)[:, :-1]], axis=1)


def results(side, config, state):
    """(logits, loss, gradients) of one side of ours."""
    if side == "numpy":
        model = Transformer(config, dtype=np.float64)
        model.load_state_dict(state)
        loss, backward = model.loss(SOURCE, LABELS, source_mask=KNOWN)
        return model(SOURCE, read(config), source_mask=KNOWN), loss, flatten(backward())
    model = TorchTransformer(config, dtype=torch.float64)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()}, strict=True)
    source, known = torch.tensor(SOURCE), torch.tensor(KNOWN)
    loss = model.loss(source, torch.tensor(LABELS), source_mask=known)
    loss.backward()
    logits = model(source, torch.tensor(read(config)), source_mask=known)
    return logits.detach().numpy(), loss.detach().numpy(), {name: p.grad.numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("config", [
    TINY, dataclasses.replace(TINY, order="pre", start=3, padding=4), dataclasses.replace(TINY, tied=False, target_vocabulary=12),
], ids=["as published", "pre-norm", "untied"])
def test_logits_and_gradients_are_those_of_torch_nn_transformer(side, config):
    rng = np.random.default_rng(2)
    state = {name: 0.4 * rng.standard_normal(value.shape) for name, value in Transformer(config).state_dict().items()}
    theirs = theirs_of(config)
    theirs.load_state_dict(theirs_from(state), strict=True)
    tables = {name: torch.tensor(value, requires_grad=True) for name, value in state.items() if name in
              ("tokens.weight", "target_tokens.weight", "head.weight")}
    source_table = tables["tokens.weight"]
    target_table, head = tables.get("target_tokens.weight", source_table), tables.get("head.weight", source_table)

    def embed(table, ids):
        angles = torch.arange(ids.shape[1]).double()[:, None] / 10000 ** (torch.arange(0, 12, 2).double() / 12)
        return math.sqrt(12) * table[ids] + torch.stack([angles.sin(), angles.cos()], -1).flatten(1)

    hidden = ~torch.tensor(KNOWN)                                      # there True means hidden
    h = theirs(embed(source_table, torch.tensor(SOURCE)), embed(target_table, torch.tensor(read(config))), src_key_padding_mask=hidden,
               memory_key_padding_mask=hidden, tgt_mask=torch.ones(5, 5, dtype=torch.bool).triu(1))
    want = h @ head.T
    want_loss = F.cross_entropy(want.flatten(0, 1), torch.tensor(LABELS).flatten())
    want_loss.backward()

    logits, loss, grads = results(side, config, state)
    np.testing.assert_allclose(logits, want.detach(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(loss, want_loss.detach(), rtol=0, atol=1e-12)
    for name, table in tables.items():
        np.testing.assert_allclose(grads.pop(name), table.grad, rtol=0, atol=1e-9, err_msg=name)
    for name, grad in theirs_from(grads).items():
        np.testing.assert_allclose(grad, theirs.get_parameter(name).grad, rtol=0, atol=1e-9, err_msg=name)


def test_it_learns_to_write_backwards():
    """Which no model can do that does not read the source by position."""
    config = dataclasses.replace(TINY, vocabulary=8, target_vocabulary=8, d_model=24, order="pre")
    model, rng = Transformer(config, rng=np.random.default_rng(0)), np.random.default_rng(1)
    optimizer = AdamW(model.parameters(), lr=5e-3)
    for _ in range(350):
        source = rng.integers(1, 8, (32, 5))
        _, backward = model.loss(source, source[:, ::-1])
        optimizer.step(flatten(backward()))
    source = rng.integers(1, 8, (64, 5))
    assert float(model.loss(source, source[:, ::-1], run="inference")[0]) < 0.1


def test_what_is_hidden_of_the_source_does_not_matter():
    model = Transformer(TINY, rng=np.random.default_rng(0))
    other = np.where(KNOWN, SOURCE, (SOURCE + 1) % 11)
    target = np.maximum(LABELS, 0)
    assert np.array_equal(model(SOURCE, target, source_mask=KNOWN), model(other, target, source_mask=KNOWN))
    assert not np.allclose(model(SOURCE, target), model(other, target))


def test_recomputed_gradients_have_the_same_bits():
    config = dataclasses.replace(TINY, dropout=0.3, order="deepnorm")
    model, noise = Transformer(config, rng=np.random.default_rng(0)), Noise(seed=2, step=7)
    results = [flatten(model.loss(SOURCE, LABELS, source_mask=KNOWN, noise=noise, run=run)[1]()) for run in ("keep", "recompute")]
    assert results[0].keys() == model.parameters().keys()
    assert all(results[0][name].tobytes() == results[1][name].tobytes() for name in results[0])


@pytest.mark.parametrize("tied", [True, False])
def test_frozen_tables_get_no_gradient(tied):
    model = Transformer(dataclasses.replace(TINY, tied=tied))
    model.freeze("tokens.*", "head.*", "encoder.0.*")
    assert flatten(model.loss(SOURCE, LABELS)[1]()).keys() == model.parameters().keys()


@pytest.mark.parametrize("name", TRANSFORMER_PRESETS)
def test_the_count_of_parameters_is_the_models(name):
    for change in (dict(), dict(tied=False, target_vocabulary=100), dict(order="pre"), dict(order="deepnorm")):
        config = dataclasses.replace(TRANSFORMER_PRESETS[name], **change)
        with torch.device("meta"):
            model = TorchTransformer(config)
        assert sum(p.numel() for p in model.parameters()) == config.parameters
    assert TransformerConfig.from_dict(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(("change", "message"), [
    (dict(n_heads=5), "d_model to be a multiple of n_heads"),
    (dict(order="sandwich"), "order from 'post', 'pre', 'deepnorm'"),
    (dict(target_vocabulary=12), "one vocabulary where tables are tied"),
    (dict(start=11), "start in \\[0, 10\\]"),
    (dict(padding=0.5), "padding as an integer"),
    (dict(decoder_layers=0), "decoder_layers as an integer >= 1"),
    (dict(dropout=1.5), "dropout in \\[0, 1\\]"),
])
def test_what_is_no_config_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
