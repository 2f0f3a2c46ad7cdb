"""Training on both sides: what accumulation equals, what stops a step, what recompute changes (no bit), which weights are the best."""

import math
import pickle
import tracemalloc
import types

import numpy as np
import pytest
import torch

from byhand.checks import NonFiniteError
from byhand.configs.gpt2 import GPT2Config
from byhand.noise import Noise
from numpy_impl.models.gpt2 import GPT2 as NumpyGPT2
from numpy_impl.optim.sgd import SGD
from numpy_impl.train import accumulate as numpy_accumulate
from numpy_impl.train import evaluate as numpy_evaluate
from numpy_impl.train import loop as numpy_loop
from numpy_impl.train import step as numpy_step
from torch_impl.models.gpt2 import GPT2 as TorchGPT2
from torch_impl.optim import sgd as torch_sgd
from torch_impl.train import accumulate as torch_accumulate
from torch_impl.train import evaluate as torch_evaluate
from torch_impl.train import loop as torch_loop
from torch_impl.train import step as torch_step


class Quadratic:
    """nll = Σ (w[id] − target)² / 2 over the tokens that count; the gradients may be poisoned, by name."""

    def __init__(self, poison=None):
        self.w, self.scale, self.poison = np.linspace(-1, 1, 6), np.ones(1), poison or {}
        self.seen = []

    def parameters(self):
        return {"w": self.w, "scale": self.scale}

    def loss(self, ids, targets, *, normalizer, noise=None, run="keep"):
        self.seen.append((noise, run))
        gap = np.where(targets == -100, 0.0, self.scale[0] * self.w[ids] - targets)

        def backward(dloss=1.0):
            dw = np.bincount(ids.reshape(-1), gap.reshape(-1) * self.scale[0] / normalizer, minlength=6)
            grads = {"w": dw, "scale": np.array([(gap * self.w[ids]).sum() / normalizer])}
            return {name: dloss * grad * self.poison.get(name, 1.0) for name, grad in grads.items()}

        return np.asarray((gap * gap).sum() / 2 / normalizer * self.poison.get("loss", 1.0)), backward


class TorchQuadratic(torch.nn.Module):
    """The same in PyTorch."""

    def __init__(self, poison=None):
        super().__init__()
        self.w = torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))
        self.scale = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.poison, self.seen = poison or {}, []
        for name, param in self.named_parameters():
            param.register_hook(lambda grad, name=name: grad * self.poison.get(name, 1.0))

    def loss(self, ids, targets, *, normalizer, noise=None, run="keep"):
        self.seen.append((noise, run))
        gap = torch.where(targets == -100, 0.0, self.scale * self.w[ids] - targets)
        return (gap * gap).sum() / 2 / normalizer * self.poison.get("loss", 1.0)


class OfNumpy:
    accumulate, count_tokens = staticmethod(numpy_accumulate.accumulate), staticmethod(numpy_accumulate.count_tokens)
    evaluate, train_step, fit = staticmethod(numpy_evaluate.evaluate), staticmethod(numpy_step.train_step), staticmethod(numpy_loop.fit)

    @staticmethod
    def model(poison=None, lr=0.1):
        model = Quadratic(poison)
        return model, SGD(model.parameters(), lr=lr)

    array = staticmethod(np.array)
    values = staticmethod(lambda model: {name: array.copy() for name, array in model.parameters().items()})


class OfTorch:
    accumulate, count_tokens = staticmethod(torch_accumulate.accumulate), staticmethod(torch_accumulate.count_tokens)
    evaluate, train_step, fit = staticmethod(torch_evaluate.evaluate), staticmethod(torch_step.train_step), staticmethod(torch_loop.fit)

    @staticmethod
    def model(poison=None, lr=0.1):
        model = TorchQuadratic(poison)
        return model, torch_sgd.SGD(dict(model.named_parameters()), lr=lr)

    array = staticmethod(torch.tensor)
    values = staticmethod(lambda model: {name: param.detach().numpy().copy() for name, param in model.named_parameters()})


@pytest.fixture(params=[OfNumpy, OfTorch], ids=["numpy", "torch"])
def side(request):
    return request.param


def batches(side, seed=0, sizes=((2, 3), (1, 5))):
    rng = np.random.default_rng(seed)
    made = []
    for size in sizes:
        targets = rng.integers(0, 6, size)
        targets[0, 0] = -100
        made.append((side.array(rng.integers(0, 6, size).tolist()), side.array(targets.tolist())))
    return made


