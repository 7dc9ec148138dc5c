"""From bare photos to a trained prompt and a measured PCK, as docs/how-to/own-photos.md says."""

from __future__ import annotations

import json

import pytest

from helpers.command_line import sets
from sd4match import SemanticMatcher
from sd4match.app.annotation_session import AnnotationSession, Guesser
from sd4match.app.annotation_store import AnnotationStore
from sd4match.data import SyntheticConfig


def annotate(folder, truth, matcher):
    """Mark every point as a user does: click it on the left, and accept, correct or refuse each guess."""
    with AnnotationStore.open(folder) as store:
        session = AnnotationSession(store, Guesser(matcher))
        accepted = 0
        for number in range(len(store.pairs)):
            if number:
                session.move(1)
            source, target = (truth[photo] for photo in session.pair)
            if number == 0:
                for point, is_visible in zip(source.points, source.visible, strict=True):
                    if is_visible:
                        session.click(0, tuple(point))
                        session.hide()
                session.swap()
                session.swap()
            for index, row in enumerate(session.rows):
                original = [k for k, visible in enumerate(source.visible) if visible][index]
                session.select(row.name)
                place = target.points[original]
                guess = session.guess
                if not target.visible[original]:
                    session.hide()
                elif guess is not None and abs(place - guess.point).max() < 3:
                    session.accept()
                    accepted += 1
                else:
                    session.click(1, tuple(place))
        session.share_out()
        return accepted


@pytest.mark.slow
def test_from_bare_photos_to_a_trained_prompt_and_a_report(run, tmp_path):
    photos = tmp_path / "photos"
    (photos / "face").mkdir(parents=True)
    drawings = SyntheticConfig(split="test", photos_per_category=10).build()
    truth = {f"face/{n}.png": drawings.scene(f"face-{n}") for n in range(10)}
    for n in range(10):
        drawings.photo(f"face-{n}").to_image().save(photos / "face" / f"{n}.png")
    accepted = annotate(photos, truth, SemanticMatcher.from_preset("mini-empty", device="cpu"))
    assert accepted > 0
    annotated = json.loads((photos / "points.json").read_text())["photos"]
    assert [one["split"] for one in annotated.values()].count("train") == 5
    for name, one in annotated.items():
        visible = sum(point is not None for point in one["points"].values())
        assert visible >= 1, name

    code, screen, error = run("data", "check", "folder", photos)
    assert code == 0, screen + error
    small = sets("training.batch_size=2", "training.validate_every=3", "evaluation.bootstrap_samples=50")
    own = tmp_path / "own"
    data = ["--dataset", "folder", "--root", photos]
    code, screen, error = run("train", *data, "--preset", "single", "--steps", 3, "--seed", 0, "--output", own, *small)
    assert code == 0, error
    code, screen, error = run("evaluate", *data, "--prompt", own / "prompt.safetensors", "--against", "empty",
                              "--output", tmp_path / "report", *small)  # fmt: skip
    assert code == 0, error
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    rows = report["results"]
    assert len(rows) == 2
    for row in rows:
        assert row["pairs"] == 6
        assert 0 < row["pck"]["image"]["0.1"] <= 1
