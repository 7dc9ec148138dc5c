"""What clicks do: points, guesses, and the way from pair to pair."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.annotation import write_photos, write_points
from helpers.prompts import FakePrompt, fake_backbone
from sd4match import SemanticMatcher
from sd4match.app.annotation_pictures import LONGEST_SIDE, Mark, Room, draw_annotation, scale_of, to_photo
from sd4match.app.annotation_session import AnnotationSession, Guess, Guesser, Needs
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
    session.move(1)
    assert session.pair == ("a.png", "c.png")
    assert session.progress == "Pair 2 of 2: 0 points, 2 to do. In the folder: 4 points on 3 photos."
    session.accept()
    assert session.selected == "point 2"
    session.accept()
    assert store.points("c.png") == {"point 1": (101, 201), "point 2": (301, 201)}
    session.move(1)
    assert session.index == 0
    session.move(-1)
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


def test_a_page_keeps_the_pair_that_it_shows_whatever_another_one_does_to_the_list(session, store):
    store.mark("ear", dict.fromkeys(("c.png",), (1.0, 1.0)))
    other = AnnotationSession(store, Shifted(), pair=("b.png", "a.png"))
    assert (other.pair, other.index) == (("b.png", "a.png"), 0)
    session.reload()  # c.png has the most points and now stands beside the others
    assert store.pairs == [("c.png", "a.png"), ("c.png", "b.png")]
    assert other.pair == ("b.png", "a.png")
    assert other.progress.startswith("A further pair beside 2: ")
    other.move(1)
    assert other.pair == ("c.png", "a.png")
    other.open_pair("b.png", "a.png")
    other.move(-1)
    assert other.pair == ("c.png", "b.png")


def test_undo_of_a_listed_pair_leaves_the_other_page_its_pair(tmp_path):
    root = write_points(
        write_photos(tmp_path), {"a.png": {"points": {}}, "b.png": {"points": {}}}, pairs=[["a.png", "b.png"]]
    )
    store = AnnotationStore(root)
    session, other = AnnotationSession(store, Shifted()), AnnotationSession(store, Shifted())
    other.open_pair("c.png", "b.png")
    session.undo()
    assert session.message.startswith("Taken back: the pair of c.png and b.png.")
    assert (store.pairs, other.pair, other.index) == ([("a.png", "b.png")], ("c.png", "b.png"), None)
    other.click(0, (5, 6))
    assert store.points("c.png") == {"point 1": (5, 6)}


def test_a_pair_whose_photo_is_gone_is_left(session, store):
    session.move(1)
    (store.root / "c.png").unlink()
    other = AnnotationSession(store, Shifted())
    other.reload()
    with pytest.raises(InputError, match=r"c.png is not in the folder any more: here is the first pair"):
        session.check(session.view, Needs.NOTHING)
    assert session.pair == ("a.png", "b.png") == AnnotationSession(store, Shifted(), pair=("a.png", "c.png")).pair


@pytest.mark.parametrize(
    "leave",
    [
        lambda one: one.move(1),
        lambda one: one.move(-1),
        AnnotationSession.swap,
        lambda one: one.open_pair("b.png", "c.png"),
    ],
)
def test_an_action_on_a_pair_that_is_not_shown_any_more_is_refused(session, store, leave):
    session.click(0, (100, 200))
    seen = session.view
    for needs in Needs:
        session.check(seen, needs)
    leave(session)
    session.check(seen, Needs.NOTHING)
    for needs in (Needs.PAIR, Needs.SELECTION, Needs.GUESS):
        for token in (seen, "", None, "x.y.z"):
            with pytest.raises(InputError, match="nothing was changed"):
                session.check(token, needs)


def test_what_an_action_depends_on_must_be_as_it_was_shown(session, store):
    seen = session.view
    session.click(0, (100, 200))
    session.check(seen, Needs.PAIR)  # a further point on the same photo
    with pytest.raises(InputError, match="nothing was changed"):
        session.check(seen, Needs.SELECTION)
    seen = session.view
    session.rename("ear")  # the same point
    session.check(seen, Needs.GUESS)
    session.guesser.finds = False
    session.describe("cat")
    session.check(seen, Needs.SELECTION)
    with pytest.raises(InputError, match="nothing was changed"):
        session.check(seen, Needs.GUESS)
    session.box(True)
    with pytest.raises(InputError, match="nothing was changed"):
        session.check(seen, Needs.PAIR)


def test_a_click_depends_on_the_selected_point_if_it_sets_it(session, store):
    assert [session.needs_of_click(side) for side in (0, 1)] == [Needs.PAIR, Needs.SELECTION]
    store.mark("tail", {"b.png": (10, 10)})
    session.select("tail")
    assert session.needs_of_click(0) == Needs.SELECTION
    session.box(True)
    assert [session.needs_of_click(side) for side in (0, 1)] == [Needs.PAIR, Needs.PAIR]


def test_a_point_that_another_page_removed_is_not_made_again(session, store):
    session.click(0, (100, 200))
    AnnotationSession(store, Shifted()).delete()
    for action, message in ((session.accept, "no guess"), (session.hide, "no point"), (session.delete, "no point")):
        with pytest.raises(InputError, match=message):
            action()
    assert store.points("b.png") == {}
    session.select("point 1")
    assert session.selected is None


def test_an_empty_name_is_refused_and_a_point_that_joins_another_one_is_said(session, store):
    store.mark("tail", {"c.png": (4, 4)})
    session.click(0, (100, 200))
    with pytest.raises(DatasetError, match="the name of a point"):
        session.rename(" ")
    assert list(store.points("a.png")) == ["point 1"]
    session.rename("tail")
    assert session.message.startswith(
        "point 1 is now the same point as tail of other photos; Undo takes it back. tail: guess"
    )
    session.undo()
    assert session.message.startswith("Taken back: the new name tail of point 1 on a.png. point 1: guess")


def test_a_category_that_joins_points_says_so(session, store):
    store.mark("point 1", {"c.png": (4, 4)})
    store.describe(["c.png"], category="cat")
    session.click(0, (100, 200))
    session.describe("cat")
    assert session.message.startswith(
        "Points that are now the same as those of other photos: point 1. Both photos show cat. point 1: guess"
    )


def test_undo_says_what_it_took_back_and_shows_it(session, store):
    session.click(0, (100, 200))
    session.accept()
    session.move(1)
    session.undo()  # of what was done on the pair before
    assert session.pair == ("a.png", "b.png")
    assert session.message.startswith("Taken back: point 1 on b.png. point 1: guess with score 0.50.")
    session.accept()  # it is to do again, and selected
    session.undo()
    assert (session.selected, session.guess) == ("point 1", Guess((101, 201), 0.5))
    session.delete()
    session.undo()
    assert session.message.startswith("Taken back: the removal of point 1 from a.png.")
    assert session.selected == "point 1"
    session.undo()
    assert session.message == "Taken back: point 1 on a.png. Click a point on the left."


def test_a_guess_that_fails_after_a_change_stays_a_warning(session, store):
    store.mark("tail", {"a.png": (300, 300)})
    session.click(0, (100, 200))
    session.guesser.fails = True
    session.accept()
    assert (session.is_refused, session.message.split(":")[0]) == (True, "point 1")


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


def test_marks_are_as_large_on_a_phone_as_on_a_desk():
    """In CSS pixels: a number of 15, and a click that selects within 12, or 20 by a finger."""
    portrait = Photo(np.full((3000, 2000, 3), 128, dtype=np.uint8))  # drawn as 1024 x 683
    heights = []
    for room in (Room(), Room(358, 250, is_touched=True)):
        unit = room.shrinkage((1024, 683))
        assert unit == pytest.approx(1024 / room.height)
        changed = np.argwhere(
            (np.asarray(draw_annotation(portrait, [Mark((1000, 1500), 8)], room=room)) != 128).any(axis=2)
        )
        heights.append((changed[:, 0].max() - changed[:, 0].min()) / unit)
        assert room.reach(portrait.size) == pytest.approx(
            (20 if room.is_touched else 12) * 3000 / room.height, rel=0.01
        )
    assert heights[0] == pytest.approx(heights[1], abs=1)
    assert heights[0] >= 15


def test_a_finger_hits_a_mark_from_further_away(session):
    session.click(0, (100, 200))
    session.room = Room(358, 250, is_touched=True)
    session.click(0, (140, 200))  # 16 CSS pixels
    assert len(session.rows) == 1
    session.click(0, (170, 200))
    assert len(session.rows) == 2


@pytest.mark.parametrize("other", [(485, 300), (480, 310), (415, 300)])
def test_a_number_stands_where_it_covers_no_other_mark(other):
    photo = Photo(np.full((600, 900, 3), 128, dtype=np.uint8))
    second = Mark(other, 2)
    alone = np.asarray(draw_annotation(photo, [second]))
    both = np.asarray(draw_annotation(photo, [Mark((450, 300), 1), second]))
    x, y = other
    ring = (slice(y - 12, y + 13), slice(x - 12, x + 13))
    assert np.array_equal(both[ring], alone[ring])


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
