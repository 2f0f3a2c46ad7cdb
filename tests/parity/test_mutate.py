"""Mutants: each operator on a small source, and nothing changed that must not be."""

import inspect

import pytest

import numpy_impl.ops.layer_norm
from parity.mutate import mutants

LAYER_NORM = inspect.getsource(numpy_impl.ops.layer_norm)


def changes(body: str, operator: str | None = None, name: str = "f") -> list[str]:
    """The keys of `name`'s mutants; a body of one line stands in f(x, y)."""
    source = body if "def f" in body else f"def f(x, y, c=None):\n    {body}\n"
    return [m.key for m in mutants(source, name) if operator in (None, m.operator)]


@pytest.mark.parametrize(
    "body, operator, keys",
    [
        ("return x + y", "swap an operator", ["x + y -> x - y"]),
        ("return x - y", "swap an operator", ["x - y -> x + y"]),
        ("return x * y", "swap an operator", ["x * y -> x / y"]),
        ("return x / y", "swap an operator", ["x / y -> x * y"]),
        ("return x // y", "swap an operator", ["x // y -> x % y"]),
        ("return x % y", "swap an operator", ["x % y -> x // y"]),
        ("return x ** y", "swap an operator", ["x ** y -> x * y"]),
        ("return x & y", "swap an operator", ["x & y -> x | y"]),
        ("return x | y", "swap an operator", ["x | y -> x & y"]),
        ("return x @ y", None, []),
        ("return np.add(x, y)", "swap an operator", ["np.add(x, y) -> np.subtract(x, y)"]),
        ("return each(np.multiply, x)", "swap an operator", ["each(np.multiply, x) -> each(np.divide, x)"]),
        ("g = np.maximum", "max <-> min", ["g = np.maximum -> g = np.minimum"]),
        ("x += y", "swap an operator", ["x += y -> x -= y"]),
        ("x -= y", "swap an operator", ["x -= y -> x += y"]),
        ("x *= y", "swap an operator", ["x *= y -> x /= y"]),
        ("x /= y", "swap an operator", ["x /= y -> x *= y"]),
        ("return x + y", "drop a term", ["x + y -> y", "x + y -> x"]),
        ("return x - y", "drop a term", ["x - y -> -y", "x - y -> x"]),
        ("return x * y", "drop a term", ["x * y -> y", "x * y -> x"]),
        ("return x / y", "drop a term", ["x / y -> x"]),
        ("return np.multiply(x, y)", "drop a term", ["np.multiply(x, y) -> np.multiply(1, y)", "np.multiply(x, y) -> np.multiply(x, 1)"]),
        ("return -x", "drop a negation", ["-x -> x"]),
        ("return not x", "drop a negation", ["not x -> x"]),
        ("return ~x", "drop a negation", ["~x -> x"]),
        ("return x * -2.0", "drop a negation", ["x * -2.0 -> x * 2.0"]),
        ("return x.sum(-1)", "integer + 1", ["x.sum(-1) -> x.sum(0)"]),
        ("return x.sum(axis=0)", "integer + 1", ["x.sum(axis=0) -> x.sum(axis=1)"]),
        ("return x.sum((0, 1))", "integer + 1", ["x.sum((0, 1)) -> x.sum((1, 1))", "x.sum((0, 1)) -> x.sum((0, 2))"]),
        ("return x[1:]", "integer + 1", ["x[1:] -> x[2:]"]),
        ("return x.sum(keepdims=True)", "flip a boolean", ["x.sum(keepdims=True) -> x.sum(keepdims=False)"]),
        ("return x.T", "drop a transpose", ["x.T -> x"]),
        ("return x.mT", "drop a transpose", ["x.mT -> x"]),
        ("return x.swapaxes(c, y)", "drop a transpose", ["x.swapaxes(c, y) -> x"]),
        ("return x.transpose(c)", "drop a transpose", ["x.transpose(c) -> x"]),
        ("return np.swapaxes(x, c, y)", "drop a transpose", ["np.swapaxes(x, c, y) -> x"]),
        ("return np.moveaxis(x, c, y)", "drop a transpose", ["np.moveaxis(x, c, y) -> x"]),
        ("return np.transpose(x)", "drop a transpose", ["np.transpose(x) -> x"]),
        ("return x.sum()", "sum <-> mean", ["x.sum() -> x.mean()"]),
        ("return np.mean(x)", "sum <-> mean", ["np.mean(x) -> np.sum(x)"]),
        ("return x.max()", "max <-> min", ["x.max() -> x.min()"]),
        ("return min(x, y)", "max <-> min", ["min(x, y) -> max(x, y)"]),
        ("return np.maximum(x, y)", "max <-> min", ["np.maximum(x, y) -> np.minimum(x, y)"]),
        ("return np.minimum.reduce(x)", "max <-> min", ["np.minimum.reduce(x) -> np.maximum.reduce(x)"]),
        ("return x, y, c", "swap what is returned", ["(x, y, c) -> (y, x, c)", "(x, y, c) -> (x, c, y)"]),
        ("return Out(x, y)", "swap what is returned", ["Out(x, y) -> Out(y, x)"]),
        ("return Out(a=x, b=y)", "swap what is returned", ["Out(a=x, b=y) -> Out(a=y, b=x)"]),
        ("return {'a': x, 'b': y}", "swap what is returned", ["{'a': x, 'b': y} -> {'a': y, 'b': x}"]),
        ("return x, self.grads(a=x, b=y)", "swap what is returned",
         ["(x, self.grads(a=x, b=y)) -> (self.grads(a=x, b=y), x)", "self.grads(a=x, b=y) -> self.grads(a=y, b=x)"]),
        ("return x * 0.5", "constant", ["x * 0.5 -> x * 0.5005", "x * 0.5 -> x * 0.5000005"]),
        ("return x * 0.0", "constant", ["x * 0.0 -> x * 1.0"]),
        ("return x(math.pi)", "constant", ["x(math.pi) -> x(math.pi * 1.001)", "x(math.pi) -> x(math.pi * 1.000001)"]),
        ("return x < y", "comparison", ["x < y -> x <= y"]),
        ("return x >= y", "comparison", ["x >= y -> x > y"]),
        ("return x == y", "comparison", ["x == y -> x != y"]),
        ("return x is y", "comparison", ["x is y -> x is not y"]),
        ("return x and y", "and <-> or", ["x and y -> x or y"]),
        ("return x or y", "and <-> or", ["x or y -> x and y"]),
        ("return x(True)", "flip a boolean", ["x(True) -> x(False)"]),
        ("np.add.at(x, c, y)", "np.add.at -> fancy +=", ["np.add.at(x, c, y) -> x[c] += y"]),
        ("x *= y", "drop a statement", ["x *= y -> pass"]),
        ("x[c] = y", "drop a statement", ["x[c] = y -> pass"]),
        ("np.exp(x, out=x)", "drop a statement", ["np.exp(x, out=x) -> pass"]),
        ("return np.where(c, x, y)", "swap the branches of where", ["np.where(c, x, y) -> np.where(c, y, x)"]),
    ],
)
def test_each_operator_makes_exactly_its_changes(body, operator, keys):
    assert changes(body, operator) == keys


