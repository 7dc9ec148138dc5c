"""Configs of the prompts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.prompts import fake_backbone
from sd4match.registry import prompts

FIELDS = {
    "none": {},
    "empty": {},
    "text": {},
    "single": {"num_tokens": 3},
    "class": {"num_tokens": 3, "categories": ("cat", "car")},
    "cpm": {"image_encoder": "fake", "num_global_tokens": 2, "num_tokens": 3},
    "implicit_captioner": {"image_encoder": "fake"},
}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_built_prompt_has_its_config(kind):
    config = prompts.parse({"kind": kind, **FIELDS[kind]})
    prompt = config.build(backbone=fake_backbone())
    assert prompt.config is config
    assert config.needs_category == (prompt.scope == "category")


def test_configs_load_no_torch():
    code = (
        "import sys; from sd4match.prompting import PromptConfig, SinglePromptConfig; "
        "import sd4match.prompting.config; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_exposes_its_public_names():
    import sd4match.prompting

    assert all(getattr(sd4match.prompting, name) is not None for name in sd4match.prompting.__all__)
