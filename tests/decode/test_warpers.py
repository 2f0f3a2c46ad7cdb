"""Temperature and truncation give what transformers' warpers give, and keep to their rule where logits are equal.

Equal logits at the bound are left out of the comparison: transformers' top-k, epsilon and typical keep all of them, its top-p some, ours
exactly as many as the rule asks for, the lower ids first."""

from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as oracle

import numpy_impl.decode.epsilon
import numpy_impl.decode.min_p
import numpy_impl.decode.temperature
import numpy_impl.decode.top_k
import numpy_impl.decode.top_p
import numpy_impl.decode.typical
import torch_impl.decode.epsilon
import torch_impl.decode.min_p
import torch_impl.decode.temperature
import torch_impl.decode.top_k
import torch_impl.decode.top_p
import torch_impl.decode.typical

SHARES = dict(p=(0.01, 0.999), mass=(0.01, 0.999), epsilon=(0.001, 0.5), temperature=(0.1, 3.0))
WARPERS: dict[str, tuple[str, str, Any]] = {       # our file and function, the option's name, theirs
    "temperature": ("temperature.temperature", "temperature", oracle.TemperatureLogitsWarper),
    "top_k": ("top_k.keep_top_k", "k", oracle.TopKLogitsWarper),
    "top_p": ("top_p.keep_top_p", "p", oracle.TopPLogitsWarper),
    "min_p": ("min_p.keep_min_p", "p", oracle.MinPLogitsWarper),
    "typical": ("typical.keep_typical", "mass", oracle.TypicalLogitsWarper),
    "epsilon": ("epsilon.keep_epsilon", "epsilon", oracle.EpsilonLogitsWarper),
    "eta": ("epsilon.keep_eta", "epsilon", oracle.EtaLogitsWarper),
}


def ours(side, name):
    return attrgetter(name)(side.decode)


def drawn(rng):
    """Logits (N, V) of which no two are equal, peaked or flat, some of them excluded."""
    n, v = int(rng.integers(1, 4)), int(rng.choice([4, 7, 50, 400]))
    logits = rng.standard_normal((n, v)) * rng.choice([0.3, 1, 4])
    if rng.random() < 0.3:
        logits[:, 3:][rng.random((n, v - 3)) < 0.5] = -np.inf
    return logits


@pytest.mark.parametrize("name", WARPERS)
def test_as_transformers(name):
    function, option, warper = WARPERS[name]
    changed = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        logits = drawn(rng)
        value = int(rng.integers(1, logits.shape[1] + 3)) if option == "k" else float(rng.uniform(*SHARES[option]))
        minimum = {} if option in ("k", "temperature") else dict(minimum=int(rng.integers(1, 4)))
        theirs = warper(value, **({"min_tokens_to_keep": minimum["minimum"]} if minimum else {}))
        want = theirs(None, torch.tensor(logits)).numpy()
        got = ours(numpy_impl, function)(logits, **{option: value}, **minimum)
        twin = ours(torch_impl, function)(torch.tensor(logits), **{option: value}, **minimum).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-14, err_msg=f"seed {seed}, {option} {value}, {minimum}")
        np.testing.assert_array_equal(twin, got, err_msg=f"seed {seed}, {option} {value}, {minimum}")
        changed += not np.array_equal(got, logits)
    assert changed > 75


