"""Examples below every help: there are some, they fit, they parse, and those that need no download work."""

from __future__ import annotations

import shlex

import pytest
import typer

from helpers.command_line import sets
from sd4match.cli.app import app
from sd4match.cli.examples import EXAMPLES, NOTES
from sd4match.prompting.config import SinglePromptConfig
from sd4match.prompting.learned import SinglePrompt
from sd4match.prompting.serialization import save_prompt
from sd4match.testing import random_photo

TREE = typer.main.get_command(app)
ALL = sorted({line for examples in EXAMPLES.values() for _, line in examples})


def nodes(command, path=()):
    """Yield every command and every group, with the words that call it."""
    yield " ".join(path), command
    for name, child in getattr(command, "commands", {}).items():
        yield from nodes(child, (*path, name))


def words(line):
    """Return the words of an example, without the program that it is piped into."""
    return shlex.split(line.replace("\\\n", "").partition(" | ")[0])


def test_every_command_and_group_has_examples_and_nothing_else_has():
    assert {path for path, _ in nodes(TREE)} == set(EXAMPLES)
    assert set(NOTES) <= set(EXAMPLES)
    for path, examples in EXAMPLES.items():
        assert examples, path
        for comment, line in examples:
            assert line.startswith(path.removesuffix(" fields")), line
            assert (comment[0].isupper(), comment.endswith(".")) == (True, False)


@pytest.mark.parametrize("path", sorted(EXAMPLES))
def test_help_ends_with_the_examples_line_by_line(run, path):
    code, screen, error = run(*path.split(), "--help")
    assert (code, error) == (0, "")
    _, _, shown = screen.partition("\nExamples:\n")
    for comment, line in EXAMPLES[path]:
        assert f"  # {comment}\n  sd4match {line}\n" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert all(f"\n{title}:\n" in shown for title in NOTES.get(path, ()))


@pytest.mark.parametrize("line", ALL)
def test_every_example_parses(line):
    command, left = TREE, words(line)
    context = command.make_context("sd4match", [], resilient_parsing=True)
    while (below := getattr(command, "commands", {})) and left:
        name = left.pop(0) if left[0] in below else "fields"  # `sweep FIELD=...` needs no name
        command = below[name]
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    command.make_context(context.info_name, left, parent=context.parent)  # raises for an option that does not exist


REAL = ("sd2-1", "SPair-71k", "asset/prompts")
"""What an example names if it needs a download."""
SMALL = sets("data.photos_per_category=2", "data.pairs=4", "evaluation.bootstrap_samples=20")
SMALL_TRAINING = [*SMALL, *sets("training.steps=2", "training.batch_size=2", "training.validation_pairs=2")]
SMALLER = {
    "evaluate": SMALL, "train": SMALL_TRAINING, "sweep prompts": SMALL_TRAINING,
    "sweep evaluation": SMALL, "sweep learning_rate": SMALL_TRAINING,
    "reproduce": ["--steps", "1", "--pairs", "4", "--seeds", "0", *sets("data.photos_per_category=2")],
}  # fmt: skip
"""Options that make the run of an example short; its own options are as they stand."""
SLOW = (
    "evaluate", "train", "sweep", "prompts imagine", "prompts export", "models check", "match", "extract", "doctor",
    "data make-synthetic", "reproduce all", "reproduce fig",
)  # fmt: skip
"""How examples begin that load a model, or write many drawings."""
RUNNABLE = [line for line in ALL if not any(name in line for name in REAL) and not line.startswith(("demo", "app"))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stand in a folder with what the examples name, as other examples would have left it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SD4MATCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "demo").mkdir()
    for number, name in enumerate(("source.png", "target.png")):
        random_photo((96, 96), seed=number).to_image().save(tmp_path / "demo" / name)
    return tmp_path


@pytest.fixture
def before(run, folder, request):
    """Run what an example relies on."""

    def prepare(line):
        baseline = ("evaluate", "--dataset", "synthetic", *SMALL, "--baseline")
        if "demo/single.safetensors" in line:
            mini = request.getfixturevalue("mini")
            prompt = SinglePrompt(SinglePromptConfig(num_tokens=3), backbone=mini)
            save_prompt(prompt, folder / "demo" / "single.safetensors", backbone=mini)
        if line.startswith(("compare demo", "report demo")):
            pytest.skip("needs the whole demo: tests/cli/test_demo.py")
        if line.startswith("compare"):
            for name in ("learned", "evaluate"):
                assert run(*baseline, "identity", "--output", f"runs/{name}")[0] == 0
        if "--resume" in line:
            small = [*SMALL_TRAINING, *sets("training.checkpoint_every=1", "training.schedule=constant")]
            assert run("train", "--output", "runs/single", *small)[0] == 0

    return prepare


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[pytest.mark.slow] * line.startswith(SLOW)) for line in RUNNABLE]
)
def test_every_example_that_needs_no_download_works(run, before, line):
    before(line)
    smaller = next((options for path, options in SMALLER.items() if line.startswith(path)), [])
    smaller = smaller if "--resume" not in line else []
    code, screen, error = run(*words(line), *smaller)
    assert (code, error.count("error")) == (0, 0), error
    assert screen


def test_the_examples_name_no_folder_twice(folder):
    """An example that writes into a folder of another kind of run would be refused."""
    outputs = {}
    for line in ALL:
        given = words(line)
        if "--output" in given:
            outputs.setdefault(given[given.index("--output") + 1], set()).add(given[0])
    assert all(len(commands) == 1 for commands in outputs.values()), outputs


def test_a_group_keeps_its_own_class_below_ours():
    from typer.core import TyperGroup

    from sd4match.cli.app import _with_examples
    from sd4match.cli.command import Group

    class Own(TyperGroup):
        def parse_args(self, ctx, args):
            return ["own"]

    both = _with_examples(Own)
    assert (both.parse_args, both.format_epilog) == (Own.parse_args, Group.format_epilog)
    assert _with_examples(typer.Typer().info.cls) is _with_examples(Group) is Group
