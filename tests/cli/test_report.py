"""`sd4match report` and `evaluate --draw`: from an evaluation to a page and pictures, and what they never replace."""

import json

import pytest
from PIL import Image

from helpers.command_line import sets

FAKE = [
    "--preset", "mini-empty",
    *sets('data={"kind": "fake"}', 'backbone={"kind": "fake"}', "evaluation.bootstrap_samples=20"),
]  # fmt: skip


@pytest.fixture
def no_plots(monkeypatch):
    """Leave out the plots of pages, which take longer than all the rest."""
    monkeypatch.setattr("sd4match.evaluation.page._PLOTS", {})
    for name in ("plot_report_bars", "plot_report_over_alpha"):
        monkeypatch.setattr(f"sd4match.evaluation.page.{name}", lambda report: [])


@pytest.fixture
def evaluated(run, tmp_path):
    code, _, error = run("evaluate", *FAKE, "--limit", 5, "--output", tmp_path / "run")
    assert code == 0, error
    return tmp_path / "run"


def test_a_page_of_an_evaluation_has_its_pairs_and_replaces_only_a_page(run, evaluated, tmp_path, no_plots):
    before = {file.name: file.read_bytes() for file in evaluated.iterdir()}
    code, screen, error = run("report", evaluated, "--pairs", 1, "--device", "cpu")
    assert code == 0, error
    assert screen == f"Written: {evaluated / 'report.html'}\n"
    page = (evaluated / "report.html").read_text(encoding="utf-8")
    assert page.count('class="pair"') == 2
    assert all((evaluated / name).read_bytes() == content for name, content in before.items())
    assert {file.name for file in evaluated.iterdir()} == {*before, "report.html"}
    assert run("report", evaluated / "report.json", "--pairs", 0)[0] == 0
    assert "No pictures of pairs were asked for" in (evaluated / "report.html").read_text(encoding="utf-8")
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    for file in (mine, evaluated / "report.json"):
        content = file.read_bytes()
        code, _, error = run("report", evaluated, "--output", file)
        assert (code, error.count("\n")) == (2, 1)
        assert "--output" in error
        assert file.read_bytes() == content


def test_a_page_is_written_without_what_is_gone_and_says_so(run, evaluated, no_plots):
    file = evaluated / "report.json"
    values = json.loads(file.read_text())
    values["prompt_file"] = "gone/prompt.safetensors"
    file.write_text(json.dumps(values))
    code, screen, error = run("report", evaluated)
    assert code == 0
    assert "The page has no pictures of pairs: no such prompt file: gone/prompt.safetensors" in error
    assert "The page has no pictures of pairs: no such prompt file: gone" in (evaluated / "report.html").read_text(
        encoding="utf-8"
    )
    assert "Written" in screen


def test_mistakes_are_one_line(run, evaluated, tmp_path):
    for arguments, message in (
        ((tmp_path / "none",), "report"),
        ((evaluated, "--row", "nothing"), "no row 'nothing'"),
        ((evaluated, "--device", "tpu"), "--device"),
        ((evaluated, "--pairs", 101), "'--pairs'"),
    ):
        code, _, error = run("report", *arguments)
        assert (code, error.count("\n")) == (2, 1), error
        assert message in error
    assert not (evaluated / "report.html").exists()


def test_pictures_stand_beside_the_report_and_replace_no_others(run, tmp_path, monkeypatch):
    monkeypatch.setattr("sd4match.evaluation.drawings.figure_to_image", lambda figure: Image.new("RGB", (1, 1)))
    out = tmp_path / "run"
    code, screen, error = run(
        "evaluate", *FAKE, "--limit", 2, "--draw", "alpha", "--draw", "categories", "--draw", "pairs", "--output", out
    )
    assert code == 0, error
    for name in ("alpha", "categories", "pairs"):
        assert f"report-{name}.png" in screen
        assert (out / f"report-{name}.png").read_bytes()[:4] == b"\x89PNG"
    other = tmp_path / "other"
    other.mkdir()
    (other / "report-alpha.png").write_bytes(b"mine")
    code, _, error = run("evaluate", *FAKE, "--limit", 2, "--draw", "alpha", "--output", other)
    assert code == 2
    assert "report-alpha.png in it was not made by such a run" in error
    assert [file.name for file in other.iterdir()] == ["report-alpha.png"]
    code, _, error = run("evaluate", *FAKE, "--draw", "pears", "--output", tmp_path / "third")
    assert (code, "did you mean 'pairs'" in error) == (2, True)
    assert not (tmp_path / "third").exists()


@pytest.mark.slow
def test_pages_of_trainings_and_sweeps_show_their_own_prompts(run, tmp_path):
    small = sets("data.photos_per_category=2", "data.pairs=6", "prompt.num_tokens=4", "training.batch_size=2")
    assert run("train", "--steps", 2, "--output", tmp_path / "train", *small)[0] == 0
    sweep = ("sweep", "prompts", "--only", "text", "--only", "single", "--steps", 2, "--output", tmp_path / "sweep")
    assert run(*sweep, *sets("data.photos_per_category=2", "data.pairs=6"))[0] == 0
    for folder, row in (("train", "single"), ("sweep", "single"), ("sweep", "text")):
        code, _, error = run("report", tmp_path / folder, "--row", row, "--pairs", 1)
        assert code == 0, error
        page = (tmp_path / folder / "report.html").read_text(encoding="utf-8")
        assert page.count('class="pair"') == 2
        assert f"PCK@0.1 of {row}" in page
        assert "in this picture" not in page  # what is matched again is what was counted
        assert ("Loss and validation over the steps" in page) == (folder == "train")