@pytest.mark.parametrize(("function", "options", "kept"), [
    ("top_k.keep_top_k", dict(k=3), 3),
    ("top_p.keep_top_p", dict(p=0.45), 3),                   # 2/6 < 0.45 <= 3/6
    ("typical.keep_typical", dict(mass=0.45), 3),
    ("epsilon.keep_epsilon", dict(epsilon=0.9, minimum=3), 3),
    ("min_p.keep_min_p", dict(p=1.0, minimum=3), 6),         # all that are as probable as the best
    ("epsilon.keep_eta", dict(epsilon=0.9, minimum=3), 6),   # 1/6 is above sqrt(0.9) exp(-log 6)
])
@pytest.mark.parametrize("size", [6, 600])
def test_of_equal_logits_the_lower_ids_are_kept(function, options, kept, size):
    logits = np.full((2, size), -50.0)
    logits[:, :: size // 6] = 1.0
    for side, array in ((numpy_impl, logits), (torch_impl, torch.tensor(logits))):
        got = np.asarray(ours(side, function)(array, **options))
        assert np.flatnonzero(np.isfinite(got[0])).tolist() == [i * (size // 6) for i in range(kept)]
        np.testing.assert_array_equal(got[0], got[1])


def test_temperature_zero_is_greedy():
    logits = np.array([[0.0, 5.0, 5.0], [-np.inf, -3.0, -4.0]])
    want = [[-np.inf, 5.0, -np.inf], [-np.inf, -3.0, -np.inf]]
    np.testing.assert_array_equal(numpy_impl.decode.temperature.temperature(logits, temperature=0), want)
    np.testing.assert_array_equal(torch_impl.decode.temperature.temperature(torch.tensor(logits), temperature=0).numpy(), want)


def test_half_precision_is_summed_in_float32():
    logits = torch.linspace(-1, 1, 4096).to(torch.bfloat16)[None]
    kept = torch.isfinite(torch_impl.decode.top_p.keep_top_p(logits, p=0.5)).sum()
    wide = torch.isfinite(torch_impl.decode.top_p.keep_top_p(logits.double(), p=0.5)).sum()
    assert abs(int(kept) - int(wide)) <= 1


def test_half_precision_is_judged_as_it_is_written():
    """The differences of bfloat16 numbers are no bfloat16 numbers: 100 and 99.5 are next to one another."""
    logits = torch.tensor([[100.0, 99.5, 99.0]], dtype=torch.bfloat16)
    assert torch_impl.decode.min_p.keep_min_p(logits, p=0.7).isfinite().tolist() == [[True, False, False]]
    for seed in range(200):
        logits = 2 * torch.randn(3, 12, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16) + 3
        for function, options in (
            ("epsilon.keep_epsilon", dict(epsilon=0.0377)), ("epsilon.keep_eta", dict(epsilon=0.0377)), ("min_p.keep_min_p", dict(p=0.31)),
            ("top_p.keep_top_p", dict(p=0.77)), ("typical.keep_typical", dict(mass=0.77)),
        ):
            kept, wide = (ours(torch_impl, function)(x, **options).isfinite() for x in (logits, logits.double()))
            assert torch.equal(kept, wide), (seed, function)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-6, 1e-36, 1e-42, 1e-300, 5e-324])
@pytest.mark.parametrize("sign", [1, -1])
def test_however_small_the_temperature_the_largest_is_drawn(dtype, temperature, sign):
    logits = sign * torch.tensor([[9.0, 12.0, 12.0, 700.0], [0.0, 1.0, -5.0, sign * -torch.inf]], dtype=dtype)
    got = torch_impl.decode.temperature.temperature(logits, temperature=temperature)
    assert got.dtype == dtype
    assert torch.equal(got.double().softmax(-1), (logits == logits.amax(-1, keepdim=True)).double())
    if dtype in (torch.float32, torch.float64):
        np.testing.assert_array_equal(numpy_impl.decode.temperature.temperature(logits.numpy(), temperature=temperature), got)


@pytest.mark.parametrize(("function", "options"), [("top_p.keep_top_p", dict(p=1.0)), ("typical.keep_typical", dict(mass=1.0))])
def test_what_keeps_everything_returns_an_array_of_its_own(function, options):
    logits = np.array([0.0, 1.0])
    assert not np.shares_memory(ours(numpy_impl, function)(logits, **options), logits)
    twin = torch.tensor(logits, requires_grad=True)
    got = ours(torch_impl, function)(twin, **options)
    assert got.data_ptr() != twin.data_ptr() and not got.requires_grad


@pytest.mark.parametrize("function", ["top_k.keep_top_k", "top_p.keep_top_p", "min_p.keep_min_p", "typical.keep_typical",
                                      "epsilon.keep_epsilon", "epsilon.keep_eta"])
def test_a_count_may_be_any_integer(function):
    shares = {"top_k": {}, "top_p": dict(p=0.01), "min_p": dict(p=0.99), "typical": dict(mass=0.01), "epsilon": dict(epsilon=0.9)}
    option = "k" if function.startswith("top_k") else "minimum"
    logits = np.random.default_rng(0).standard_normal((2, 400))
    for count in (np.uint8(3), np.int8(3), np.uint64(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)):
        for side, array in ((numpy_impl, logits), (torch_impl, torch.tensor(logits))):
            options = shares[function.split(".")[0]]
            got, want = (ours(side, function)(array, **options, **{option: n}) for n in (count, 3))
            np.testing.assert_array_equal(np.asarray(got), np.asarray(want), err_msg=f"{side.__name__}, {count!r}")
