"""The documents say what is true: code they quote, outputs they show, tables and links."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parity.cli import with_table
from parity.laws import LAWS
from parity.registry import components
from parity.report import component_table

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
QUOTED = re.findall(r"from \[`([\w/.]+)`\].*?\n```python\n(.*?)```", README, re.DOTALL)


def test_the_table_of_components_is_fresh():
    fresh = with_table(README, component_table(list(components().values())))
    assert fresh == README, "the README's table is stale; run: python -m parity table --write"


def test_the_readme_quotes_code():
    assert {Path(path).parts[0] for path, _ in QUOTED} == {"numpy_impl", "torch_impl"}


@pytest.mark.parametrize(("path", "code"), QUOTED, ids=[path for path, _ in QUOTED])
def test_quoted_code_stands_in_its_file(path, code):
    own = iter((ROOT / path).read_text(encoding="utf-8").splitlines())
    for line in code.splitlines():
        assert any(line == other for other in own), f"{path} no longer has, at this place, the line {line!r}"


def test_the_explanation_shown_is_the_one_given(tmp_path):
    mine = re.search(r"`mine.py`[^`]*```python\n(.*?)```", README, re.DOTALL)
    shown = re.search(r"\$ .venv/bin/python (-m parity check mine.py.*?)\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mine.py").write_text(mine[1], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *shown[1].split()], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1, done.stderr
    digits = re.compile(r"[\d.e+-]+")  # the last digits belong to the machine
    assert [digits.sub("", line) for line in done.stdout.splitlines()] == [digits.sub("", line) for line in shown[2].splitlines()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            file = document.parent / path if path else document
            assert file.exists(), f"{document.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}, target


def test_every_law_is_documented():
    page = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(LAWS)
