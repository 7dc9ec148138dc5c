"""Programs that follow the documents pass mypy and pyright, as users check theirs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from sd4match.matching.functional.cross_entropy import mean_over_pairs

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

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
            name = re.sub(r"\W+", "_", str(document.relative_to(ROOT).with_suffix("")).lower())
            (folder / f"{name}_{number}.py").write_text(block, encoding="utf-8")
    return folder


def check(tool, folder):
    """Run a type checker; (exit code, what it says)."""
    command = {
        "mypy": [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", str(folder)],
        "pyright": [str(Path(sys.executable).parent / "pyright"), "--pythonpath", sys.executable, str(folder)],
    }[tool]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return done.returncode, done.stdout + done.stderr


def test_shapes_in_signatures_are_checked_in_these_tests():
    per_point, visible = torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(TypeCheckError, match="visible"):
        mean_over_pairs(per_point, visible)


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


RIGHT = """
from typing import assert_type

from torch import Tensor

from sd4match import registry
from sd4match.backbones import Backbone, BackboneConfig, FeatureMap
from sd4match.data import PairDataset
from sd4match.matching import Correlation, Keypoints, Loss, Matcher, Matches, MatchingLoss, PairTransform
from sd4match.prompting import Prompt, PromptConfig

assert_type(registry.matchers.build("mutual"), Matcher)
assert_type(registry.losses.build("gaussian_cross_entropy"), MatchingLoss)
assert_type(registry.prompts.parse("empty"), PromptConfig)
assert_type(registry.backbones.config_class("hog"), type[BackboneConfig])


def build(backbone: Backbone) -> tuple[Prompt, PairDataset]:
    return registry.prompts.build("empty", backbone=backbone), registry.datasets.build("synthetic")


class Mine(Matcher):  # parameters may have any names: interfaces are called by position
    def __call__(self, given: Correlation) -> Matches:
        raise NotImplementedError


class Transform(PairTransform):
    def __call__(self, a: FeatureMap, b: FeatureMap) -> tuple[FeatureMap, FeatureMap]:
        return a, b


class Own(Loss):
    def __call__(self, seen: Correlation, truth: Keypoints) -> Tensor:
        return seen.values.mean()
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_registries_have_the_types_of_their_components(tool, tmp_path):
    (tmp_path / "right.py").write_text(RIGHT, encoding="utf-8")
    code, says = check(tool, tmp_path)
    assert code == 0, says