def test_defaults_are_changed_and_named_by_their_parameter():
    source = "def f(x, n=1, *, eps: float = 1e-5, flag: bool = True):\n    return x\n"
    assert changes(source) == ["n=1 -> n=2", "eps=1e-05 -> eps=1.001e-05", "eps=1e-05 -> eps=1.000001e-05",
                               "flag=True -> flag=False"]


@pytest.mark.parametrize(
    "source",
    [
        'def f(x):\n    """1 + 1 is 2."""\n    return x\n',
        "def f(x: 'a[1]' = None) -> 'b | c':\n    y: NDArray[1 + 1] = x\n    return y\n",
        "@cache(1)\ndef f(x):\n    return x\n",
        "def f(x):\n    raise ValueError(f'needs {x + 1}' + 'more' * 3)\n",
        "def f(x):\n    return f'{x + 1}'\n",
        "from byhand.checks import demand\ndef f(x):\n    demand('f', x == x, f'{x + 1}', got=x + 1)\n    return x\n",
        "def f(x):\n    return zip(x, strict=True) @ x.astype(c, copy=False)\n",
        "def other(x):\n    return x + 1\ndef _unreached(x):\n    return x + 1\n_K = 1.0\ndef f(x):\n    return other(x)\n",
    ],
)
def test_what_is_not_code_of_the_component_is_left_alone(source):
    assert changes(source) == []


