"""OpenBLAS is told of AVX-512 only where it helps, only before NumPy is loaded, and never against the user."""

import subprocess
import sys

import pytest

from byhand import blas

AVX512 = ["fpu", "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"]


@pytest.fixture(autouse=True)
def _openblas(monkeypatch):
    monkeypatch.setattr(blas, "numpy_uses_openblas", lambda: True)


def test_it_is_set_and_said():
    environ = {}
    assert "OPENBLAS_CORETYPE=SkylakeX" in blas.tune(environ, flags=AVX512, loaded=False)
    assert environ == {"OPENBLAS_CORETYPE": "SkylakeX"}


@pytest.mark.parametrize("missing", AVX512[1:])
def test_a_cpu_without_all_of_it_is_left_alone(missing):
    environ = {}
    assert blas.tune(environ, flags=set(AVX512) - {missing}, loaded=False) is None
    assert environ == {}


def test_the_users_choice_a_loaded_numpy_and_another_blas_are_left_alone(monkeypatch):
    environ = {"OPENBLAS_CORETYPE": "Haswell"}
    assert blas.tune(environ, flags=AVX512, loaded=False) is None and environ == {"OPENBLAS_CORETYPE": "Haswell"}
    environ = {}
    assert blas.tune(environ, flags=AVX512, loaded=True) is None
    assert blas.tune(environ, flags=AVX512) is None          # NumPy is loaded in a test run
    monkeypatch.setattr(blas, "numpy_uses_openblas", lambda: False)
    assert blas.tune(environ, flags=AVX512, loaded=False) is None and environ == {}


def test_flags_are_read_from_cpuinfo(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512f avx512bw\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert blas.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx512f", "avx512bw"}
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert blas.cpu_flags(tmp_path / "arm") == frozenset() == blas.cpu_flags(tmp_path / "missing")


def test_looking_does_not_import_numpy():
    code = "import sys; from byhand import blas; blas.tune({}, flags=()); blas.numpy_uses_openblas(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_library_never_touches_the_environment():
    code = "import os, sys; before = dict(os.environ); import numpy_impl.ops.layer_norm; sys.exit(before != dict(os.environ))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_are_chosen_before_numpy_is_loaded_or_not_at_all():
    environ = {}
    blas.threads(3, environ)
    assert environ == {}
    code = "import os; from byhand import blas; blas.threads(3); print(os.environ['OMP_NUM_THREADS'], os.environ['OPENBLAS_NUM_THREADS'])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "3 3\n"
