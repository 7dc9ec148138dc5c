"""Python of README and docs runs, tutorials run from their first block to their last, and links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.loaded_once import loaded_once  # noqa: F401 - a fixture
from sd4match import registry as registries
from sd4match.__main__ import main
from sd4match.data import SyntheticConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
SURFACE: dict[str, list[str]] = json.loads((Path(__file__).parent / "public_surface.json").read_text(encoding="utf-8"))
BLOCKS = [
    pytest.param(block, id=f"{file.relative_to(ROOT).with_suffix('')}-{number}")
    for file in (ROOT / "README.md", *sorted(set(DOCS.rglob("*.md")) - set(TUTORIALS)))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.fixture
def models(monkeypatch, other_model):
    """Put a small random model under the name of Stable Diffusion 2.1, and forget what a document registers."""
    monkeypatch.setenv("SD4MATCH_MODELS", str(other_model.parent))
    if not (other_model.parent / "sd2-1").exists():
        (other_model.parent / "sd2-1").symlink_to(other_model)
    with ExitStack() as stack:
        for registry in vars(registries).values():
            if isinstance(registry, registries.Registry):
                stack.enter_context(registry.temporarily())
        yield


def execute(block):
    """Run a Python block as a program of its own."""
    exec(compile(block, "block", "exec", dont_inherit=True), {"__name__": "block"})


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.usefixtures("loaded_once", "models")
def test_block_runs(block, tmp_path, monkeypatch):
    """In a folder with two photos."""
    monkeypatch.chdir(tmp_path)
    data = SyntheticConfig(split="test").build()
    for number, name in enumerate(("a.png", "b.png")):
        data.photo(f"fish-{number}").to_image().resize((320, 240)).save(name)
    execute(block)


def commands(block):
    """Return the command lines of a block of bash."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*", "", line).strip() for line in lines) if line]


def call(line, monkeypatch):
    """Run a command line: `sd4match` in this process, anything else in a shell; its exit code."""
    if not line.startswith("sd4match "):
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": scripts, "OMP_NUM_THREADS": "1"}
        return subprocess.run(line, shell=True, env=environment, check=False).returncode
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    try:
        main()
    except SystemExit as leave:
        return leave.code or 0
    return 0


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=[pytest.mark.slow] if "gpus" in file.stem else [])  # starts processes
        for file in TUTORIALS
    ],
)
@pytest.mark.usefixtures("loaded_once", "models")
def test_tutorial_runs(file, tmp_path, monkeypatch):
    """From an empty folder, block after block; `data check` may find something."""
    monkeypatch.chdir(tmp_path)
    for language, block in re.findall(r"```(python|bash)\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
        if language == "python":
            execute(block)
            continue
        for line in commands(block):
            assert call(line, monkeypatch) in ((0, 1) if " data check " in line else (0,)), line


def test_links_lead_somewhere():
    for file in (*ROOT.glob("*.md"), *DOCS.rglob("*.md")):
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / link).exists(), (file.name, link)


@pytest.mark.parametrize("module", SURFACE)
def test_every_public_name_is_in_the_reference(module):
    """One page for each module, with each of its names once."""
    page = DOCS / "reference" / f"{module.removeprefix('sd4match.')}.md"
    shown = re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    names = [f"{module}.{name}" for name in SURFACE[module]]
    assert sorted(shown) == sorted(name for name in names if name not in SURFACE)  # modules have pages of their own
    assert page.name in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for file in DOCS.rglob("*.md"):
        if not re.fullmatch(r"\d{4}-.*", file.stem):  # decisions, which their index lists
            assert f": {file.relative_to(DOCS)}\n" in navigation or f"- {file.relative_to(DOCS)}\n" in navigation, file