def test_of_a_check_only_the_numbers_change_and_by_one():
    source = "from byhand.checks import size, in_range\n" \
             "def f(x, p):\n    size('f', at_least=1, x=x)\n    in_range('f', 0.0, 1.0, p=-p * 2)\n"
    assert changes(source) == ["size('f', at_least=1, x=x) -> size('f', at_least=2, x=x)",
                               "in_range('f', 0.0, 1.0, p=-p * 2) -> in_range('f', 1.0, 1.0, p=-p * 2)",
                               "in_range('f', 0.0, 1.0, p=-p * 2) -> in_range('f', 0.0, 2.0, p=-p * 2)"]


def test_private_helpers_and_constants_are_reached_and_what_only_pullbacks_use_is_backward():
    source = ("_TABLE = (0.5, 2.5)\n_SCALE = 3.0\n"
              "def _poly(x):\n    return x * _TABLE[0]\n"
              "def _unbroadcast(dy):\n    return -dy * _SCALE\n"
              "def f(x):\n    def pull(dy):\n        return _unbroadcast(_poly(dy))\n    return _poly(x), pull\n")
    found = mutants(source, "f")
    where = {m.within: m.where for m in found}
    assert where == {"_TABLE": "forward", "_SCALE": "backward", "_poly": "forward", "_unbroadcast": "backward"}
    assert [m.after for m in found if m.within == "_SCALE"] == ["_SCALE = 3.003", "_SCALE = 3.000003"]


@pytest.mark.parametrize("pullback", ["def backward(dy):\n        return dy + 1\n    return x, backward",
                                      "def my_backward(dy):\n        return dy + 1\n    return x, None",
                                      "def pull(dy):\n        return dy + 1\n    return x, pull",
                                      "def pull(dy):\n        return dy + 1\n    return x, None if x else pull",
                                      "pull = lambda dy: dy + 1\n    return x, pull",
                                      "return x, lambda dy: dy + 1"])
def test_a_pullback_is_backward_whatever_its_name(pullback):
    found = mutants(f"def f(x):\n    {pullback}\n", "f")
    assert {m.where for m in found if m.before == "dy + 1"} == {"backward"}
    assert not any("pull" in m.key for m in found)  # (y, pullback) is no pair of gradients


def test_every_mutant_is_another_source_that_compiles_and_the_same_change_twice_is_numbered():
    source = "def f(x):\n    a = x + x\n    b = x + x\n    return a @ b\n"
    found = mutants(source, "f")
    assert [m.key for m in found] == ["x + x -> x - x", "x + x -> x", "x + x -> x - x #2", "x + x -> x #2"]
    assert [m.line for m in found] == [2, 2, 3, 3]
    assert len({m.source() for m in found}) == len(found)
    for m in found:
        compile(m.source(), "mutant", "exec")


def test_keys_do_not_depend_on_layout_or_comments():
    moved = "\n\n# moved\n" + LAYER_NORM.replace("def backward(dy):", "def backward(  # here\n            dy\n    ):")
    assert [m.key for m in mutants(LAYER_NORM, "layer_norm")] == [m.key for m in mutants(moved, "layer_norm")]


def test_layer_norm_yields_the_mistakes_one_makes_by_hand():
    found = {m.key: m for m in mutants(LAYER_NORM, "layer_norm")}
    both = {(m.operator, m.where) for m in found.values()}
    assert {"eps=1e-05 -> eps=1.001e-05", "eps=1e-05 -> eps=1.000001e-05"} <= found.keys()
    assert any("eps" in m.before and "eps" not in m.after and m.operator == "drop a term" for m in found.values())
    for operator in ("swap an operator", "drop a term", "comparison", "drop a statement", "swap what is returned"):
        assert (operator, "backward") in both
    assert 50 < len(found) < 250


def test_a_class_is_changed_in_all_its_methods():
    source = "class Layer(Module):\n    def __init__(self, n=2):\n        self.n = n\n" \
             "    def forward(self, x):\n        def backward(dy):\n            return -dy\n        return x + self.n, backward\n"
    assert [(m.where, m.key) for m in mutants(source, "Layer")] == [
        ("forward", "n=2 -> n=3"), ("backward", "-dy -> dy"), ("forward", "x + self.n -> x - self.n"),
        ("forward", "x + self.n -> self.n"), ("forward", "x + self.n -> x")]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'layer_nrm'.*did you mean 'layer_norm'"):
        mutants(LAYER_NORM, "layer_nrm")
