"""Files of the project that no other test reads: workflows, templates, policies, metadata."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Source"]


def read(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def steps_of(workflow):
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


def make_targets(text):
    """Return the targets that `make` is called with, without variables."""
    calls = re.findall(r"^\s*make (.+)$", text, re.MULTILINE)
    return [word for call in calls for word in call.split() if "=" not in word]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflow_calls_targets_and_files_that_exist(file):
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for step in steps_of(read(file)):
        commands = step.get("run", "")
        assert set(make_targets(commands)) <= targets, commands
        for script in re.findall(r"^tools/\S+", commands, re.MULTILINE):
            assert (ROOT / script).is_file()


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_to_major_versions(file):
    uses = [step["uses"] for step in steps_of(read(file)) if "uses" in step]
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action), action


def test_ci_runs_what_the_script_runs_on_every_python():
    """`.ci/run` is continuous integration on one machine."""
    jobs = read(GITHUB / "workflows" / "ci.yml")["jobs"]
    commands = [step["run"] for step in jobs["test"]["steps"] if "run" in step]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert make_targets("\n".join(commands)) == make_targets(script) == ["lint", "test"]
    supported = [text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", text)]
    assert jobs["test"]["strategy"]["matrix"]["python"] == supported
    assert PROJECT["requires-python"] == f">={supported[0]}"


def test_a_release_is_tested_and_published_without_a_stored_secret():
    workflow = read(GITHUB / "workflows" / "release.yml")
    publish = workflow["jobs"]["publish"]
    assert publish["needs"] == ["test", "build"]
    assert publish["permissions"] == {"id-token": "write"}
    assert "secrets." not in (GITHUB / "workflows" / "release.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.name)
def test_issue_form_has_what_a_form_needs(file):
    form = read(file)
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in form["body"])


def test_every_file_names_the_address_of_the_project():
    """A move of the project is a replacement of one address."""
    files = [ROOT / "SECURITY.md", ROOT / "CODE_OF_CONDUCT.md", ROOT / "CITATION.cff", *GITHUB.rglob("*.yml")]
    for file in files:
        for found in re.findall(r"https://github\.com/[\w-]+/[\w-]+", file.read_text(encoding="utf-8")):
            assert found == ADDRESS, file
    assert read(ROOT / "CITATION.cff")["repository-code"] == ADDRESS


def test_pre_commit_runs_our_tools_and_the_usual_hooks():
    repositories = read(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"] for repository in repositories for hook in repository["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy", "lint-imports"} <= hooks
    assert {"trailing-whitespace", "end-of-file-fixer", "check-yaml", "check-toml", "check-merge-conflict"} <= hooks


def test_lowest_versions_are_the_bounds_of_the_project():
    def lowest(*options):
        done = subprocess.run(
            [sys.executable, ROOT / "tools" / "lowest.py", *options], capture_output=True, text=True, check=True
        )
        return dict(line.split("==") for line in done.stdout.split())

    versions = lowest()
    assert [f"{name}>={versions[name]}" for name in list(versions)[: len(PROJECT["dependencies"])]] == PROJECT[
        "dependencies"
    ]
    assert f"gradio>={versions['gradio']}" in PROJECT["optional-dependencies"]["app"]
    assert "pytest" not in versions
    assert lowest("--torch", "2.13.0") == versions | {"torch": "2.13.0"}


def test_documents_of_the_project_are_in_the_source_distribution():
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    included = hatch["build"]["targets"]["sdist"]["include"]
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "tests", "tools"):
        assert f"/{name}" in included
