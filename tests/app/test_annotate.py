"""Annotation in a real browser: what is clicked is on the disk, and on the page when it is loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import pytest

from helpers.annotation import write_photos
from helpers.browser import DESKTOP, screen
from sd4match import SemanticMatcher
from sd4match.app.annotate import build_annotation_app
from sd4match.app.annotation_session import AnnotationSession
from sd4match.app.annotation_store import AnnotationStore

SIZE = (200, 300)


@pytest.fixture(scope="module")
def matcher() -> SemanticMatcher:
    return SemanticMatcher.from_preset("hog", device="cpu")


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_photos(tmp_path, size=SIZE)


def content(folder: Path) -> dict:
    return json.loads((folder / "points.json").read_text())["photos"]


def click(screen, side: str, point, *, size=SIZE) -> None:
    """Click or tap a point of a photo on the page."""
    image = screen.page.locator(f"#photo-{side} img")
    image.scroll_into_view_if_needed()
    shown = image.bounding_box()
    scale = min(shown["width"] / size[1], shown["height"] / size[0])  # a photo may stand in a wider frame
    left, top = (shown["width"] - size[1] * scale) / 2, (shown["height"] - size[0] * scale) / 2
    place = {"x": left + (point[0] + 0.5) * scale, "y": top + (point[1] + 0.5) * scale}
    touches = screen.page.evaluate("navigator.maxTouchPoints > 0")
    (image.tap if touches else image.click)(position=place)


def says(screen, text: str) -> None:
    screen.page.locator("#status", has_text=text).wait_for()


def button(screen, name: str):
    return screen.page.get_by_role("button", name=name, exact=True)


def choose(screen, which: str, name: str) -> None:
    dropdown = screen.page.locator(which)
    dropdown.locator("input").click()
    dropdown.get_by_role("option", name=name).click()


def unfold(screen, name: str) -> None:
    screen.page.get_by_role("button", name=name).click()


def is_at(point, place, *, within=2.0) -> bool:
    return abs(point[0] - place[0]) <= within and abs(point[1] - place[1]) <= within


@pytest.mark.slow
def test_a_click_is_saved_and_guessed(serving, desktop, folder, matcher):
    with AnnotationStore.open(folder) as store:
        desktop.open(serving(build_annotation_app(store, matcher)))
        click(desktop, "left", (100, 50))
        says(desktop, "guess with score")
        assert is_at(content(folder)["a.png"]["points"]["point 1"], (100, 50))
        assert "b.png" not in content(folder)
    assert (desktop.outside, desktop.errors, desktop.overflow) == ([], [], 0)


@pytest.mark.slow
def test_a_corrected_guess_is_there_again_when_the_page_is_loaded_again(serving, desktop, folder, matcher):
    before = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    with AnnotationStore.open(folder) as store:
        desktop.open(serving(build_annotation_app(store, matcher)))
        click(desktop, "left", (100, 50))
        says(desktop, "guess with score")
        click(desktop, "right", (200, 150))
        says(desktop, "point 1: marked")
        assert is_at(content(folder)["b.png"]["points"]["point 1"], (200, 150))
        desktop.page.reload()
        desktop.page.locator("#progress", has_text="1 point. In the folder: 2 points").wait_for()
        desktop.page.locator("#points", has_text="1. point 1: ✓ / ✓").wait_for()
    assert (desktop.outside, desktop.errors, desktop.overflow) == ([], [], 0)
    assert {path.name: path.read_bytes() for path in folder.glob("*.png")} == before


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["Next", "Previous", "Swap"])
def test_a_click_before_the_answer_to_another_one_changes_nothing(
    serving, desktop, folder, matcher, monkeypatch, leave
):
    """The page still shows the pair that the server has left."""
    answered, shown = Event(), AnnotationSession._show

    def slow(session, pair):
        answered.wait(20)
        shown(session, pair)

    with AnnotationStore.open(folder) as store:
        store.mark("ear", {"a.png": (20, 20), "b.png": (20, 20)})
        before = content(folder)
        desktop.open(serving(build_annotation_app(store, matcher)))
        says(desktop, "Click a point on the left")
        monkeypatch.setattr(AnnotationSession, "_show", slow)
        button(desktop, leave).click()
        click(desktop, "left", (100, 50))
        answered.set()
        says(desktop, "⚠ nothing was changed")
        assert content(folder) == before
        click(desktop, "left", (200, 100))  # now on the pair that is shown
        says(desktop, "point 1: guess")
    assert (desktop.outside, desktop.errors) == ([], [])


@pytest.mark.slow
def test_a_click_on_a_photo_that_the_next_one_is_about_to_replace_changes_nothing(serving, desktop, folder, matcher):
    """The page knows the new pair, and its pictures are on their way: gradio sends no click on them."""
    held = []
    with AnnotationStore.open(folder) as store:
        desktop.open(serving(build_annotation_app(store, matcher)))
        says(desktop, "Click a point on the left")
        desktop.page.wait_for_function("[...document.querySelectorAll('.photo img')].every(one => one.naturalWidth)")
        desktop.page.route("**/file=**", lambda route: held.append(route))
        button(desktop, "Swap").click()
        desktop.page.get_by_text("Left: b.png").wait_for()
        click(desktop, "left", (200, 100))
        assert held
        desktop.page.unroute("**/file=**")  # lets those that are held go on
        desktop.page.wait_for_function("[...document.querySelectorAll('.photo img')].every(one => one.naturalWidth)")
        click(desktop, "left", (100, 50))
        says(desktop, "point 1: guess")
        assert list(content(folder)) == ["b.png"]
        assert list(content(folder)["b.png"]["points"]) == ["point 1"]
    assert (desktop.outside, desktop.errors) == ([], [])


@pytest.mark.slow
def test_two_pages_keep_their_pairs(serving, browser, desktop, folder, matcher):
    with AnnotationStore.open(folder) as store, screen(browser, DESKTOP) as other:
        store.mark("ear", {"c.png": (20, 20)})
        store.reload()  # so that c.png stands beside the others
        address = serving(build_annotation_app(store, matcher))
        for one in (desktop, other):
            one.open(address)
            says(one, "ear: guess")
        button(other, "Next").click()
        other.page.get_by_text("Right: b.png").wait_for()
        unfold(desktop, "Category, splits and boxes")
        store.mark("nose", {"b.png": (30, 30)})
        store.mark("tail", {"b.png": (20, 20)})
        button(desktop, "Read the folder again").click()  # b.png now has the most points
        says(desktop, "The folder is read again")
        assert store.pairs == [("b.png", "a.png"), ("b.png", "c.png")]
        click(other, "left", (100, 50))
        says(other, "point 1: guess")
        assert "point 1" in content(folder)["c.png"]["points"]
    assert (desktop.errors, other.errors) == ([], [])


@pytest.mark.slow
def test_an_emptied_name_is_refused(serving, desktop, folder, matcher):
    with AnnotationStore.open(folder) as store:
        store.mark("ear", {"c.png": (20, 20)})
        store.mark("tail", {"a.png": (250, 150), "b.png": (20, 20)})
        store.describe(store.photos, category="cat")
        store.reload()
        desktop.open(serving(build_annotation_app(store, matcher)))
        desktop.page.get_by_role("radio", name="1. tail").check()
        says(desktop, "A click moves it")
        before = content(folder)
        name = desktop.page.get_by_label("Name of the selected point")
        name.fill("")
        name.press("Enter")
        says(desktop, "⚠ the name of a point")
        desktop.page.wait_for_function("document.querySelector('#name :is(input, textarea)').value === 'tail'")
        assert content(folder) == before
        name.fill("ear")
        name.press("Enter")
        says(desktop, "tail is now the same point as ear of other photos")
        unfold(desktop, "Category, splits and boxes")
        category = desktop.page.get_by_label("What both photos show")
        category.fill("")
        category.press("Enter")
        says(desktop, "Both photos show no category")
        assert "category" not in content(folder)["a.png"]
    assert (desktop.outside, desktop.errors) == ([], [])


@pytest.mark.slow
def test_a_phone_is_enough(serving, phone, folder, matcher):
    with AnnotationStore.open(folder) as store:
        phone.open(serving(build_annotation_app(store, matcher, note="A note.")))
        says(phone, "Click a point on the left")
        for number, place in enumerate([(100, 50), (250, 120), (40, 180)], start=1):
            click(phone, "left", place)
            says(phone, f"point {number}: guess with score")
            (phone.page.get_by_role("button", name="Accept") if number < 3 else button(phone, "Not visible")).tap()
            says(phone, f"point {number}: {'accepted' if number < 3 else 'not visible'}")
        assert [
            is_at(content(folder)["a.png"]["points"][f"point {n}"], place, within=3)
            for n, place in enumerate([(100, 50), (250, 120), (40, 180)], start=1)
        ] == [True] * 3
        assert content(folder)["b.png"]["points"]["point 3"] is None
        picture, actions = (phone.page.locator(which).bounding_box() for which in ("#photo-right", "#actions"))
        assert picture["y"] + picture["height"] <= actions["y"]  # the buttons cover no photo
        assert actions["y"] + actions["height"] <= 844  # without scrolling
        assert phone.overflow == 0
        click(phone, "left", (112, 50))  # a finger beside a mark selects it
        says(phone, "A click moves it")
        assert len(content(folder)["a.png"]["points"]) == 3
    assert (phone.outside, phone.errors) == ([], [])


@pytest.mark.slow
def test_pairs_names_categories_splits_and_boxes(serving, desktop, folder, matcher):
    page = desktop.page
    with AnnotationStore.open(folder) as store:
        desktop.open(serving(build_annotation_app(store, matcher)))
        click(desktop, "left", (100, 50))
        says(desktop, "guess with score")
        name = page.get_by_label("Name of the selected point")
        name.fill("left ear")
        name.press("Enter")
        says(desktop, "left ear: guess")
        assert list(content(folder)["a.png"]["points"]) == ["left ear"]
        button(desktop, "Accept").click()
        says(desktop, "left ear: accepted")
        button(desktop, "Next").click()
        page.locator("#progress", has_text="Pair 2 of 2: 0 points, 1 to do").wait_for()
        says(desktop, "left ear: guess")
        button(desktop, "Not visible").click()
        says(desktop, "left ear: not visible on the right")
        assert content(folder)["c.png"]["points"] == {"left ear": None}
        button(desktop, "Undo").click()
        says(desktop, "Taken back: left ear on c.png. left ear: guess")
        assert content(folder)["c.png"]["points"] == {}
        button(desktop, "Swap").click()
        page.get_by_text("Left: c.png").wait_for()

        unfold(desktop, "New pair")
        for side, photo in (("left", "c.png"), ("right", "b.png")):
            choose(desktop, f"#new-{side}", photo)
        button(desktop, "Open this pair").click()
        page.locator("#progress", has_text="Pair 3 of 3").wait_for()
        page.get_by_text("Right: b.png").wait_for()

        unfold(desktop, "Category, splits and boxes")
        category = page.get_by_label("What both photos show")
        category.fill("cat")
        category.press("Enter")
        page.wait_for_function("document.querySelector('#category :is(input, textarea)').value === 'cat'")
        choose(desktop, "#split-left", "train")
        says(desktop, "c.png is in the split train")
        assert content(folder)["c.png"] == {"category": "cat", "split": "train", "points": {}}
        page.get_by_label("Clicks set the corners of boxes").check()
        says(desktop, "Click two opposite corners")
        click(desktop, "right", (20, 20))
        says(desktop, "Now click the opposite corner")
        click(desktop, "right", (120, 100))
        says(desktop, "The box of b.png is set")
        box = content(folder)["b.png"]["box"]
        assert is_at(box[:2], (20, 20))
        assert is_at(box[2:], (120, 100))
        button(desktop, "Put all photos into splits").click()
        says(desktop, "⚠ photos that show points: 1;")
    assert (desktop.outside, desktop.errors) == ([], [])


@pytest.mark.slow
def test_what_goes_wrong_is_said_and_escaped(serving, desktop, folder, matcher):
    hostile = "<img src=x onerror=alert(1)>.png"
    (folder / hostile).write_text("no photo")
    with AnnotationStore.open(folder) as store:
        desktop.open(serving(build_annotation_app(store, matcher)))
        says(desktop, "⚠ not a readable image")
        assert desktop.page.locator("img[src='x']").count() == 0
        store.pairs[:] = [("a.png", "b.png")]
        button(desktop, "Next").click()
        says(desktop, "Click a point on the left")
        click(desktop, "right", (10, 10))
        says(desktop, "⚠ click on the left first")
        (folder / "points.json").write_text('{"photos": {"a.png": {"points": {"mine": [1, 1]}}}}')
        click(desktop, "left", (100, 50))
        says(desktop, "was changed by another program, and is not overwritten")
        assert content(folder) == {"a.png": {"points": {"mine": [1, 1]}}}
        unfold(desktop, "Category, splits and boxes")
        button(desktop, "Read the folder again").click()
        says(desktop, "The folder is read again")
        desktop.page.reload()
        desktop.page.locator("#progress", has_text="In the folder: 1 point on 4 photos").wait_for()
    assert (desktop.outside, desktop.errors) == ([], [])
