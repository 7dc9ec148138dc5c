"""Programs that follow the documents pass mypy and pyright, as users check theirs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

WRONG = """
from sd4match.matching import KernelSoftArgmax
from sd4match.prompting import SinglePromptConfig

KernelSoftArgmax(sigmaa=3.0)
SinglePromptConfig(num_tokens="many")
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Every Python block of the documents as a file."""
    folder = tmp_path_factory.mktemp("programs")
    for document in DOCUMENTS:
        blocks = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
        for number, block in enumerate(blocks):
            (folder / f"{document.stem.lower()}_{number}.py").write_text(block, encoding="utf-8")
    return folder


def check(tool, folder):
    """Run a type checker; (exit code, what it says)."""
    command = {
        "mypy": [sys.executable, "-m", "mypy", "--strict-optional", "--no-incremental", "--config-file=", str(folder)],
        "pyright": [str(Path(sys.executable).parent / "pyright"), "--pythonpath", sys.executable, str(folder)],
    }[tool]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_programs_of_the_documents_are_well_typed(tool, programs):
    code, says = check(tool, programs)
    assert code == 0, says


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_wrong_arguments_are_found(tool, tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    code, says = check(tool, tmp_path)
    assert code == 1, says
    assert "sigmaa" in says
    assert "num_tokens" in says
