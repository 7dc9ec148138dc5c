"""What clicks do: points, guesses, and the way from pair to pair."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.test_evaluator import FakePrompt
from helpers.annotation import write_photos, write_points
from helpers.prompts import fake_backbone
from sd4match import SemanticMatcher
from sd4match.app.annotation_pictures import LONGEST_SIDE, Mark, draw_annotation, scale_of, to_photo
from sd4match.app.annotation_session import AnnotationSession, Guess, Guesser
from sd4match.app.annotation_store import AnnotationStore
from sd4match.errors import DatasetError, InputError, NonFiniteError
from sd4match.matching import KernelSoftArgmax
from sd4match.structures.images import Photo


class Shifted:
    """Guesses that a point lies a pixel further on the right."""

    finds = True
    fails = False

    def guess(self, store, pair, point):
        if self.fails:
            raise NonFiniteError("no features")
        return Guess((point[0] + 1, point[1] + 1), 0.5) if self.finds else None


@pytest.fixture
def store(tmp_path):
    with AnnotationStore.open(write_photos(tmp_path, size=(600, 900))) as store:
        yield store


@pytest.fixture
def session(store):
    return AnnotationSession(store, Shifted())


def test_a_click_is_guessed_on_the_right_and_accepted(session, store):
    assert session.message == "Click a point on the left."
    session.click(0, (100, 200))
    assert (session.selected, session.guess) == ("point 1", Guess((101, 201), 0.5))
    assert session.message == "point 1: guess with score 0.50. Accept it, or click the right place."
    assert store.points("b.png") == {}  # a guess is no annotation
    session.accept()
    assert store.points("b.png") == {"point 1": (101, 201)}
    assert session.message.startswith("point 1: accepted. Every point of this pair is done")
    assert session.progress == "Pair 1 of 2: 1 point. In the folder: 2 points on 3 photos."
    with pytest.raises(InputError, match="no guess to accept"):
        session.accept()


def test_a_guess_is_corrected_by_a_click_and_a_mark_is_moved(session, store):
    session.click(0, (100, 200))
    session.click(1, (300, 250))
    session.click(1, (310, 260))
    assert store.points("b.png") == {"point 1": (310, 260)}
    session.click(0, (500, 300))
    assert session.selected == "point 2"
    session.click(0, (103, 203))  # near the first one: selects it
    assert session.selected == "point 1"
    assert session.guess is None
    session.click(1, (320, 270))
    assert store.points("b.png") == {"point 1": (320, 270)}
    assert session.selected == "point 2"  # goes on with what is to do


def test_a_point_that_the_right_photo_does_not_show(session, store):
    session.click(0, (100, 200))
    session.hide()
    assert store.points("b.png") == {"point 1": None}
    assert [row.state(1) for row in session.rows] == ["not visible"]
    assert "1 point." in session.progress


def test_the_points_of_the_left_photo_wait_in_the_next_pair(session, store):
    for place in ((100, 200), (300, 200)):
        session.click(0, place)
        session.accept()
    session.go(session.index + 1)
    assert session.pair == ("a.png", "c.png")
    assert session.progress == "Pair 2 of 2: 0 points, 2 to do. In the folder: 4 points on 3 photos."
    session.accept()
    assert session.selected == "point 2"
    session.accept()
    assert store.points("c.png") == {"point 1": (101, 201), "point 2": (301, 201)}
    session.go(session.index + 1)
    assert session.index == 0
    session.go(-1)
    assert session.index == 1


def test_what_is_known_on_the_right_alone_is_set_on_the_left(session, store):
    store.mark("tail", {"b.png": (10, 10)})
    session.select("tail")
    assert [row.state(0) for row in session.rows] == ["to do"]
    session.click(0, (400, 400))
    assert store.points("a.png") == {"tail": (400, 400)}
    session.swap()
    assert session.pair == ("b.png", "a.png")


def test_points_are_renamed_deleted_and_taken_back(session, store):
    session.click(0, (100, 200))
    session.rename(" left ear ")
    assert session.selected == "left ear"
    session.rename("left ear")
    assert list(store.points("a.png")) == ["left ear"]
    session.delete()
    assert store.points("a.png") == {}
    for action in (session.delete, session.hide, lambda: session.rename("x")):
        with pytest.raises(InputError, match="no point is selected"):
            action()
    with pytest.raises(InputError, match="click on the left first"):
        session.click(1, (5, 5))
    session.undo()
    assert list(store.points("a.png")) == ["left ear"]
    for _ in range(5):
        session.undo()
    assert session.message == "There is nothing to take back."


def test_a_further_pair_is_opened_in_the_order_that_is_asked_for(session, store):
    session.open_pair("c.png", "b.png")
    assert (session.pair, session.index, session.is_refused) == (("c.png", "b.png"), 2, False)
    session.open_pair("b.png", "a.png")
    assert (session.pair, session.index) == (("b.png", "a.png"), 0)
    store.describe(["a.png"], category="cat")
    session.open_pair("a.png", "b.png")
    assert session.is_refused
    assert "different categories, cat and none" in session.message
    session.describe("cat")
    assert store.category("b.png") == "cat"
    session.describe(" ")
    assert store.categories == []


def test_two_clicks_make_a_box(session, store):
    session.box(True)
    session.click(1, (400, 300))
    session.click(0, (10, 10))  # on the other photo: begins anew
    session.click(0, (200, 100))
    assert (store.box("a.png"), store.box("b.png")) == ((10, 10, 200, 100), None)
    assert store.points("a.png") == {}
    session.remove_boxes()
    assert store.box("a.png") is None
    session.box(False)
    session.click(0, (10, 10))
    assert len(session.rows) == 1


def test_splits_are_assigned_and_shared_out(session, store):
    session.assign(1, "test")
    assert (store.split("b.png"), session.message) == ("test", "b.png is in the split test.")
    session.assign(1, None)
    assert store.split("b.png") is None
    with pytest.raises(DatasetError, match="no photo shows a point"):
        session.share_out()
    for number in range(3, 9):
        write_photos(store.root, [f"{number}.png"])
    session.reload()
    store.mark("ear", dict.fromkeys(store.photos[:6], (1.0, 1.0)))
    session.share_out()
    assert session.message == "Photos shared out: 2 train, 2 validation, 2 test."


def test_a_matcher_that_fails_or_finds_nothing_leaves_the_click_to_the_user(session, store):
    session.guesser.finds = False
    session.click(0, (100, 200))
    assert "finds it nowhere" in session.message
    session.guesser.fails = True
    session.click(0, (300, 200))
    assert (session.is_refused, session.message) == (True, "no guess, click on the right yourself: no features")
    assert len(store.points("a.png")) == 2


def test_a_page_of_another_tab_is_not_left_behind(session, store):
    other = AnnotationSession(store, Shifted(), index=1)
    session.open_pair("b.png", "c.png")
    store.reload()  # forgets the pair of this page
    assert session.pair == ("a.png", "b.png")
    assert other.pair == ("a.png", "c.png")
    write_points(store.root, {"b.png": {"points": {}}, "c.png": {"points": {}}}, pairs=[["b.png", "c.png"]])
    other.reload()
    assert other.pair == ("b.png", "c.png")


def matcher_with(prompt):
    return SemanticMatcher(backbone=fake_backbone(), prompt=prompt, matcher=KernelSoftArgmax().build())


@pytest.mark.parametrize("scope", ["dataset", "category", "pair"])
def test_guesses_are_those_of_the_matcher(tmp_path, scope):
    root = write_photos(tmp_path, [f"cat/{n}.png" for n in range(3)])
    store, matcher = AnnotationStore(root), matcher_with(FakePrompt(scope))
    guesser = Guesser(matcher)
    for pair in (("cat/0.png", "cat/1.png"), ("cat/1.png", "cat/2.png"), ("cat/0.png", "cat/1.png")):
        found = guesser.guess(store, pair, (10.0, 20.0))
        wanted = matcher.match(root / pair[0], root / pair[1], [(10.0, 20.0)], category="cat")
        assert found.point == pytest.approx(tuple(wanted.target_points[0]))
        assert found.score == pytest.approx(wanted.scores[0])


def test_features_of_a_photo_are_computed_once_and_few_are_kept(tmp_path, monkeypatch):
    root = write_photos(tmp_path, [f"{n}.png" for n in range(11)])
    store, matcher = AnnotationStore(root), matcher_with(FakePrompt())
    extracted = []
    extract = matcher.extract
    monkeypatch.setattr(
        type(matcher), "extract", lambda self, photo, category=None: extracted.append(1) or extract(photo)
    )
    guesser = Guesser(matcher, category="cat")
    for number in range(1, 11):
        guesser.guess(store, ("0.png", f"{number}.png"), (1.0, 1.0))
        guesser.guess(store, ("0.png", f"{number}.png"), (2.0, 1.0))
    assert len(extracted) == 11
    assert len(guesser._features) == 8


# pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 90), (600, 900), (3000, 2000)])
def test_a_pixel_of_the_picture_is_the_place_in_the_photo(size):
    photo = Photo(np.zeros((*size, 3), dtype=np.uint8))
    picture = draw_annotation(photo, [])
    assert max(picture.size) <= LONGEST_SIDE
    assert picture.size == pytest.approx((size[1] * scale_of(photo), size[0] * scale_of(photo)), abs=0.5)
    assert to_photo(photo, (-0.5, -0.5)) == pytest.approx((-0.5, -0.5))
    assert to_photo(photo, (picture.width - 0.5, picture.height - 0.5)) == pytest.approx(
        (size[1] - 0.5, size[0] - 0.5), abs=1
    )


def test_marks_are_drawn_where_they_are_and_differ_in_form():
    photo = Photo(np.full((600, 900, 3), 128, dtype=np.uint8))
    plain = Mark((450, 300), 1)
    pictures = [
        np.asarray(draw_annotation(photo, [mark]))
        for mark in (plain, Mark((450, 300), 1, is_selected=True), Mark((450, 300), 1, is_guess=True))
    ]
    for number, picture in enumerate(pictures):
        changed = np.argwhere((picture != 128).any(axis=2))
        assert np.abs(changed[:, 0] - 300).max() < 40
        assert all((picture != other).any() for other in pictures[:number])
    corner = np.asarray(draw_annotation(photo, [Mark((899, 0), 12)], box=(5, 6, 50, 60), corner=(100, 500)))
    assert (corner[300:400, 300:600] == 128).all()
    assert (corner[0:40, 840:] != 128).any()  # the number stands inside
    assert (corner[60, 20:40] != 128).any()
    assert (corner[500, 95:105] != 128).any()
