"""The harness on functions that are wrong on purpose: every law can fail, and says what is wrong."""

import json

import numpy as np
import pytest
import torch

import parity
from parity import registry
from parity.cases import array, dims, left_out, mask, maybe, noise, one_of, size
from parity.cli import main
from parity.mirror import _faults
from parity.registry import Component, case, components, find, select
from parity.values import Census, Example


def softplus(x):
    return np.logaddexp(x, 0).astype(x.dtype), lambda dy: dy / (1 + np.exp(-x))


def drawn(draw):
    return {"x": draw(array(*draw(dims())))}


def laws_broken(numpy_function, torch_function=None, inputs=drawn, **options):
    twin = torch_function or (lambda x: torch.logaddexp(x, torch.zeros_like(x)))
    return {f.law for f in parity.compare(numpy_function, twin, inputs, **options).failures}


def test_a_right_pair_breaks_no_law():
    result = parity.compare(softplus, lambda x: torch.logaddexp(x, torch.zeros_like(x)), drawn)
    assert result.passed, result.failures
    assert result.worst("float32", "gradient")[0].relative < 1e-6


@pytest.mark.parametrize(
    ("law", "wrong"),
    [
        ("forward", lambda x: (softplus(x)[0] * x.dtype.type(1 + 1e-6), softplus(x)[1])),
        ("gradient", lambda x: (softplus(x)[0], lambda dy: softplus(x)[1](dy) * x.dtype.type(1 + 1e-6))),
        ("linear", lambda x: (softplus(x)[0], lambda dy: softplus(x)[1](dy) + x.dtype.type(1e-6))),
        ("linear", lambda x: (softplus(x)[0], lambda dy: softplus(x)[1](dy * dy))),
        ("typed", lambda x: (softplus(x)[0] * np.float64(1), softplus(x)[1])),
        ("typed", lambda x: (softplus(x)[0], lambda dy: softplus(x)[1](dy) * np.float64(1))),
        ("sizes", lambda x: softplus(x if x.size else 1 / np.zeros(2))),
        ("nonfinite", lambda x: softplus(np.nan_to_num(x))),
    ],
)
def test_each_law_sees_its_fault(law, wrong):
    assert law in laws_broken(wrong)


def test_writing_to_an_input_is_seen():
    def writes(x):
        y, backward = softplus(x)
        x *= 1
        return y, backward

    assert laws_broken(writes) == {"repeatable", "layouts"}


def test_writing_to_dy_is_seen():
    def writes(x):
        def backward(dy):
            dy /= 1 + np.exp(-x)
            return dy

        return softplus(x)[0], backward

    assert "repeatable" in laws_broken(writes)


def test_a_backward_that_works_once_is_seen():
    def once(x):
        kept = [softplus(x)[1]]
        return softplus(x)[0], lambda dy: kept.pop()(dy)

    assert "repeatable" in laws_broken(once)


def test_global_random_state_is_watched():
    def rolls(x):
        np.random.rand()  # noqa: NPY002
        return softplus(x)

    assert "repeatable" in laws_broken(rolls)


def test_both_sides_wrong_in_the_same_way_is_seen_by_the_third_witness():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, dy):
            return ctx.saved_tensors[0] * dy

    assert laws_broken(lambda x: (x * x, lambda dy: x * dy), Wrong.apply) == {"witness"}


def test_a_kernel_that_ignores_strides_is_seen():
    def flat(x):
        raw = np.frombuffer(x.base if x.base is not None else x, dtype=x.dtype)[: x.size].reshape(x.shape)
        return softplus(raw)

    assert "layouts" in laws_broken(flat, inputs=lambda draw: {"x": draw(array(3, 4))})


def test_low_precision_inside_is_seen():
    def coarse(x):
        if x.dtype == np.float64:
            return softplus(x)
        return softplus(x)[0].astype(np.float16).astype(x.dtype), softplus(x)[1]

    assert "float32" in laws_broken(coarse)


def test_a_gradient_that_is_always_zero_is_vacuous():
    def constant(x):
        return x * 0, lambda dy: dy * 0

    result = parity.compare(constant, lambda x: x * 0, drawn)
    assert any("vacuous" in f.what for f in result.failures)


def test_a_promise_never_meant_is_vacuous():
    def cancels(x):
        return (x + 1e9) - 1e9, lambda dy: dy

    result = parity.compare(cancels, lambda x: (x + 1e9) - 1e9, drawn)
    assert any("vacuous" in f.what and f.law == "float32" for f in result.failures)


def test_wrong_number_of_gradients_is_told():
    result = parity.compare(lambda x: (x, lambda dy: (dy, dy)), lambda x: x * 1, drawn)
    assert "backward should return 1 gradients (dx)" in result.failures[0].what


def test_not_returning_a_pair_is_told():
    result = parity.compare(lambda x: x, lambda x: x * 1, drawn)
    assert "should return (y, backward)" in result.failures[0].what


# --- values ------------------------------------------------------------------------------------------------------------------------


def test_examples_are_diverse_and_keyed_by_argument():
    component = find("layer_norm")
    seen, hostile = [], 0
    for example in component.census(40):
        inputs, _ = example.fill()
        arrays = [v for v in inputs.values() if isinstance(v, np.ndarray) and v.size > 2]
        seen += [a.tobytes() for a in arrays if np.ptp(a)]
        hostile += any(np.abs(a).max() > 100 or np.abs(a).min() < 1e-20 or np.ptp(a) == 0 for a in arrays)
    assert len(seen) > 40
    assert len(set(seen)) == len(seen)
    assert hostile > 8


