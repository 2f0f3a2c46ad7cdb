"""Optimizers against torch.optim used directly; strides, resuming, and what a state dict must hold."""

import importlib

import numpy as np
import pytest
import torch

SHAPES = {"attn.weight": (13, 7), "attn.bias": (13,), "scale": ()}
CASES = [
    ("SGD", {}),
    ("SGD", dict(momentum=0.9)),
    ("SGD", dict(momentum=0.9, dampening=0.2, weight_decay=0.01, maximize=True)),
    ("SGD", dict(momentum=0.8, nesterov=True, weight_decay=0.01)),
    ("Adam", {}),
    ("Adam", dict(betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1, maximize=True)),
    ("AdamW", {}),
    ("AdamW", dict(betas=(0.9, 0.95), weight_decay=0.1, maximize=True)),
]


def optimizer_class(side, name):
    return getattr(importlib.import_module(f"{side}_impl.optim.{name.lower()}"), name)


def values(step, dtype=np.float64):
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def tensors(arrays):
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def learning_rate(step):
    return 0.01 * (1 + np.cos(step / 10).item())


def by_hand(name, options, dtype, steps):
    params = values(0, dtype)
    optimizer = optimizer_class("numpy", name)(params, lr=0.1, **options)
    for step in range(steps):
        optimizer.step(values(step + 1, dtype), lr=learning_rate(step))
        yield {key: value.copy() for key, value in params.items()}


def by_torch(name, options, dtype, steps):
    params = tensors(values(0, dtype))
    options = dict(options)
    groups = options.pop("groups", None)
    if groups is None:
        optimizer = getattr(torch.optim, name)(params.values(), lr=0.1, **options)
    else:  # the only grouping that is used here
        bias = {"params": [params["attn.bias"]], "weight_decay": 0.0, "scaled": 0.5}
        others = {"params": [params["attn.weight"], params["scale"]], "scaled": 1.0}
        optimizer = getattr(torch.optim, name)([bias, others], lr=0.1, **options)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step) * group.get("scaled", 1.0)
        for key, grad in tensors(values(step + 1, dtype)).items():
            params[key].grad = grad
        optimizer.step()
        yield {key: value.numpy().copy() for key, value in params.items()}


GROUPS = dict(weight_decay=0.1, groups=[{"pattern": "*.bias", "weight_decay": 0.0, "lr_scale": 0.5}])


@pytest.mark.parametrize("name, options", [*CASES, ("SGD", GROUPS), ("AdamW", GROUPS)])
def test_200_steps_in_float64(name, options):
    for step, (got, want) in enumerate(zip(by_hand(name, options, np.float64, 200), by_torch(name, options, np.float64, 200), strict=True)):
        for key in SHAPES:
            assert np.abs(got[key] - want[key]).max() <= 1e-12 * max(np.abs(want[key]).max(), 1.0), (key, step)


@pytest.mark.parametrize("name, options", CASES)
def test_200_steps_in_float32(name, options):
    """By the float32 gate: not further from float64 than torch is, up to a factor 8 and rounding."""
    runs = (by_hand(name, options, np.float32, 200), by_torch(name, options, np.float32, 200), by_torch(name, options, np.float64, 200))
    torch_error = dict.fromkeys(SHAPES, 0.0)
    for step, (got, single, want) in enumerate(zip(*runs, strict=True)):
        for key in SHAPES:
            assert got[key].dtype == np.float32
            torch_error[key] = max(torch_error[key], np.abs(single[key] - want[key]).max())
            allowed = 8 * torch_error[key] + 16 * 2.0**-24 * np.abs(want[key]).max()
            assert np.abs(got[key] - want[key]).max() <= allowed, (key, step)


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("name, options", CASES)
def test_resuming_gives_the_same_bits(side, name, options):
    make = optimizer_class(side, name)
    convert = tensors if side == "torch" else dict

    def steps(optimizer, first, last):
        for step in range(first, last):
            optimizer.step(convert(values(step + 1, np.float32)), lr=learning_rate(step))

    straight, stopped = convert(values(0, np.float32)), convert(values(0, np.float32))
    whole, first = make(straight, lr=0.1, **options), make(stopped, lr=0.1, **options)
    steps(whole, 0, 10)
    steps(first, 0, 4)
    saved = {key: value.copy() if side == "numpy" else value.clone() for key, value in stopped.items()}
    second = make(saved, lr=0.1, **options)
    second.load_state_dict(first.state_dict())
    steps(first, 4, 5)  # loading has copied: that the old one goes on must not reach the new one
    steps(second, 4, 10)
    for key in SHAPES:
        assert np.array_equal(np.asarray(saved[key]), np.asarray(straight[key])), key


