"""`sd4match prompts`, end to end on mini."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sd4match.cli.app import app
from sd4match.errors import InputError, NonFiniteError, PromptFileError, PromptMismatchError, SD4MatchError
from sd4match.prompting.captioner import ImplicitCaptioner
from sd4match.prompting.conditional import ConditionalPrompt
from sd4match.prompting.config import (
    ClassPromptConfig,
    ConditionalPromptConfig,
    ImplicitCaptionerConfig,
    SinglePromptConfig,
)
from sd4match.prompting.learned import ClassPrompt, SinglePrompt
from sd4match.prompting.serialization import save_prompt
from sd4match.testing import random_photo


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, SD4MatchError), result.exception
        raise result.exception
    return result


@pytest.fixture(scope="module")
def files(mini, tmp_path_factory):
    root = tmp_path_factory.mktemp("prompts")
    details = {"backbone": "mini", "layer": 1, "validation_pck@0.1": 0.25}
    made = {
        "single": SinglePrompt(SinglePromptConfig(num_tokens=5), backbone=mini),
        "hidden": SinglePrompt(SinglePromptConfig(space="hidden"), backbone=mini),
        "class": ClassPrompt(ClassPromptConfig(categories=("fish", "car"), num_tokens=5), backbone=mini),
        "cpm": ConditionalPrompt(ConditionalPromptConfig(image_encoder="backbone"), backbone=mini),
        "captioner": ImplicitCaptioner(ImplicitCaptionerConfig(image_encoder="backbone"), backbone=mini),
    }
    for name, prompt in made.items():
        save_prompt(prompt, root / f"{name}.safetensors", backbone=mini, details=details)
    for seed, name in enumerate(("a.png", "b.png")):
        random_photo((40, 60), seed=seed).to_image().save(root / name)
    return root


def test_inspect_prints_all_of_it(files):
    screen = run("prompts", "inspect", files / "class.safetensors").stdout
    for part in ("class", '"categories": ["fish", "car"]', "UNet 48-96-192", "validation_pck@0.1", "fingerprint",
                 '"token_embeddings.1": [5, 128]', "library version", "layer"):  # fmt: skip
        assert part in screen
    facts = json.loads(run("prompts", "inspect", files / "cpm.safetensors", "--json").stdout)
    assert facts["config"]["condition_on"] == "pair"
    assert facts["tensors"]["patch_linear.weight"] == [64, 64]


@pytest.mark.parametrize(
    ("name", "options", "rows"),
    [
        ("single", (), 2),
        ("single", ("--category", "fish"), 3),
        ("class", (), 3),
        ("class", ("--category", "fish"), 3),
        ("cpm", ("--pair", "a.png", "b.png"), 2),
        ("captioner", ("--pair", "a.png", "b.png"), 3),
    ],
)
def test_imagine_draws_a_labeled_grid(files, tmp_path, name, options, rows):
    options = [files / o if o.endswith(".png") else o for o in options]
    out = tmp_path / "sub" / "grid.png"
    run("prompts", "imagine", files / f"{name}.safetensors", *options, "--steps", 1, "--images", 2, "--output", out)
    with Image.open(out) as grid:
        seen = {"cpm": 2, "captioner": 1}.get(name, 0)
        title, labels = grid.height - rows * 166, grid.width - (2 + seen) * 166 - 6  # the text grows with the width
        assert 34 <= title <= 44
        assert 190 <= labels <= 270
        pixels = np.asarray(grid.convert("L"))
    assert pixels[:30, :180].min() < 100  # a title
    for row in range(rows):
        top = title + row * 166
        assert pixels[top : top + 160, :186].min() < 100  # a label
        drawn = pixels[top : top + 160, -160:-8]
        assert drawn.std() > 3


def test_the_same_prompt_draws_the_same_whatever_else_is_drawn(mini):
    from sd4match.prompting.text import EmptyPrompt
    from sd4match.structures.images import ImageBatch
    from sd4match.viz.imagine import load_painter, paint

    empty = EmptyPrompt(backbone=mini)(ImageBatch({}, (None,))).values[0]
    painter = load_painter("mini")
    one = paint(painter, empty, empty=empty, images=1, steps=2, seed=1)
    two = paint(painter, empty, empty=empty, images=2, steps=2, seed=1)
    assert np.abs(np.asarray(one[0]).astype(int) - np.asarray(two[0])).max() <= 2
    assert np.abs(np.asarray(two[0]).astype(int) - np.asarray(two[1])).max() > 10


def test_export_and_convert_write_files(files, tmp_path):
    out = tmp_path / "learned.safetensors"
    assert "load_textual_inversion" in run("prompts", "export", files / "single.safetensors", "--output", out).stdout
    pair = ("--pair", files / "a.png", files / "b.png")
    run(
        "prompts", "export", files / "cpm.safetensors", *pair, "--output", out, "--token", "<pair>"
    )  # an earlier export
    from safetensors.torch import load_file

    assert {name: tuple(value.shape) for name, value in load_file(out).items()} == {"<pair>": (75, 128)}


def test_mistakes_are_one_line(files, other_model, tmp_path):
    cases = [
        (("inspect", tmp_path / "none"), PromptFileError, "no such prompt file"),
        (("imagine", files / "cpm.safetensors"), InputError, "--pair PHOTO PHOTO"),
        (("imagine", files / "class.safetensors", "--category", "fsih"), InputError, "did you mean 'fish'"),
        (
            ("imagine", files / "single.safetensors", "--output", tmp_path / "x.txt"),
            InputError,
            "--output must be a .png",
        ),
        (("imagine", files / "single.safetensors", "--backbone", other_model), PromptMismatchError, "another backbone"),
        (("export", files / "class.safetensors"), InputError, "--category NAME"),
        (("export", files / "hidden.safetensors"), InputError, "cannot be exported"),
        (("export", files / "cpm.safetensors"), InputError, "--pair PHOTO PHOTO"),
        (("convert", tmp_path), PromptFileError, "does not tell the config"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            run("prompts", *arguments)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_match_and_evaluate_take_every_prompt(files, tmp_path):
    photos = (files / "a.png", files / "b.png")
    small = ("--set", "data.pairs=3", "--set", "data.photos_per_category=2", "--set", "evaluation.bootstrap_samples=20")
    for name in ("single", "hidden", "class", "cpm", "captioner"):
        prompt = ("--prompt", files / f"{name}.safetensors")
        run("match", *photos, *prompt, "--point", "10,10", "--category", "fish", "--output", tmp_path / name)
    run("evaluate", "--prompt", files / "cpm.safetensors", *small, "--output", tmp_path / "cpm-report")
    with pytest.raises(InputError, match="no prompt was learned for category"):
        run("evaluate", "--prompt", files / "class.safetensors", *small, "--output", tmp_path / "class-report")
    assert not (tmp_path / "class-report").exists()
    run("evaluate", "--prompt", files / "class.safetensors", "--fallback", "text", *small, "--output", tmp_path / "r")
    with pytest.raises(InputError, match="--fallback is for class prompts"):
        run("evaluate", "--prompt", files / "cpm.safetensors", "--fallback", "text", *small)


def contents(*folders):
    return {file: file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "Single_spair_sd2-1_TokenEmbeds75"
    folder.mkdir()
    torch.save({"spair": torch.zeros(1, 77, 1024)}, folder / "caption.pt")
    return folder


def test_no_command_writes_over_its_input_or_a_file_that_it_did_not_make(files, published, tmp_path):
    single, classes, photo = files / "single.safetensors", files / "class.safetensors", files / "a.png"
    text = tmp_path / "mine.txt"
    text.write_text("mine")
    (tmp_path / "mine.png").write_bytes(photo.read_bytes())
    pair = ("--pair", photo, files / "b.png")
    commands = {
        "is an input of this command, and would be lost": [
            ("convert", published, "--output", published / "caption.pt"),
            ("export", single, "--output", single),
            ("export", files / "cpm.safetensors", *pair, "--output", photo),
            ("imagine", files / "cpm.safetensors", *pair, "--output", photo),
        ],
        "exists and is no .* give another name": [
            ("convert", published, "--output", single), ("convert", published, "--output", text),
            ("export", single, "--output", classes), ("export", single, "--output", text),
            ("imagine", single, "--output", tmp_path / "mine.png"),
        ],
        "is not a file: give the name": [
            ("convert", published, "--output", tmp_path), ("export", single, "--output", tmp_path),
        ],
        "--output is empty: give a value": [
            ("convert", published, "--output", ""), ("export", single, "--output", ""),
            ("imagine", single, "--output", " "),
        ],
        "is empty: give a (path|value)": [("inspect", ""), ("convert", ""), ("export", ""), ("imagine", "")],
        "a user that does not exist": [("export", single, "--output", "~nobody-here/x"), ("inspect", "~nobody-here/x")],
        "--guidance must be from 1 to 100": [("imagine", single, "--guidance", "101", "--output", tmp_path / "x.png")],
        "try '<cat>'": [("export", single, "--output", tmp_path / "x.st", "--token", "<Cat>")],
        "has no words": [
            (command, classes, "--category", "(G)", "--output", tmp_path / name)
            for command, name in (("export", "x.st"), ("imagine", "x.png"))
        ],
    }  # fmt: skip
    before = contents(files, tmp_path)
    for message, group in commands.items():
        for arguments in group:
            with pytest.raises(SD4MatchError, match=message):
                run("prompts", *arguments)
    assert contents(files, tmp_path) == before


def test_results_of_the_same_command_are_replaced(files, published, tmp_path):
    commands = [
        ("convert", published, "--output", tmp_path / "converted.safetensors"),
        ("export", files / "single.safetensors", "--output", tmp_path / "exported.safetensors"),
        *(("imagine", files / "single.safetensors", "--steps", 1, "--images", 1, "--output", tmp_path / name)
          for name in ("drawn.png", "drawn.jpg")),
    ]  # fmt: skip
    for command in commands:
        run("prompts", *command)
        with (tmp_path / command[-1]).open("rb") as old:  # stays as it was while it is replaced
            content = old.read()
            run("prompts", *command)
            old.seek(0)
            assert old.read() == content
        assert (tmp_path / command[-1]).read_bytes() == content


def test_a_picture_that_cannot_be_written_leaves_nothing(files, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*file/x\.png"):
        run("prompts", "imagine", files / "single.safetensors", "--steps", 1, "--images", 1,
            "--output", tmp_path / "file" / "x.png")  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_inspect_prints_no_control_characters(mini, tmp_path):
    prompt = SinglePrompt(SinglePromptConfig(num_tokens=5), backbone=mini)
    details = {"note": "\x1b[2J", "lone": "\ud800", "kind": "other", "a\x07b": 1}
    file = save_prompt(prompt, tmp_path / "p.safetensors", backbone=mini, details=details)
    screen = run("prompts", "inspect", file).stdout
    assert r"\u001b[2J" in screen
    assert r"\ud800" in screen
    assert not {"\x1b", "\x07"} & set(screen)
    assert json.loads(run("prompts", "inspect", file, "--json").stdout)["kind"] == "single"


def test_pictures_that_are_not_finite_are_refused(mini):
    from sd4match.prompting.text import EmptyPrompt
    from sd4match.structures.images import ImageBatch
    from sd4match.viz.imagine import load_painter, paint

    empty = EmptyPrompt(backbone=mini)(ImageBatch({}, (None,))).values[0]
    painter = load_painter("mini")
    with pytest.raises(NonFiniteError, match="the generated pictures are not finite"):
        paint(painter, empty * float("nan"), empty=empty, images=1, steps=1)
