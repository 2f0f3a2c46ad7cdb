"""What a run tells of its routers: by hand, by the component for the loss, and the same from both implementations."""

import json
import math

import numpy as np
import pytest
import torch

from byhand.configs.mixlora import MixLoRAConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.routing_metrics import LayerRouting, RoutingWatch, average, layer_routing, routing_layers, tally
from numpy_impl.finetune.apply_mixlora import apply_mixlora
from numpy_impl.finetune.mixlora import MixLoRA
from numpy_impl.models.mixtral import Mixtral
from numpy_impl.moe.load_balance import load_balance
from numpy_impl.ops.sigmoid import sigmoid
from numpy_impl.ops.softmax import softmax
from torch_impl.finetune.apply_mixlora import apply_mixlora as torch_apply_mixlora
from torch_impl.models import mixtral as torch_mixtral

CONFIG = dict(vocabulary=11, max_length=16, d_model=8, n_layers=3, n_heads=2, d_hidden=6, n_experts=5, k=2, dense=(0,), capacity_factor=1.0)


def routing(seed, *lead, experts=5, k=2):
    """Logits, the k largest of them, and about three quarters of those."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((*lead, experts))
    chosen = np.zeros(logits.shape, bool)
    np.put_along_axis(chosen, np.argsort(logits)[..., -k:], True, -1)
    return logits, chosen, chosen & (rng.random(logits.shape) < 0.75)


def test_the_numbers_of_a_small_update_by_hand():
    chosen = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]], bool)
    kept = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)            # the last token is padding
    found = layer_routing("x", tally(np.zeros((4, 4)), chosen, kept, real=np.array([True, True, True, False])))
    np.testing.assert_allclose(found.utilisation, [2 / 5, 2 / 5, 1 / 5, 0])
    assert found.entropy == pytest.approx(-(0.8 * math.log(0.4) + 0.2 * math.log(0.2)) / math.log(4))
    assert found.dropped == pytest.approx(1 / 6)
    assert found.balance == pytest.approx(2.0)                   # 4 · (3/3 + 2/3 + 1/3 + 0) · 1/4
    assert found.largest == pytest.approx(1.6)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_the_loss_is_that_of_the_component_and_micro_batches_are_one_batch(score):
    logits, chosen, kept = routing(0, 6, 7)
    real = np.random.default_rng(1).random((6, 7)) < 0.8
    sums = [tally(logits[i], chosen[i], kept[i], score=score, real=real[i]) for i in (slice(0, 2), slice(2, 6))]
    found = layer_routing("x", sums[0].plus(sums[1]))
    scores = (softmax if score == "softmax" else sigmoid)(logits)[0]
    loss, _ = load_balance(scores, chosen=chosen, mask=real, renormalise=score == "sigmoid")
    assert found.balance == pytest.approx(float(loss), rel=1e-12)
    assert found.utilisation.sum() == pytest.approx(1) and 0 < found.dropped < 1


def test_the_watch_leaves_padding_out():
    model = Mixtral(MixtralConfig(**CONFIG), dtype=np.float64, rng=np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, 11, (2, 9))
    real = np.ones((2, 9), bool)
    real[1, 4:] = False
    seen = []
    watch = RoutingWatch(model)
    model.watch = lambda routes: (watch(routes), seen.append(routes))
    model.loss(ids, np.where(real, ids, -100), real=real)
    for found, routing in zip(watch.take(), seen[0], strict=True):
        loss, _ = load_balance(softmax(routing.logits)[0], chosen=routing.chosen, mask=real)
        assert found.balance == pytest.approx(float(loss), rel=1e-12)


def test_even_and_extreme_use_are_the_ends_of_the_scales():
    even = np.eye(4, dtype=bool)
    found = layer_routing("x", tally(np.zeros((4, 4)), even, even))
    assert (found.entropy, found.largest, found.balance, found.dropped) == (pytest.approx(1), 1, 1, 0)
    one = np.zeros((4, 4), bool)
    one[:, 2] = True
    found = layer_routing("x", tally(np.where(one, 99.0, 0), one, one))
    assert (found.entropy, found.largest, found.balance) == (0, 4, pytest.approx(4))


@pytest.mark.parametrize(("tokens", "experts"), [(0, 3), (4, 1), (1, 1)])
def test_no_tokens_and_one_expert_are_defined(tokens, experts):
    logits, chosen, kept = routing(0, tokens, experts=experts, k=1)
    for real in (None, np.zeros(tokens, bool)):
        found = layer_routing("x", tally(logits, chosen, kept, real=real))
        assert np.isfinite([found.entropy, found.dropped, found.balance, found.largest, *found.utilisation]).all()
        assert found.utilisation.sum() == pytest.approx(1 if kept.any() and real is None else 0)


def test_logits_of_any_height_have_scores():
    logits = np.array([[1e4, 0.0], [-1e4, -2e4]], np.float32)
    for score in ("softmax", "sigmoid"):
        with np.errstate(over="raise", invalid="raise"):
            assert np.isfinite(tally(logits, logits > 0, logits > 0, score=score).scores).all()


def test_a_record_survives_json():
    found = layer_routing("blocks.0.mlp", tally(*routing(0, 99)))
    again = LayerRouting.read(json.loads(json.dumps(found.record())))
    assert again[:1] + again[2:] == found[:1] + found[2:]
    np.testing.assert_allclose(again.utilisation, found.utilisation, rtol=0, atol=5.1e-7)


def test_the_average_of_updates_is_that_of_their_shares():
    first, second = LayerRouting("x", np.array([1.0, 0.0]), 0.0, 0.2, 2.0, 2.0), LayerRouting("x", np.array([0.0, 1.0]), 0.0, 0.0, 1.0, 2.0)
    (found,) = average([[first], [second]])
    assert found.entropy == pytest.approx(1) and found.largest == 1 and found.dropped == 0.1 and found.balance == 1.5


def watched(model, batches, array):
    """Its metrics of an update of these micro-batches, and how many there were of the next one."""
    watch = RoutingWatch(model)
    for ids in batches:
        model.loss(array(ids), array(ids))
    model.loss(array(ids), array(ids), run="inference")          # validation is not watched
    return watch.counts, watch.take(), watch.take()


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_both_implementations_are_seen_to_do_the_same(score):
    config = MixtralConfig(**CONFIG, score=score)
    by_hand = Mixtral(config, dtype=np.float64, rng=np.random.default_rng(0))
    twin = torch_mixtral.Mixtral(config, dtype=torch.float64)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in by_hand.state_dict().items()})
    assert list(routing_layers(by_hand)) == list(routing_layers(twin)) == ["blocks.1.mlp", "blocks.2.mlp"]   # block 0 has no router
    batches = [np.random.default_rng(i).integers(0, 11, (2, 9 + i)) for i in range(3)]
    counts, one, rest = watched(by_hand, batches, lambda array: array)
    _, other, _ = watched(twin, batches, torch.from_numpy)
    assert rest == [] and [layer.layer for layer in one] == ["blocks.1.mlp", "blocks.2.mlp"]
    for ours, theirs, count in zip(one, other, counts, strict=True):
        np.testing.assert_array_equal(ours.utilisation, theirs.utilisation)
        assert ours[2:] == pytest.approx(theirs[2:], rel=1e-12)
        assert count.sum() == 2 * 60 and 0 < ours.dropped < 0.5


def test_experts_of_mixlora_are_watched_too():
    config = MixtralConfig(**CONFIG | dict(dense=(0, 1, 2)))             # a Llama, whose layers apply_mixlora replaces
    by_hand = Mixtral(config, dtype=np.float64, rng=np.random.default_rng(0))
    twin = torch_mixtral.Mixtral(config, dtype=torch.float64)
    apply_mixlora(by_hand, MixLoRAConfig(n_experts=4, r=2), rng=np.random.default_rng(1))
    torch_apply_mixlora(twin, MixLoRAConfig(n_experts=4, r=2))
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in by_hand.state_dict().items()})
    batches = [np.random.default_rng(i).integers(0, 11, (2, 9)) for i in range(2)]
    one, other = watched(by_hand, batches, lambda array: array)[1], watched(twin, batches, torch.from_numpy)[1]
    assert [layer.layer for layer in one] == [f"blocks.{i}.mlp" for i in range(3)]
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours.utilisation, theirs.utilisation)
        assert ours[2:] == pytest.approx(theirs[2:], rel=1e-12)


def test_a_router_within_what_a_router_sends_to_is_not_told_of():
    model = Mixtral(MixtralConfig(**CONFIG | dict(dense=()), d_shared=4), rng=np.random.default_rng(0))
    for block in model.blocks.layers:
        block.mlp.shared = MixLoRA(block.mlp.shared, n_experts=4, r=2, rng=np.random.default_rng(1))
    (_, one, _) = watched(model, [np.arange(9)[None]], lambda array: array)
    assert [(layer.layer, len(layer.utilisation)) for layer in one] == [(f"blocks.{i}.mlp", 5) for i in range(3)]


def test_where_nothing_routes_there_is_nothing_to_see():
    from byhand.configs.llama import LlamaConfig
    from numpy_impl.models.llama import Llama

    model = Llama(LlamaConfig(vocabulary=11, max_length=16, d_model=8, n_layers=1, n_heads=2))
    watch = RoutingWatch(model)
    assert model.watch is None and watch.counts == watch.take() == []
