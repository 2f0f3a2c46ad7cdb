"""`parity check` on readers' functions: right ones pass, and each kind of wrong one is explained."""

import json
import textwrap

import numpy as np
import pytest

from parity import teacher
from parity.cli import main

RIGHT = """
    import numpy as np

    def rms_norm(x, weight=None, *, eps=1e-6, unit_offset=False):
        scale = 1.0 if weight is None else weight + 1 if unit_offset else weight
        r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
        xhat = x * r

        def backward(dy):
            g = dy * scale
            dx = r * (g - xhat * (g * xhat).mean(-1, keepdims=True))
            return dx, None if weight is None else (dy * xhat).reshape(-1, x.shape[-1]).sum(0)

        return scale * xhat, backward
"""


def check(tmp_path, capsys, source, *options, function="rms_norm", against="ops.rms_norm"):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(source))
    code = main(["check", f"{file}:{function}", "--against", against, "--examples", "6", *options])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_a_right_function_passes(tmp_path, capsys):
    answer = tmp_path / "verdict.json"
    code, said = check(tmp_path, capsys, RIGHT, "--json", str(answer), "--seed", "1")
    verdict = json.loads(answer.read_text())
    assert verdict["laws"]["gradient"] == "passed", said
    assert verdict["component"] == "ops.rms_norm"
    assert verdict["passed"], verdict["explanation"]
    assert code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((".sum(0)", ".mean(0)"), "a mean that should be a sum"),
        (("dx = r * (g -", "dx = -r * (g -"), "a dropped minus"),
        ((") + eps)", "))"), "nearly right"),
        (("return dx, None", "return dx; None"), "backward should return 2 gradients"),
        (("xhat = x * r", "x *= 1; xhat = x * r"), "writes into an array it was given"),
        (("xhat = x * r", "raise KeyError('lost')"), "KeyError: 'lost'"),
        (("xhat = x * r", "import os; os._exit(3)"), "exit code 3"),
    ],
)
def test_each_fault_is_explained(tmp_path, capsys, change, words):
    source = RIGHT.replace(*change)
    code, said = check(tmp_path, capsys, source)
    assert code == 1
    assert words in said


def test_a_function_that_hangs_is_stopped(tmp_path, capsys):
    code, said = check(tmp_path, capsys, RIGHT.replace("xhat = x * r", "\n        while True: pass"), "--limit", "6")
    assert code == 1
    assert "did not finish within 6 s" in said


def test_unknown_component_suggests_the_nearest(tmp_path, capsys):
    code, said = check(tmp_path, capsys, RIGHT, against="ops.rms_nrm")
    assert code == 2
    assert "did you mean" in said
    assert "rms_norm" in said


def test_unknown_function_suggests_the_nearest(tmp_path, capsys):
    code, said = check(tmp_path, capsys, RIGHT, function="rms_nrm")
    assert code == 2
    assert "did you mean rms_norm?" in said


@pytest.mark.parametrize("target", ["mine.py", "nowhere.py:f", "mine:f"])
def test_wrong_targets_are_wrong_usage(target, capsys):
    assert main(["check", target, "--against", "ops.rms_norm"]) == 2


def test_a_plain_failure_is_told_before_one_at_size_0(tmp_path, capsys):
    source = RIGHT.replace("xhat = x * r", "xhat = x * r; x.max()").replace(".sum(0)", ".mean(0)")
    code, said = check(tmp_path, capsys, source)
    assert code == 1
    assert "a mean that should be a sum" in said


def hint(expected, got, **options):
    options.setdefault("gradient", True)
    return " ".join(teacher.hints(np.asarray(expected, dtype=float), np.asarray(got, dtype=float), **options))


def test_hints_name_what_is_usually_wrong():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 4))
    assert "transpose of the right answer" in hint(a, a.T)
    assert "missing (or needless) transpose" in hint(a[:, :3], a[:, :3].T)
    assert "off by one" in hint(np.tril(a), np.tril(a, -1))
    assert "summed over the axes" in hint(a[0], a)
    assert "a mean that should be a sum" in hint(a, a / 4)
    assert "a sum that should be a mean" in hint(a, a * 7, sizes=[7])
    assert "2.5 times" in hint(a, a * 2.5)
    assert "mean or the normaliser" in hint(a, a + a.mean(1, keepdims=True))
    assert "overflows" in hint(a, np.where(a > 0, np.inf, a))
    assert "edge case" in hint(a, np.concatenate([a[:3], a[3:] * rng.standard_normal((1, 4))]))
    assert "nearly right" in hint(a, a * (1 + 1e-4 * rng.standard_normal((4, 4))))
    assert "everything is 0" in hint(a, 0 * a)
    assert "None" in " ".join(teacher.hints(None, a, gradient=True))