@pytest.mark.parametrize("name, options", CASES)
def test_a_run_can_change_sides(name, options):
    """States have the same keys, shapes and dtypes on both sides, before the first step and after some; each side loads the other's."""
    arrays = values(0)
    twins = tensors(arrays)
    hand, twin = optimizer_class("numpy", name)(arrays, lr=0.1, **options), optimizer_class("torch", name)(twins, lr=0.1, **options)
    for step in range(6):
        ours, theirs = hand.state_dict(), {key: value.numpy() for key, value in twin.state_dict().items()}
        assert {key: (value.dtype, value.shape) for key, value in ours.items()} == {k: (v.dtype, v.shape) for k, v in theirs.items()}
        for key, value in ours.items():
            assert np.allclose(value, theirs[key], rtol=1e-12, atol=1e-13), key
        if step == 3:
            hand.load_state_dict(theirs)
            twin.load_state_dict(tensors(ours))
        hand.step(values(step + 1))
        twin.step(tensors(values(step + 1)))
        for key in SHAPES:
            assert np.allclose(arrays[key], twins[key].numpy(), rtol=1e-11, atol=1e-12), key


@pytest.mark.parametrize("side", ["numpy", "torch"])
def test_states_that_do_not_fit_are_refused_and_change_nothing(side):
    convert = tensors if side == "torch" else dict
    optimizer = optimizer_class(side, "AdamW")(convert(values(0)), lr=0.1)
    optimizer.step(convert(values(1)))
    good = {key: np.asarray(value).copy() for key, value in optimizer.state_dict().items()}
    wrong = {
        "missing": {key: value for key, value in good.items() if key != "scale.exp_avg"},
        "did you mean 'scale.exp_avg'": {("scale.exp_agv" if key == "scale.exp_avg" else key): value for key, value in good.items()},
        r"shape \(13,\)": good | {"attn.bias.exp_avg": np.zeros(12)},
        "one dtype": good | {"attn.bias.exp_avg": np.zeros(13, np.float32)},
        ">= 0": good | {"step": np.array(-1)},
        "integers": good | {"step": np.array(1.0)},
        "exp_avg_sq.. as an array": good | {"scale.exp_avg_sq": None},
    }
    for message, state in wrong.items():
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict({key: value if value is None else convert({key: value})[key] for key, value in state.items()})
    for key, value in optimizer.state_dict().items():
        assert np.array_equal(np.asarray(value), good[key]), key


@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_strides_change_nothing(side, name):
    """Parameters and gradients of any strides, longer than a piece, move as contiguous ones do: torch's fused kernels alone would not."""
    rng = np.random.default_rng(0)
    wide, tall = rng.standard_normal((300, 500)), rng.standard_normal((90_000, 2))
    start = {"wide": wide, "tall": tall, "every": rng.standard_normal((4, 6, 5))}
    grads = {key: rng.standard_normal(value.shape) for key, value in start.items()}
    options = dict(lr=0.1) | (dict(momentum=0.9, nesterov=True) if name == "SGD" else dict(weight_decay=0.1))
    if side == "numpy":
        plain = {key: value.copy() for key, value in start.items()}
        strided = {"wide": np.asfortranarray(wide), "tall": np.asfortranarray(tall), "every": np.repeat(start["every"], 2, axis=1)[:, ::2]}
        others = {key: np.asfortranarray(value) for key, value in grads.items()}
    else:
        plain, grads = tensors(start), tensors(grads)
        strided = {"wide": plain["wide"].t().contiguous().t(), "tall": plain["tall"].t().contiguous().t()}
        strided["every"] = plain["every"].repeat_interleave(2, dim=1)[:, ::2]
        others = {"wide": grads["wide"].t().contiguous().t(), "tall": grads["tall"].t().contiguous().t(), "every": grads["every"]}
    still = {key: value + 0 for key, value in plain.items()}
    make = optimizer_class(side, name)
    for params, given in ((plain, grads), (strided, grads), (still, others)):
        before = {key: value + 0 for key, value in given.items()}
        optimizer = make(params, **options)
        for _ in range(3):
            optimizer.step(given)
        assert all(np.array_equal(np.asarray(given[key]), np.asarray(value)) for key, value in before.items())
    for key in start:
        want = np.asarray(plain[key])
        assert np.abs(want - start[key]).max() > 0.1
        for params in (strided, still):
            assert np.abs(np.asarray(params[key]) - want).max() <= 1e-14 * np.abs(want).max(), key