def flat(side, micro_batches):
    """The same tokens as one batch of one row."""
    joined = [np.concatenate([np.asarray(part).reshape(-1) for part in parts]) for parts in zip(*micro_batches, strict=True)]
    return [tuple(side.array(part[None].tolist()) for part in joined)]


def test_accumulation_is_the_one_big_batch(side):
    micro = batches(side)
    many, one = side.accumulate(side.model()[0], micro), side.accumulate(side.model()[0], flat(side, micro))
    assert many.tokens == one.tokens == 5 + 4
    assert float(many.loss) == pytest.approx(float(one.loss), rel=1e-14)
    for name in one.grads:
        np.testing.assert_allclose(many.grads[name], one.grads[name], rtol=1e-13)
    separately = np.mean([float(side.accumulate(side.model()[0], [m]).loss) for m in micro])
    assert abs(separately - float(one.loss)) > 1e-3      # the mean of means is something else


def test_micro_batches_read_noise_of_their_own(side):
    model = side.model()[0]
    side.accumulate(model, batches(side), noise=Noise(5, step=8), run="recompute")
    assert model.seen == [(Noise(5, step=8), "recompute"), (Noise(5, step=9), "recompute")]


def test_no_token_is_refused(side):
    nothing = [(side.array([[1, 2]]), side.array([[-100, -100]]))]
    for attempt in (side.accumulate, side.evaluate):
        with pytest.raises(ValueError, match="at least one token"):
            attempt(side.model()[0], nothing)
    with pytest.raises(ValueError, match="at least one token"):
        side.accumulate(side.model()[0], [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("where", "what"), [("loss", "the loss"), ("w", "the gradient of w"), ("scale", "the gradient of scale")]
)
def test_a_step_stops_before_the_update(side, where, what, value):
    model, optimizer = side.model({where: value})
    before = side.values(model)
    with pytest.raises(NonFiniteError, match=f"before the update of step 7: {what} is not finite") as stopped:
        side.train_step(model, optimizer, batches(side), step=7, max_norm=1.0)
    assert (stopped.value.step, stopped.value.what) == (7, what) and isinstance(stopped.value, ValueError)
    assert optimizer.steps == 0
    for name, array in side.values(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_norm_that_overflows_stops_a_step(side):
    model, optimizer = side.model({"w": 1e200})          # every entry is finite, the sum of their squares is not
    with pytest.raises(NonFiniteError, match="the norm of all gradients together"):
        side.train_step(model, optimizer, batches(side))


def test_a_nonfinite_error_survives_the_way_between_processes():
    error = NonFiniteError("message", step=3, what="the loss")
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.step, back.what) == ("message", 3, "the loss")


def test_a_step_reports_what_it_did(side):
    model, optimizer = side.model()
    want = side.accumulate(side.model()[0], batches(side))
    norm = math.sqrt(sum(float((grad * grad).sum()) for grad in want.grads.values()))
    start = side.values(model)
    metrics = side.train_step(model, optimizer, batches(side), lr=0.5, max_norm=norm / 4)
    assert metrics.loss == pytest.approx(float(want.loss)) and metrics.tokens == 9 and metrics.lr == 0.5
    assert metrics.grad_norm == pytest.approx(norm)      # before clipping
    for name, array in side.values(model).items():       # the update used a quarter of it
        np.testing.assert_allclose(array, start[name] - 0.5 * np.asarray(want.grads[name]) / 4, atol=1e-6)
    moved = math.sqrt(sum(float((array * array).sum()) for array in side.values(model).values()))
    assert metrics.param_norm == pytest.approx(moved) and metrics.seconds > 0
    assert side.train_step(model, optimizer, batches(side)).lr == optimizer.lr == 0.1


def test_validation_weighs_tokens_and_keeps_nothing(side):
    model = side.model()[0]
    assert side.evaluate(model, batches(side)) == pytest.approx(float(side.accumulate(side.model()[0], batches(side)).loss), rel=1e-13)
    assert model.seen == [(None, "inference")] * 2


def test_fit_calls_the_steps_in_turn(side):
    model, optimizer = side.model()
    drawn = []

    def draw(step):
        drawn.append(step)
        return batches(side, seed=step)

    run = list(side.fit(model, optimizer, draw, steps=5, schedule=lambda step: 0.1 / (step + 1), noise=Noise(1, step=10), run="recompute",
                        validation=batches(side, seed=9), validate_every=2))
    assert drawn == [0, 1, 2, 3, 4] == [p.step for p in run]
    assert [p.metrics.lr for p in run] == [0.1 / (step + 1) for step in range(5)]
    assert [p.validation is not None for p in run] == [False, True, False, True, True]   # every second, and after the last
    assert [noise.step for noise, way in model.seen if way == "recompute"] == list(range(10, 20))

    twin, other = side.model()
    for step in range(5):
        metrics = side.train_step(twin, other, batches(side, seed=step), lr=0.1 / (step + 1))
        assert metrics.loss == run[step].metrics.loss
    assert side.evaluate(twin, batches(side, seed=9)) == run[-1].validation


def test_fit_without_validation_takes_none(side):
    assert [(p.validation, p.best) for p in side.fit(*side.model(), lambda step: batches(side), steps=3)] == [(None, False)] * 3


def test_the_best_is_the_lowest_so_far(side, monkeypatch):
    heights = iter([3.0, 2.0, 2.0, math.nan, 2.5, 1.0])
    module = numpy_loop if side is OfNumpy else torch_loop
    monkeypatch.setattr(module, "evaluate", lambda model, validation: next(heights))
    run = side.fit(*side.model(), lambda step: batches(side), steps=6, validation=batches(side))
    assert [p.best for p in run] == [True, True, False, False, False, True]


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 2.5}, {"steps": 1, "validate_every": 0}])
def test_fit_refuses_bad_counts(side, bad):
    with pytest.raises(ValueError, match="as an integer >= 1"):
        list(side.fit(*side.model(), lambda step: batches(side), **bad))


