"""The README's and the docs' Python runs."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.loaded_once import loaded_once  # noqa: F401 - a fixture
from sd4match import registry as registries
from sd4match.data import SyntheticConfig

ROOT = Path(__file__).parents[1]
BLOCKS = [
    pytest.param(block, id=f"{file.relative_to(ROOT).with_suffix('')}-{number}")
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.usefixtures("loaded_once")
def test_block_runs(block, tmp_path, monkeypatch, other_model):
    """In a folder with two photos, and with a small random model under the name of Stable Diffusion 2.1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SD4MATCH_MODELS", str(other_model.parent))
    if not (other_model.parent / "sd2-1").exists():
        (other_model.parent / "sd2-1").symlink_to(other_model)
    data = SyntheticConfig(split="test").build()
    for number, name in enumerate(("a.png", "b.png")):
        data.photo(f"fish-{number}").to_image().resize((320, 240)).save(name)
    with ExitStack() as stack:  # what a document registers is not there for other tests
        for registry in vars(registries).values():
            if isinstance(registry, registries.Registry):
                stack.enter_context(registry.temporarily())
        exec(compile(block, "block", "exec", dont_inherit=True), {"__name__": "block"})


def test_links_lead_somewhere():
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / link).exists(), (file.name, link)
