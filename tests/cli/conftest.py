"""The command line as a fixture."""

from __future__ import annotations

import sys
import warnings

import pytest

from helpers.loaded_once import loaded_once  # noqa: F401 - a fixture
from sd4match.__main__ import main
from sd4match.testing import random_photo


@pytest.fixture(autouse=True)
def commands_share_mini(request):
    """Load `mini` once for all commands of this process that need it, and nothing for those that do not."""
    if "sd4match.backbones.stable_diffusion" in sys.modules:
        request.getfixturevalue("loaded_once")


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command; (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sd4match", *map(str, arguments)])
        code = 0
        with warnings.catch_warnings():
            try:
                main()
            except SystemExit as leave:
                code = leave.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def photos(tmp_path):
    paths = []
    for number, size in enumerate([(60, 90), (80, 50)]):
        paths.append(tmp_path / f"photo-{number}.png")
        random_photo(size, seed=number).to_image().save(paths[-1])
    return paths