def test_fit_is_driven_by_its_caller(side):
    model, optimizer = side.model()
    run = side.fit(model, optimizer, lambda step: batches(side), steps=100)
    assert isinstance(run, types.GeneratorType) and optimizer.steps == 0
    next(run)
    assert optimizer.steps == 1




def gpt2(name, dropout):
    """A GPT-2 of that side, both sides from the same weights."""
    config = GPT2Config(vocabulary=256, max_length=24, d_model=16, n_layers=4, n_heads=2, dropout=dropout)
    by_hand = NumpyGPT2(config, rng=np.random.default_rng(0))
    if name is OfNumpy:
        return by_hand
    twin = TorchGPT2(config)
    twin.load_state_dict({key: torch.from_numpy(array) for key, array in by_hand.state_dict().items()})
    return twin


def text(side, shape):
    rng = np.random.default_rng(1)
    return side.array(rng.integers(0, 256, shape).tolist()), side.array(rng.integers(0, 256, shape).tolist())


def test_recompute_gives_the_same_bits_of_every_gradient(side):
    kept, again = (side.accumulate(gpt2(side, 0.3), [text(side, (3, 24))], noise=Noise(4), run=run) for run in ("keep", "recompute"))
    assert np.array_equal(np.asarray(kept.loss), np.asarray(again.loss))
    for name, grad in kept.grads.items():
        assert np.array_equal(np.asarray(grad), np.asarray(again.grads[name])), name
    other = side.accumulate(gpt2(side, 0.3), [text(side, (3, 24))], noise=Noise(5))
    assert float(other.loss) != float(kept.loss)          # the masks did act


def test_accumulated_gradients_of_a_gpt_are_those_of_the_one_big_batch(side):
    ids, targets = text(side, (6, 24))
    many = side.accumulate(gpt2(side, 0.3), [(ids[:1], targets[:1]), (ids[1:], targets[1:])])
    one = side.accumulate(gpt2(side, 0.3), [(ids, targets)])
    for name, grad in one.grads.items():
        np.testing.assert_allclose(many.grads[name], grad, atol=1e-6)


def test_recompute_keeps_less():
    peaks = {}
    for run in ("keep", "recompute"):
        model, batch = gpt2(OfNumpy, 0.3), [text(OfNumpy, (16, 24))]
        tracemalloc.start()
        numpy_accumulate.accumulate(model, batch, noise=Noise(4), run=run)
        peaks[run] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks["recompute"] < 0.7 * peaks["keep"], peaks
