"""Documentation site: its hooks, the extension of its reference, and a build without a warning."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs the extra docs")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["site_hooks", "griffe_docstrings"])
def test_examples_hold(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """Links to pages and anchors, cross-references of docstrings, and the navigation."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "site" / "reference" / "matching" / "index.html").is_file()
