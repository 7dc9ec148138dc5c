"""What a user does on the page, without a page: photos, points, matches, prompts and a training."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from sd4match.app import build_app
from sd4match.app.examples import example_pairs
from sd4match.app.learning import ClickedPairs, Training
from sd4match.app.marks import LONGEST_SHOWN, draw_marks, point_of_click, shown_size
from sd4match.app.matching import Matching, MatchSettings, models_here
from sd4match.app.session import MOST_POINTS, MOST_PROMPTS, SOURCE, TARGET, Session, find_prompts, label_of
from sd4match.config import ExperimentConfig, load_preset
from sd4match.errors import CheckpointError, ConfigError, InputError, PhotoError, PromptFileError, PromptMismatchError
from sd4match.prompting import read_prompt
from sd4match.prompting.serialization import write_prompt
from sd4match.structures.images import Photo
from sd4match.testing import random_photo

FAKE = MatchSettings("fake")
HINT = "Click a point in the left photo."
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def matching():
    fake = ExperimentConfig(backbone={"kind": "fake"}, loss={"kind": "gaussian_cross_entropy", "temperature": 0.15})
    return Matching({"fake": fake, "hog": load_preset("hog")}, device="cpu")


@pytest.fixture
def session(matching):
    session = Session(matching)
    session.set_photo(SOURCE, random_photo((60, 90), seed=0))
    session.set_photo(TARGET, random_photo((60, 90), seed=0))
    yield session
    session.close()


def click(photo, point):
    """Where a point of a photo is on the shown one."""
    return [(p + 0.5) * shown / side for p, shown, side in zip(point, shown_size(photo), photo.size[::-1], strict=True)]


def click_pairs(session, points):
    for point in points:
        for side in (SOURCE, TARGET):
            session.click_corresponding(side, click(session.photos[side], point))


@pytest.mark.parametrize("size", [(60, 90), (3000, 4000), (1, 1), (7, 2000), (1024, 1024)])
def test_a_click_means_the_pixel_below_it(size):
    photo = Photo(np.zeros((*size, 3), dtype=np.uint8))
    assert max(shown_size(photo)) == LONGEST_SHOWN
    height, width = size
    for point in ((0.0, 0.0), (width - 1.0, height - 1.0), (width // 3, height // 2)):
        assert point_of_click(photo, click(photo, point)) == pytest.approx(point)
    assert point_of_click(photo, (-5, 1e6)) == (0.0, height - 1.0)


def test_a_mark_lies_on_its_point_and_its_number_stays_in_the_picture():
    photo = Photo(np.zeros((300, 400, 3), dtype=np.uint8))
    picture = np.asarray(draw_marks(photo, [(1, (100.0, 50.0)), (2, (399.0, 0.0))]))
    x, y = (round(value) for value in click(photo, (100.0, 50.0)))
    assert tuple(picture[y, x]) == (0, 114, 178)  # the first color
    assert (picture[:60, -80:] == (213, 94, 0)).all(axis=-1).sum() > 1000  # the second number, left of its mark


def test_points_are_matched_and_undone(session):
    assert session.view([FAKE]).text == HINT
    session.add_point(click(session.photos[SOURCE], (45.0, 30.0)))
    view = session.view([FAKE])
    assert view.columns[0].heat is not None
    assert session.points == [pytest.approx((45.0, 30.0))]
    assert session.answers["empty prompt"].result.target_points[0] == pytest.approx([45, 30], abs=6)  # the same photo
    assert view.text.count("<tr>") == 2
    assert np.asarray(view.source).tobytes() != np.asarray(draw_marks(session.photos[SOURCE], ())).tobytes()
    session.undo_point()
    assert session.view([FAKE]).text == HINT
    session.set_grid(3)
    assert session.view([FAKE]).text.count("<tr>") == 10
    session.set_grid(0)
    assert session.points == []


def test_features_are_extracted_once_for_all_clicks(session, matching):
    backbone = matching.model("fake").backbone.backbone
    for x in (10.0, 20.0, 30.0):
        session.add_point((x, 20.0))
        session.view([FAKE])
    session.view([MatchSettings("fake", matcher="nearest_neighbor")])
    assert backbone.extracted == 1  # both photos are the same
    session.view([MatchSettings("fake", timestep=7)])
    assert backbone.extracted == 2


def test_a_new_photo_takes_its_points_along(session):
    session.add_point((5, 5))
    session.set_photo(TARGET, random_photo(seed=3))
    assert len(session.points) == 1
    session.set_photo(SOURCE, None)
    assert session.points == []
    view = session.view([FAKE])
    assert (view.source, view.text) == (None, "Choose the left photo.")
    with pytest.raises(InputError, match="choose the left photo first"):
        session.add_point((1, 1))
    with pytest.raises(InputError, match="choose the left photo first"):
        session.match_dense(FAKE)


def test_points_are_bounded(session):
    session.set_grid(8)
    assert len(session.points) == MOST_POINTS
    with pytest.raises(InputError, match="at most 64 points"):
        session.add_point((1, 1))


def test_a_click_on_another_photo_than_the_one_that_is_here_is_refused(session):
    before = session.photos[SOURCE].key
    session.check_shown(SOURCE, before)
    session.set_photo(SOURCE, random_photo((60, 90), seed=8))
    for shown in (before, "as it was uploaded", ""):
        with pytest.raises(InputError, match="still being read: click again"):
            session.check_shown(SOURCE, shown)
    session.set_photo(SOURCE, None)
    with pytest.raises(InputError, match="choose the left photo first"):
        session.check_shown(SOURCE, before)


def test_the_page_says_what_is_missing(session):
    session.set_photo(TARGET, None)
    assert session.view([FAKE]).text == "Choose the right photo."
    session.add_point((5, 5))
    assert session.view([FAKE]).text == "Choose the right photo: the points are matched in it."
    session.set_photo(SOURCE, None)
    assert session.view([FAKE]).text == "Choose two photos."


def test_points_that_cannot_be_matched_are_shown_and_older_matches_forgotten(session):
    session.set_grid(2)
    session.view([FAKE])
    session.undo_point()
    view = session.unmatched_view(2, reason="no <category>")
    assert view.text == '<p class="refused">⚠ Not matched: no &lt;category&gt;</p>'
    assert (len(view.columns), session.answers, session.warned) == (2, {}, "no <category>")
    marked = draw_marks(session.photos[SOURCE], enumerate(session.points, 1))
    assert (np.asarray(view.source) == np.asarray(marked)).all()
    assert len(session.points) == 3
    session.view([FAKE])
    assert (len(session.answers), session.warned) == (1, "")


def test_a_prompt_that_is_compared_with_itself_is_said_to_be_the_same(session):
    session.set_grid(2)
    view = session.view([FAKE, FAKE])
    assert view.text.startswith("<p>Both prompts are the same: choose another second one")
    assert len(view.columns) == 1


def test_two_prompts_are_compared_and_saved(session):
    settings = [FAKE, MatchSettings("fake", "text", category="cat")]
    session.set_grid(2)
    view = session.view(settings)
    assert len(view.columns) == 2
    assert "&quot;a photo of a cat&quot;" in view.text
    written, picture = session.save_results(FAKE)
    content = json.loads(written.read_text())
    assert len(content["matches"]) == 4
    assert content["prompt"] == "empty prompt"
    assert content["compared"][0]["prompt"] == '"a photo of a cat"'
    assert len(content["compared"][0]["target_points"]) == 4
    with Image.open(picture) as both:
        tall = both.height
    session.view(settings[:1])
    with Image.open(session.save_results(FAKE)[1]) as one:
        assert one.height < tall


def test_a_point_without_a_match_is_said_to_have_none(session):
    session.set_photo(TARGET, random_photo((60, 90), seed=5))
    session.set_grid(8)
    table = session.view([MatchSettings("fake", mutual=True)]).text
    result = session.answers["empty prompt"].result
    assert 0 < len(result) < 64
    assert table.count("no match") == 64 - len(result)


def test_what_cannot_be_matched_is_said_in_one_line(session):
    session.add_point((5, 5))
    for settings, message in (
        (MatchSettings("fake", "text"), "fill in Category"),
        (MatchSettings("nothing"), "no model 'nothing'"),
        (MatchSettings("fake", matcher="nothing"), "nothing"),
        (MatchSettings("fake", "text", category="cat", template="{x}"), "braces"),
        (MatchSettings("fake", timestep=1000), "timestep"),
    ):
        with pytest.raises((InputError, ConfigError), match=message):
            session.view([settings])
    with pytest.raises(InputError, match="there is nothing to save"):
        session.save_results(FAKE)
    with pytest.raises(InputError, match="not there any more"):
        session.prompt_of("nothing")


def test_a_backbone_without_prompts_ignores_the_choice(session):
    session.add_point((5, 5))
    assert session.view([MatchSettings("hog", "text")]).columns[0].heat is not None


def test_photos_are_read_as_viewers_show_them(session, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "turned.jpg": Image.new("RGB", (90, 60)), "gray.png": Image.new("L", (60, 90)),
        "clear.png": Image.new("RGBA", (60, 90)), "deep.png": Image.new("I;16", (60, 90)),
    }  # fmt: skip
    for name, picture in pictures.items():
        picture.save(tmp_path / name, **({"exif": exif} if name == "turned.jpg" else {}))
        session.open_photo(SOURCE, tmp_path / name, name)
        assert session.photos[SOURCE].size == (90, 60), name
        session.add_point(click(session.photos[SOURCE], (59.0, 89.0)))
        assert session.view([FAKE]).text.count("<tr>") == 2


def test_a_file_that_is_no_photo_is_named_as_the_user_calls_it_and_changes_nothing(session, tmp_path):
    before = session.photos[TARGET]
    (tmp_path / "9f3a.jpg").write_text("no photo")
    with pytest.raises(PhotoError, match=r"not a readable image: cat\.jpg") as error:
        session.open_photo(TARGET, tmp_path / "9f3a.jpg", "cat.jpg")
    assert str(tmp_path) not in str(error.value)
    assert session.photos[TARGET] is before


def test_corresponding_points_are_clicked_in_turn(session):
    with pytest.raises(InputError, match="left photo first"):
        session.click_corresponding(TARGET, (5, 5))
    session.click_corresponding(SOURCE, (5, 5))
    session.click_corresponding(SOURCE, (500, 300))
    session.click_corresponding(TARGET, (500, 300))
    assert [len(points) for points in session.clicked] == [1, 1]
    assert session.clicked[SOURCE] == session.clicked[TARGET]
    assert all(picture is not None for picture in session.corresponding_view())
    session.undo_corresponding()
    assert [len(points) for points in session.clicked] == [1, 0]
    with pytest.raises(InputError, match="point 1 has no partner"):
        next(session.train("fake", 2))
    session.undo_corresponding()
    with pytest.raises(InputError, match="click at least 3 points"):
        next(session.train("fake", 2))
    click_pairs(session, [(index, 10.0) for index in range(MOST_POINTS)])
    with pytest.raises(InputError, match="at most 64"):
        session.click_corresponding(SOURCE, (5, 5))
    session.clear_corresponding()
    assert session.clicked == [[], []]


def test_a_prompt_is_learned_and_used(session):
    click_pairs(session, [(10.0, 10.0), (70.0, 20.0), (40.0, 50.0)])
    *before, (last, name) = session.train("fake", 5)
    assert all(learned is None for _, learned in before)
    assert (len(last.losses), last.steps, name) == (5, 5, "learned 1")
    assert str(last).startswith("Done after 5 of 5 steps: of your own points")
    info, tensors = read_prompt(last.file)
    assert (info.config.kind, info.details["points"], info.details["step"]) == ("single", 3, 5)
    session.add_point((5, 5))
    view = session.view([MatchSettings("fake", session.prompt_of(name), name=name)])
    assert "learned 1" in view.text
    again = [name for _, name in session.train("fake", 5) if name]
    assert again == ["learned 2"]
    same = read_prompt(session.prompts["learned 2"])[1]
    assert all(same[key].equal(tensors[key]) for key in tensors)  # the same seed
    write_prompt(replace(info, architecture="another one"), tensors, last.file)
    with pytest.raises(PromptMismatchError, match="another one"):
        session.view([MatchSettings("fake", last.file)])


def test_the_values_of_the_last_step_are_kept_whatever_the_points_score(session):
    click_pairs(session, [(10.0, 10.0), (70.0, 20.0), (40.0, 50.0)])
    files = [list(session.train("fake", steps))[-1][0].file for steps in (1, 6)]
    first, last = (read_prompt(file)[1]["token_embeddings"] for file in files)
    assert not first.equal(last)


def test_a_training_is_stopped_and_others_match_meanwhile(session, matching):
    click_pairs(session, [(10.0, 10.0), (70.0, 20.0), (40.0, 50.0)])
    other = Session(matching)
    for side in (SOURCE, TARGET):
        other.set_photo(side, random_photo(seed=9))
    other.set_grid(2)
    running = session.train("fake", 1000)
    next(running)
    with pytest.raises(InputError, match="a training is running already"):
        next(session.train("fake", 1))
    thread = Thread(target=lambda: other.view([FAKE]))
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert len(other.answers) == 1
    session.stop_training()
    *_, (last, name) = running
    assert 0 < len(last.losses) < 1000
    assert len(last.pck) == 2
    assert "of your own points" in str(last)
    assert name == "learned 1"
    assert (session.training, other.prompts) == (None, {})


def test_a_training_waits_for_that_of_another_page_and_can_be_given_up(session, matching, monkeypatch):
    monkeypatch.setattr("sd4match.app.learning._SECONDS_BETWEEN_REPORTS", 0.02)
    other = Session(matching)
    for side in (SOURCE, TARGET):
        other.set_photo(side, random_photo(seed=9))
    for one in (session, other):
        click_pairs(one, [(10.0, 10.0), (70.0, 20.0), (40.0, 50.0)])
    running, waiting = session.train("fake", 1000), other.train("fake", 1)
    next(running)
    state, name = next(waiting)
    assert (state.waits, name) == (True, None)
    assert str(state) == "Waits until another page's training has ended; Stop gives it up."
    other.stop_training()
    with pytest.raises(InputError, match="stopped before its first step"):
        list(waiting)
    assert other.training is None
    waiting = other.train("fake", 1)
    next(waiting)
    running.close()
    *_, (last, name) = waiting
    assert (last.waits, len(last.losses), name) == (False, 1, "learned 1")


def test_a_page_that_is_left_ends_its_training(session, matching):
    click_pairs(session, [(10.0, 10.0), (70.0, 20.0), (40.0, 50.0)])
    running = session.train("fake", 1000)
    next(running)
    running.close()
    assert session.training is None
    assert matching.model("fake").lock.acquire(timeout=5)


def test_a_training_that_fails_leaves_a_usable_session(session):
    click_pairs(session, [(10.0, 10.0), (70.0, 20.0), (40.0, 50.0)])
    with pytest.raises(InputError, match="hog takes no prompt"):
        next(session.train("hog", 2))
    with pytest.raises(InputError, match="steps must be from 1 to 1000"):
        next(session.train("fake", 0))
    assert session.prompts == {}
    assert len(list(session.train("fake", 1))) >= 1


def test_a_training_that_is_stopped_before_it_begins_learned_nothing(session, matching, tmp_path):
    photos = session.photos[SOURCE], session.photos[TARGET]
    points = [(1.0, 1.0), (5.0, 5.0), (9.0, 9.0)]
    training = Training(matching.model("fake"), ClickedPairs(photos, points, points), steps=5, file=tmp_path / "a")
    training.stop()
    with pytest.raises(InputError, match="stopped before its first step"):
        list(training.progress())
    assert not (tmp_path / "a").exists()


def test_clicked_pairs_say_what_is_wrong():
    photo = random_photo()
    with pytest.raises(InputError, match="2 points in the left photo, and 1 in the right"):
        ClickedPairs((photo, photo), [(1.0, 1.0), (2.0, 2.0)], [(1.0, 1.0)])
    pairs = ClickedPairs((photo, photo), [(1.0, 1.0)] * 3, [(1.0, 1.0)] * 3)
    with pytest.raises(PhotoError, match="no photo 'other'"):
        pairs.photo("other")


def test_uploaded_prompts_are_read_named_and_bounded(session, tmp_path):
    click_pairs(session, [(10.0, 10.0), (70.0, 20.0), (40.0, 50.0)])
    *_, (last, _) = session.train("fake", 1)
    assert session.add_prompt(last.file, "mine.safetensors") == "mine.safetensors"
    assert session.add_prompt(last.file, "mine.safetensors") == "mine.safetensors (3)"
    assert len({last.file, *session.prompts.values()}) == 3
    assert session.new_prompt_file() != session.new_prompt_file()  # the first may not be written yet
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(PromptFileError, match=r"cat\.safetensors is not a safetensors file"):
        session.add_prompt(tmp_path / "x", "cat.safetensors")
    session.prompts |= {f"prompt {number}": last.file for number in range(MOST_PROMPTS)}
    with pytest.raises(InputError, match="at most 20 prompts"):
        session.add_prompt(last.file, "more")


def test_prompts_of_earlier_runs_are_found(session, tmp_path):
    click_pairs(session, [(10.0, 10.0), (70.0, 20.0), (40.0, 50.0)])
    *_, (last, _) = session.train("fake", 1)
    for name in ("demo/single.safetensors", "runs/a/prompt.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(last.file.read_bytes())
    (tmp_path / "demo/other.safetensors").write_bytes(b"nothing")
    assert list(find_prompts(tmp_path)) == ["demo/single.safetensors", "runs/a/prompt.safetensors"]
    named = MatchSettings("fake", tmp_path / "runs/a/prompt.safetensors", name="runs/a")
    assert label_of(named) == "runs/a"


def test_sessions_are_apart_and_leave_nothing(session):
    session.add_point((5, 5))
    session.prompts["own"] = session.folder / "own"
    fresh = copy.deepcopy(session)
    assert (fresh.photos, fresh.points) == ([None, None], [])
    folder = session.folder
    session.close()
    assert not folder.exists()


def test_models_of_this_machine_are_offered(monkeypatch):
    monkeypatch.setattr("sd4match.app.matching.whereabouts", lambda name: "here" if name != "sd1-5" else None)
    found = models_here(load_preset("text"))
    assert list(found)[:2] == ["mini", "sd2-1"]
    assert "sd1-5" not in found
    assert found["dino-vitb8"].prompt.kind == found["dinov2-base"].prompt.kind == "none"
    assert found["mini"].prompt.kind == "text"


def test_a_damaged_model_is_left_out_with_a_warning(monkeypatch):
    def load(name, overrides=()):
        if "backbone.weights=dinov2-base" in overrides:
            raise CheckpointError("layer 11 does not exist in dinov2-base")
        return load_preset(name, overrides)

    monkeypatch.setattr("sd4match.app.matching.whereabouts", lambda name: "here" if name == "dinov2-base" else None)
    monkeypatch.setattr("sd4match.app.matching.load_preset", load)
    with pytest.warns(UserWarning, match="dinov2-base is not offered: layer 11 does not exist"):
        found = models_here(load_preset("text"))
    assert list(found) == ["mini", "hog"]


def test_examples_show_what_they_say():
    pairs = example_pairs()
    assert len(pairs) == 4
    for pair in pairs:
        assert pair.thumbnail().size == (520, 256)
        assert pair.source.size == pair.target.size == (256, 256)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"config": "empty"}, "config"), ({"prompts": ["a"]}, "prompts"), ({"device": 5}, "device"),
     ({"prompts": {"a": "b"}}, "prompts")],
)  # fmt: skip
def test_arguments_of_other_types_are_named(arguments, name):
    with pytest.raises(InputError, match=f"^{name} must be "):
        build_app(**arguments)


def test_an_app_with_a_prompt_that_is_none_is_not_built(tmp_path):
    with pytest.raises(PromptFileError, match="no such prompt file"):
        build_app(ExperimentConfig(backbone={"kind": "fake"}), prompts={"mine": tmp_path / "mine"})


def test_the_example_of_the_docs_launches_the_app_on_loopback(monkeypatch):
    gradio = pytest.importorskip("gradio")
    (block,) = re.findall(r"```py\n(.*?)```", (DOCS / "how-to" / "app.md").read_text(encoding="utf-8"), re.DOTALL)
    launched = []
    monkeypatch.setattr(gradio.Blocks, "launch", lambda app, **options: launched.append(options))
    fake = ExperimentConfig(backbone={"kind": "fake"})
    monkeypatch.setattr("sd4match.config.load_preset", lambda name: fake)
    exec(compile(block, "app.md", "exec"), {})
    assert [options["server_name"] for options in launched] == ["127.0.0.1"]
