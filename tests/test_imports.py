"""Who may import whom, and what the NumPy side does not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ("byhand.configs.", "byhand.noise", "byhand.checks")
ALLOWED = {"numpy_impl": {"numpy", "numpy_impl"}, "torch_impl": {"torch", "torch_impl", "flash_attn", "bitsandbytes"}}
FILES = [path.relative_to(ROOT) for side in ALLOWED for path in sorted((ROOT / side).rglob("*.py"))]
INITS = [path for path in FILES if path.name == "__init__.py"]
BARE = """
import sys
sys.modules["torch"] = None
for name in {names}:
    __import__(name)
print(*{{name.split(".")[0] for name in sys.modules}})
"""


def imported(path):
    """(line, module) of every import of a file."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "byhand":     # from byhand import checks
            yield from ((node.lineno, f"byhand.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_what_its_side_may(path):
    allowed = ALLOWED[path.parts[0]] | set(sys.stdlib_module_names)
    assert [(line, name) for line, name in imported(path) if not name.startswith(SHARED) and name.split(".")[0] not in allowed] == []


@pytest.mark.parametrize("path", INITS, ids=str)
def test_init_files_are_empty(path):
    assert (ROOT / path).read_text(encoding="utf-8") == ""


def test_the_numpy_side_works_where_torch_is_absent():
    names = [".".join(path.with_suffix("").parts) for path in FILES if path.parts[0] == "numpy_impl" and path not in INITS]
    done = subprocess.run([sys.executable, "-c", BARE.format(names=names)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(names) > 20
    assert not {"scipy", "matplotlib", "rich", "cyclopts", "parity", "hypothesis"} & set(done.stdout.split())