@pytest.mark.parametrize("name, options", CASES)
def test_non_finite_values_pass_on_as_in_torch(name, options):
    start = np.array([1.0, 2.0, np.inf, -1.0, np.nan, 1.0, 2.0])
    grad = np.array([np.nan, np.inf, 1.0, -np.inf, 1.0, 1.0, 0.0])
    params, twins = {"w": start.copy()}, tensors({"w": start})
    hand, plain = optimizer_class("numpy", name)(params, lr=0.1, **options), getattr(torch.optim, name)(twins.values(), lr=0.1, **options)
    for _ in range(3):
        hand.step({"w": grad})
        twins["w"].grad = torch.from_numpy(grad.copy())
        plain.step()
        assert np.array_equal(np.isnan(params["w"]), np.isnan(twins["w"].numpy()))
        assert np.array_equal(np.isinf(params["w"]), np.isinf(twins["w"].numpy()))


@pytest.mark.parametrize("side", ["numpy", "torch"])
def test_refused_steps_change_nothing(side):
    convert = tensors if side == "torch" else dict
    params = convert(values(0))
    optimizer = optimizer_class(side, "AdamW")(params, lr=0.1)
    for wrong in ({"scale": np.zeros(1)}, {"scale": np.zeros((), np.float32)}):
        with pytest.raises(ValueError, match=r"AdamW needs"):
            optimizer.step(convert(values(1) | wrong))
    for grads in (convert({"scale": np.zeros(())}), convert(values(1)) | {"scale": None}, None, [np.zeros(3)]):
        with pytest.raises(ValueError, match=r"AdamW needs"):
            optimizer.step(grads)
    assert all(np.array_equal(params[key], value) for key, value in values(0).items())
    assert optimizer.state_dict()["step"] == 0


def test_numpys_own_floats_are_options_like_any_other():
    """np.float64 is a float, but one that would make float64 of a product with float32, and other bits in the end."""
    results = []
    for number in (float, np.float64):
        params = values(0, np.float32)
        optimizer = optimizer_class("numpy", "AdamW")(
            params, lr=number(0.3), betas=(number(0.9), number(0.99)), eps=number(1e-8), weight_decay=number(0.1),
            groups=[{"pattern": "*.bias", "lr_scale": number(0.7)}],
        )
        for step in range(3):
            optimizer.step(values(step + 1, np.float32), lr=None if step else number(0.1))
        results.append(params)
    assert all(np.array_equal(results[0][key], results[1][key]) for key in SHAPES)


def test_parameters_that_cannot_be_trained_are_refused():
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    shared = np.zeros(3)
    wrong = [({"w": frozen}, "writeable"), ({"a": shared, "b": shared}, "one name"), ({"w": np.zeros(3, int)}, "float"), ({}, "one array"),
             ({"w": None}, "as an array")]
    for params, message in wrong:
        with pytest.raises(ValueError, match=message):
            optimizer_class("numpy", "SGD")(params, lr=0.1)
    leaf = torch.zeros(3, requires_grad=True)
    wrong = [({"w": leaf * 2}, "leaf"), ({"a": leaf, "b": leaf}, "one name"), ({"w": torch.zeros(3, dtype=int)}, "float"), ({}, "one"),
             ({"w": None}, "as an array")]
    for params, message in wrong:
        with pytest.raises(ValueError, match=message):
            optimizer_class("torch", "SGD")(params, lr=0.1)


def test_the_twin_trains_module_parameters_and_clears_their_gradients():
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    params = dict(module.named_parameters())
    optimizer = optimizer_class("torch", "AdamW")(params, lr=0.1)
    module(torch.ones(4, 3)).sum().backward()
    optimizer.step({name: param.grad for name, param in params.items()})
    assert module.weight.grad is None
    assert module.weight.requires_grad
    assert not torch.equal(module.weight, before)
