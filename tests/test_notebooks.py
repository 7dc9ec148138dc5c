"""The notebooks of the documents run from top to bottom, and are kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def test_there_are_notebooks():
    assert sorted(file.name for file in FOLDER.glob("*.ipynb")) == ["two_photos.ipynb"]


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.name)
def test_a_notebook_runs_and_shows_pictures(file, tmp_path, monkeypatch):
    notebook = json.loads(file.read_text())
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    shell = InteractiveShell.instance()
    shell.display_formatter.active_types = shell.display_formatter.format_types  # as in a notebook
    shown = []
    for cell in code:
        ran = shell.run_cell("".join(cell["source"]))
        ran.raise_error()
        output, _ = shell.display_formatter.format(ran.result)
        shown += [output["text/plain"]] if "image/png" in output else []
    InteractiveShell.clear_instance()
    for kind in ("MatchResult(", "DenseMatch("):
        assert any(text.startswith(kind) for text in shown)
