"""The public surface: what users may import, held by a file, and what the documents import."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SURFACE: dict[str, list[str]] = json.loads((Path(__file__).parent / "public_surface.json").read_text(encoding="utf-8"))
TENSOR_MODULES = ("sd4match.geometry", "sd4match.matching.pck")
"""Modules of tensor arithmetic, not packages."""
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
IMPORT = re.compile(
    r"^[ \t>]*(?:>>> |\.\.\. )?(?:from (sd4match[\w.]*) import ([^\n#(]+|\([^)]*\))|import (sd4match[\w.]*))", re.M
)


@pytest.mark.parametrize("module", SURFACE)
def test_the_surface_is_the_one_that_is_written_down(module):
    loaded = import_module(module)
    names = list(loaded.__all__)
    assert names == sorted(names) == SURFACE[module]
    for name in names:
        assert getattr(loaded, name) is not None
        assert name in dir(loaded)
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        loaded.nothing_of_that_name  # noqa: B018


@pytest.mark.parametrize("module", SURFACE)
def test_public_functions_and_classes_have_docstrings(module):
    loaded = import_module(module)
    for name in SURFACE[module]:
        value = getattr(loaded, name)
        if callable(value) and not isinstance(value, dict) and getattr(value, "__module__", "").startswith("sd4match"):
            assert value.__doc__, f"{module}.{name}"


def test_every_package_has_an_entry():
    packages = {f"sd4match.{file.parent.name}" for file in (ROOT / "src" / "sd4match").glob("*/__init__.py")} - {
        "sd4match.structures",
        "sd4match.interfaces",
        "sd4match.io",
        "sd4match.cli",
    }
    modules = {"sd4match", "sd4match.errors", "sd4match.geometry", "sd4match.registry"}
    functional = {"sd4match.matching.functional", "sd4match.matching.pck"}
    assert set(SURFACE) == packages | modules | functional


@pytest.mark.parametrize("module", [name for name in SURFACE if name not in TENSOR_MODULES])
def test_importing_loads_no_torch(module):
    heavy = "{'torch', 'diffusers', 'transformers', 'hypothesis'}"
    code = f"import sys, {module}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def imported(text):
    """Names that a text imports from sd4match, as (module, name)."""
    for match in IMPORT.finditer(text):
        if match[3]:
            yield match[3], None
            continue
        names = re.sub(r"#[^\n]*", "", match[2]).strip("() \n").replace("\n", " ")
        for name in names.split(","):
            if name.strip():
                yield match[1], name.split(" as ")[0].strip()


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_documents_import_public_names_only(file):
    for module, name in imported(file.read_text(encoding="utf-8")):
        assert module in SURFACE, f"{module} is not public"
        known = name is None or name in SURFACE[module] or f"{module}.{name}" in SURFACE
        assert known, f"{module} has no public name {name!r}"


def test_the_plugin_of_the_tests_imports_public_names_only():
    tree = ast.parse((ROOT / "tests" / "helpers" / "plugin.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sd4match"):
            assert {alias.name for alias in node.names} <= set(SURFACE[node.module])