def test_half_of_the_census_is_ordinary_and_plain():
    examples = find("layer_norm").census(10)
    assert [e.ordinary for e in examples] == [True, False] * 5
    for example in examples[::2]:
        x = example.fill()[0]["x"]
        assert x.shape[-1] >= 3
        assert np.abs(x).max() < 10


def test_values_are_the_same_number_in_either_precision():
    values, _ = Example("k", False, {"x": array(50), "y": np.array([0.1])}).fill()
    assert all(np.array_equal(v, v.astype(np.float32)) for v in values.values())


def test_left_out_and_maybe_are_both_drawn():
    drawn = [Census(str(i), ordinary=True)(left_out(one_of(1, 2))) for i in range(40)]
    assert {1, 2} < set(drawn)
    assert {None, 3} == {Census(str(i), ordinary=True)(maybe(3)) for i in range(40)}


def test_masks_hold_rows_that_keep_nothing():
    masks = [Example(str(i), True, {"m": mask(4, 5)}).fill()[0]["m"] for i in range(30)]
    assert any((~m.any(-1)).any() for m in masks)
    assert any(m.any(-1).all() for m in masks)


def test_noise_differs_from_example_to_example():
    assert len({Example(str(i), True, {"n": noise()}).fill()[0]["n"] for i in range(20)}) == 20


def test_edges_reach_size_zero():
    assert any(0 in e.fill()[0]["x"].shape for e in find("layer_norm").census(10, edges=True))
    assert Census("k", ordinary=True, edges=True)(size(1, 5)) == 1


# --- registry, mirror, command line ------------------------------------------------------------------------------------------------


def test_names_may_be_rooms_files_or_components():
    assert {c.name for c in select(["ops"])} == {c.name for c in components().values() if c.room == "ops"}
    assert {c.name for c in select(["ops/softmax.py"])} == {"ops.softmax", "ops.log_softmax", "ops.logsumexp"}
    assert [c.name for c in select(["layer_norm"])] == [c.name for c in select(["ops/layer_norm.py"])] == ["ops.layer_norm"]


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean .*layer_norm"):
        select(["ops.layernorm"])


def test_a_name_in_a_case_file_that_is_broken(monkeypatch):
    """The error of its import is told: the name is not there because of it."""
    monkeypatch.setitem(registry._BROKEN, "parity.cases.ops.new", "SyntaxError: invalid syntax")
    with pytest.raises(ValueError, match=r"'ops\.new_op'.*parity\.cases\.ops\.new cannot be imported: SyntaxError"):
        select(["ops.new_op"])


def test_a_case_in_another_room_is_refused():
    with pytest.raises(ValueError, match="in the room"):
        case("ops.nothing")(lambda draw: {})


def test_mirror_names_every_fault():
    def one(x):
        """Some function."""

    def other(x, *, eps=1.0):
        """Another signature."""

    one.__module__ = other.__module__ = "numpy_impl.ops.a"
    known = Component("ops.a", "ops.a", lambda draw: {})
    said = list(_faults({"ops.a": one, "ops.b": one}, {"ops.a": other, "ops.c": one}, {"ops.a": known, "ops.d": known}, {"ops.z": "why"}))
    text = "\n".join(said)
    assert "ops.z: exempt, but nowhere to be found" in text
    assert "ops.a: signatures differ" in text
    assert "ops.b: missing in torch_impl" in text
    assert "ops.c: missing in numpy_impl" in text
    assert "ops.d: missing in numpy_impl" in text
    assert "ops.b: no case in parity/cases" in text


def test_the_mirror_is_complete():
    assert main(["mirror"]) == 0


def test_run_reports_as_documented(tmp_path, capsys):
    file, page = tmp_path / "r.json", tmp_path / "r.html"
    assert main(["run", "ops.layer_norm", "--examples", "6", "--json", str(file), "--html", str(page)]) == 0
    report = json.loads(file.read_text())
    assert report["summary"]["components"] == report["summary"]["passed"] == 1
    assert {"failed", "examples", "worst", "device", "versions"} <= report["summary"].keys()
    (component,) = report["components"]
    assert component["status"] == "passed"
    assert component["laws"]["gradient"] == "passed"
    assert component["laws"]["state"].startswith("not applicable: ")
    assert component["float32"]["gradient"] <= 1e-5
    assert component["float64"]["forward"] <= 1e-9
    assert "layer_norm" in page.read_text()
    assert "1 of 1 components agree" in " ".join(capsys.readouterr().out.split())


def test_precision_can_be_chosen(tmp_path):
    file = tmp_path / "r.json"
    main(["run", "ops.layer_norm", "--examples", "2", "--dtype", "float32", "--json", str(file)])
    laws = json.loads(file.read_text())["components"][0]["laws"]
    assert "float32" in laws
    assert "forward" not in laws


def test_list_as_documented(capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["components"]
    assert {"name": "ops.layer_norm", "room": "ops", "kind": "op"} in listed


@pytest.mark.parametrize("wrong", ["run nothing", "run --bogus", "bogus", "run --examples 0", "run --device tpu"])
def test_wrong_usage_exits_with_2(wrong):
    assert main(wrong.split()) == 2


def test_a_disagreement_exits_with_1(monkeypatch):
    component = find("ops.layer_norm")
    right = component.implementation("numpy")
    monkeypatch.setattr(
        "numpy_impl.ops.layer_norm.layer_norm", lambda *a, **k: (right(*a, **k)[0] * (1 + 1e-6), right(*a, **k)[1]), raising=True
    )
    assert main(["run", "ops.layer_norm", "--examples", "2"]) == 1


def test_an_interrupt_exits_with_130(monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("parity.runner.run_component", interrupted)
    assert main(["run", "ops.layer_norm"]) == 130
