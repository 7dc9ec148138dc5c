"""`sd4match new plugin`: names and folders; that what it writes works is a slow test of its own."""

from __future__ import annotations

import ast

import pytest


def test_a_skeleton_is_written_and_parses(run, tmp_path):
    code, screen, _ = run("new", "plugin", "my-parts", "--output", tmp_path / "my parts")
    assert (code, "Written" in screen, f"cd '{tmp_path}/my parts'" in screen) == (0, True, True)
    files = {str(path.relative_to(tmp_path / "my parts")) for path in (tmp_path / "my parts").rglob("*.*")}
    assert files == {
        "README.md", "experiment.yaml", "pyproject.toml", "src/my_parts/__init__.py", "src/my_parts/loss.py",
        "src/my_parts/matcher.py", "src/my_parts/prompt.py", "src/my_parts/py.typed", "tests/test_components.py",
    }  # fmt: skip
    for path in (tmp_path / "my parts").rglob("*.py"):
        ast.parse(path.read_text())
        assert "$" not in path.read_text()
    code, _, error = run("new", "plugin", "my-parts", "--output", tmp_path / "my parts")
    assert (code, "exists: give another --output" in error) == (2, True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My Parts", "NAME is that of a package"),
        ("-x", "NAME is that of a package"),
        ("../x", "NAME is that of a package"),
        ("sd4match", "gives no names of classes"),
        ("sd4match-3d", "gives no names of classes"),
        ("class", "gives no names of classes"),
        ("torch", "there is a module 'torch' already"),
        ("json", "there is a module 'json' already"),
    ],
)
def test_a_wrong_name_is_one_line(name, message, run, tmp_path):
    arguments = ["--output", tmp_path / "x", "--", name] if name.startswith("-") else [name, "--output", tmp_path / "x"]
    code, _, error = run("new", "plugin", *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error
    assert not (tmp_path / "x").exists()
