"""Which kernels NumPy's OpenBLAS runs on, and how many threads. The command line calls this before NumPy is imported, the library never.

OpenBLAS chooses its kernels when it is loaded, by the CPU's maker as much as by its abilities, and on some CPUs that have AVX-512 it
falls back to kernels of half the speed. One environment variable names the kernels instead.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable, MutableMapping
from pathlib import Path

VARIABLE, KERNELS = "OPENBLAS_CORETYPE", "SkylakeX"
_NEEDED = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})  # what the SkylakeX kernels are compiled for


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The abilities the kernel reports for the first CPU; empty where there is no such file (only Linux has it)."""
    try:
        with cpuinfo.open(errors="replace") as lines:
            return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())
    except OSError:
        return frozenset()


def numpy_uses_openblas() -> bool:
    """Whether the installed NumPy was built against OpenBLAS; read from its build record, so that NumPy is not imported."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        return False
    try:
        return "openblas" in (Path(spec.origin).parent / "__config__.py").read_text(errors="replace").lower()
    except OSError:
        return False


def threads(count: int, environ: MutableMapping[str, str] = os.environ) -> None:
    """Give NumPy and PyTorch this many threads, unless NumPy is loaded already: like the kernels, they are chosen then."""
    if "numpy" not in sys.modules:
        environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(count)))


def tune(environ: MutableMapping[str, str] = os.environ, *, flags: Iterable[str] | None = None, loaded: bool | None = None) -> str | None:
    """Choose OpenBLAS's AVX-512 kernels where the CPU has AVX-512 and the user has not chosen; return the line that says so, or None.

    `flags` and `loaded` (whether NumPy is imported already, too late to choose) are found out when they are not given.
    """
    loaded = "numpy" in sys.modules if loaded is None else loaded
    if environ.get(VARIABLE) or loaded or not _NEEDED <= frozenset(cpu_flags() if flags is None else flags) or not numpy_uses_openblas():
        return None
    environ[VARIABLE] = KERNELS
    return f"this CPU has AVX-512: {VARIABLE}={KERNELS} is set for this run (set it yourself to choose other kernels)"
