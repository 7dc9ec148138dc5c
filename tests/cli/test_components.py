"""`sd4match components` and `doctor` of this package and of installed plugins, whole and broken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sd4match import registry
from sd4match.config import all_protocols

PLUGIN = """
from typing import Literal
import torch
from torch import nn
from sd4match.config import get_protocol
from sd4match.matching import NearestNeighbor
from sd4match.prompting import Prompt, PromptEmbedding, encode_token_vectors
from sd4match.registry import register, register_prompt

STRICT = get_protocol("sd4match").derive(name="strict", inclusive=False)

@register
class Nearest(NearestNeighbor):
    \"\"\"Nearest neighbors by another name.\"\"\"
    kind: Literal["by-another-name"] = "by-another-name"
    strength: float = 0.5

@register_prompt("two-vectors")
class TwoVectors(Prompt):
    \"\"\"Two vectors.\"\"\"
    scope = "dataset"

    def __init__(self, *, backbone, start: float = 0.0) -> None:
        super().__init__()
        self.text_encoder = backbone.text_encoder
        self.vectors = nn.Parameter(torch.full((2, backbone.text_encoder.width), start))

    def forward(self, images, partners=None):
        return PromptEmbedding(encode_token_vectors(self.text_encoder, self.vectors[None]))
"""
ENTRY_POINTS = {
    "whole": "[sd4match.matchers]\nnearest = whole_plugin:Nearest\n[sd4match.prompts]\ntwo = whole_plugin:TwoVectors\n"
    "[sd4match.protocols]\nstrict = whole_plugin:STRICT\n",
    "broken": "[sd4match.matchers]\nworst = broken_plugin:Thing\n[sd4match.losses]\nworst = broken_plugin:Loss\n",
}
PROGRAM = """
import sys, warnings
from sd4match.__main__ import main
for command in sys.argv[1:]:
    print("#", command, flush=True)
    sys.argv = ["sd4match", *command.split()]
    try:
        main()
    except SystemExit as end:
        print("exit", end.code, flush=True)
"""


def install(folder, name, code):
    """Write a distribution as an installer leaves it: a module and its metadata."""
    (folder / f"{name}_plugin.py").write_text(code)
    metadata = folder / f"{name}_plugin-1.2.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS[name])


def run_with(folder, *commands):
    """Run command lines in one process that finds what is installed in a folder; return output and warnings."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM, *commands], env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in made.stderr, made.stderr
    return dict(part.split("\n", 1) for part in made.stdout.split("# ")[1:]), made.stderr


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    install(folder, "whole", PLUGIN)
    install(folder, "broken", "import no_such_module")
    return folder


def test_installed_plugins_are_listed_and_broken_ones_break_nothing(plugins):
    listed = (
        "components matcher --json",
        "components prompt",
        "doctor",
        "components loss",
        "components protocol --json",
    )
    out, warned = run_with(plugins, *listed)
    rows = {row["kind"]: row for row in json.loads(out["components matcher --json"].rpartition("exit")[0])}
    assert rows["by-another-name"] == {
        "sort": "matcher", "kind": "by-another-name", "package": "whole-plugin 1.2",
        "summary": "Nearest neighbors by another name.", "fields": {"temperature": "0.04", "strength": "0.5"},
    }  # fmt: skip
    assert rows["nearest_neighbor"]["package"].startswith("sd4match ")
    assert "two-vectors" in out["components prompt"]
    doctor = " ".join(out["doctor"].split())  # its columns are as wide as the terminal
    assert "whole-plugin 1.2 matcher by-another-name, prompt two-vectors" in doctor
    reason = (
        "plugin 'worst' (broken_plugin:Thing) of package broken-plugin is left out of the matcher kinds: ModuleNotFound"
    )
    assert reason in doctor
    assert reason.replace("Thing", "Loss").replace("matcher", "loss") in out["components loss"]
    assert warned.count("broken_plugin:Thing") == 1
    protocols = {row["kind"]: row for row in json.loads(out["components protocol --json"].rpartition("exit")[0])}
    assert protocols["strict"]["package"] == "whole-plugin 1.2"
    assert (protocols["strict"]["fields"]["inclusive"], protocols["dift"]["fields"]["side"]) == ("false", "null")


def test_every_sort_and_kind_has_a_row(run):
    code, screen, _ = run("components", "--json")
    rows = json.loads(screen)
    assert code == 0
    assert {(row["sort"].replace("-", " "), row["kind"]) for row in rows} == {
        *((each.sort, kind) for each in registry.REGISTRIES for kind in each.kinds()),
        *(("protocol", name) for name in all_protocols()),
    }
    assert all(row["summary"].endswith(".") for row in rows), [row for row in rows if not row["summary"].endswith(".")]
    (single,) = (row for row in rows if row["kind"] == "single")
    assert single["fields"]["num_tokens"] == "75"
    code, _, error = run("components", "promt")
    assert (code, "did you mean 'prompt'?" in error) == (2, True)


@pytest.mark.slow
def test_a_prompt_file_names_the_package_that_is_missing(plugins, tmp_path, run):
    train = (
        "train --preset single --set prompt={kind:two-vectors} --set matcher=by-another-name --set data.pairs=2 "
        "--set data.photos_per_category=2 --set training.validation_pairs=1 --steps 1"
    ).replace(":", ": ")
    output = tmp_path / "run"
    program = PROGRAM.replace("command.split()", "command.split(chr(9))")
    arguments = "\t".join([*train.replace("{kind: two-vectors}", "two-vectors").split(), "--output", str(output)])
    environment = {**os.environ, "PYTHONPATH": str(plugins)}
    subprocess.run([sys.executable, "-c", program, arguments], env=environment, check=True, capture_output=True)
    code, _, error = run("prompts", "inspect", output / "prompt.safetensors")
    assert (code, error.count("\n")) == (2, 1)
    assert (
        "needs components of 'whole-plugin 1.2': install it to read the file. unknown prompt kind 'two-vectors'"
        in error
    )
    code, _, error = run("train", "--resume", output)
    assert (code, error.count("\n")) == (2, 1)
    assert "whole-plugin 1.2" in error
