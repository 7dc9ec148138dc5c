"""The app in a real browser: what a user clicks, sees, uploads and downloads, at desktop and phone width."""

from __future__ import annotations

import json
import re
from threading import Event

import pytest
from PIL import Image

from sd4match.app import build_app
from sd4match.app.session import Session
from sd4match.config import ExperimentConfig
from sd4match.prompting import read_prompt

FISH = "#examples img"
FAKE = ExperimentConfig(backbone={"kind": "fake"})


@pytest.fixture
def address_of(serving, tmp_path, monkeypatch):
    """Serve the app with an experiment, and return the address."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return lambda config=None: serving(build_app(config, device="cpu"))


def open_app(screen, address):
    screen.open(address)
    screen.page.locator("#source").wait_for()


def click(page, picture, x, y):
    """Click a picture at a share of its width and height, and wait until another one stands there."""
    image = page.locator(f"{picture} img")
    shown, size = image.get_attribute("src"), image.bounding_box()
    image.click(position={"x": x * size["width"], "y": y * size["height"]})
    page.wait_for_function(
        "([picture, shown]) => ![null, undefined, shown].includes(document.querySelector(picture + ' img')?.src)",
        arg=[picture, shown],
    )


def take_example(page):
    page.locator(FISH).first.click()
    for picture in ("#source", "#target"):
        page.locator(f"{picture} img").wait_for()


def rows(page, count):
    """Wait for so many points in the table, and return the numbers of each row."""
    page.wait_for_function("count => document.querySelectorAll('#table tr').length === count + 1", arg=count)
    texts = page.locator("#table tr").all_inner_texts()[1:]
    return [[float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)] for text in texts]


def upload(page, picture, file):
    page.locator(f"{picture} input[type=file]").set_input_files(file)


def message(page):
    """Wait for the message of the page, close it, and return it."""
    toast = page.get_by_test_id("toast-body")
    toast.wait_for()
    text = toast.inner_text()
    page.get_by_test_id("toast-close").click()
    toast.wait_for(state="detached")
    return text


def download(page, button):
    page.wait_for_function("button => !document.querySelector(button).disabled", arg=button)
    with page.expect_download() as expected:
        page.locator(button).click()
    return expected.value.path()


@pytest.mark.parametrize("width", ["desktop", pytest.param("phone", marks=pytest.mark.slow)])
def test_a_point_is_clicked(address_of, request, width):
    screen, page = (one := request.getfixturevalue(width)), one.page
    open_app(screen, address_of(FAKE))
    take_example(page)
    click(page, "#source", 0.5, 0.5)
    ((number, x, y, *match, score),) = rows(page, 1)
    assert (number, x, y) == (1, pytest.approx(127.5, abs=1), pytest.approx(127.5, abs=1))
    assert all(0 <= position <= 255 for position in match)
    assert 0 < score <= 1
    assert (screen.outside, screen.errors, screen.overflow) == ([], [], 0)


@pytest.mark.slow
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_a_long_table_is_scrolled_and_covers_nothing(address_of, request, width):
    screen, page = (one := request.getfixturevalue(width)), one.page
    open_app(screen, address_of(FAKE))
    take_example(page)
    page.locator("#grid-side input").click()
    page.get_by_role("option", name="8 x 8").click()
    page.get_by_role("button", name="Grid").click()
    rows(page, 64)
    table = page.locator("#table")
    assert table.evaluate("e => [getComputedStyle(e).overflowY, e.scrollHeight > e.clientHeight]") == ["auto", True]
    box = table.bounding_box()
    assert box["height"] <= 320
    below = page.locator("#target" if width == "phone" else "#json").bounding_box()
    assert box["y"] + box["height"] <= below["y"]
    table.evaluate("e => e.scrollTo(0, e.scrollHeight)")
    last = page.locator("#table tr").last.bounding_box()
    assert last["y"] + last["height"] <= box["y"] + box["height"] + 1
    assert screen.overflow == 0


@pytest.mark.slow
def test_a_click_on_a_photo_that_is_still_being_read_is_refused(address_of, desktop, tmp_path, monkeypatch):
    may_open, opened = Event(), Session.open_photo

    def slowly(*arguments):
        assert may_open.wait(20)
        opened(*arguments)

    monkeypatch.setattr(Session, "open_photo", slowly)
    Image.new("RGB", (3000, 2000), "white").save(tmp_path / "large.png")
    page = desktop.page
    open_app(desktop, address_of(FAKE))
    take_example(page)
    click(page, "#source", 0.5, 0.5)
    upload(page, "#source", tmp_path / "large.png")
    page.wait_for_function("document.querySelector('#source img')?.naturalWidth === 3000")
    page.locator("#source img").click(position={"x": 100, "y": 60})
    page.wait_for_timeout(500)
    may_open.set()
    assert "still being read: click again" in message(page)
    page.wait_for_function("document.querySelector('#source img')?.naturalWidth === 1024")
    click(page, "#source", 0.5, 0.5)
    ((_, x, y, *_),) = rows(page, 1)
    assert (x, y) == (pytest.approx(1499.5, abs=8), pytest.approx(999.5, abs=8))


@pytest.mark.slow
def test_points_are_undone_while_a_setting_is_invalid(address_of, desktop):
    page = desktop.page
    open_app(desktop, address_of(FAKE))
    take_example(page)
    for x in (0.4, 0.6):
        click(page, "#source", x, 0.5)
    rows(page, 2)
    page.locator("#category input, #category textarea").fill("")
    page.locator("#prompt input").click()
    page.get_by_role("option", name="text", exact=True).click()
    page.locator("#table", has_text="Not matched: this prompt needs to know what the photos show").wait_for()
    assert page.get_by_test_id("toast-body").count() == 1
    before = page.locator("#source img").get_attribute("src")
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function("shown => document.querySelector('#source img')?.src !== shown", arg=before)
    assert page.get_by_test_id("toast-body").count() == 1
    assert page.locator("#json, #png").evaluate_all("all => all.every(one => one.disabled)")
    page.locator("#category input, #category textarea").fill("fish")
    page.keyboard.press("Enter")
    rows(page, 1)
    download(page, "#json")


@pytest.mark.slow
def test_matches_of_all_pixels_stay_until_something_is_other(address_of, desktop):
    page = desktop.page
    open_app(desktop, address_of(FAKE))
    take_example(page)
    click(page, "#source", 0.5, 0.5)
    rows(page, 1)
    page.locator("#dense").click()
    page.locator("#warp img").wait_for()
    for field in ("#category", "#template"):
        page.locator(f"{field} input, {field} textarea").focus()
        page.locator(f"{field} input, {field} textarea").blur()
    click(page, "#source", 0.4, 0.5)
    rows(page, 2)
    page.wait_for_timeout(500)
    assert page.locator("#warp img").is_visible()
    page.locator("#mutual input").check()
    page.locator("#warp").wait_for(state="hidden")


@pytest.mark.slow
def test_a_file_that_cannot_be_taken_leaves_the_photo_on_the_page_and_in_the_app(address_of, desktop, tmp_path):
    (tmp_path / "cat.jpg").write_text("no photo")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(51 << 20)
    page = desktop.page
    open_app(desktop, address_of(FAKE))
    take_example(page)
    click(page, "#source", 0.5, 0.5)
    upload(page, "#source", tmp_path / "cat.jpg")
    assert "not a readable image: cat.jpg" in message(page)
    for picture in ("#source", "#target"):
        page.wait_for_function("name => document.querySelector(name + ' img')?.naturalWidth === 1024", arg=picture)
        before = page.locator(f"{picture} img").get_attribute("src")
        upload(page, picture, tmp_path / "large.jpg")
        assert "maximum allowed size" in message(page)
        page.locator(f"{picture} img").wait_for()
        if picture == "#source":  # with its mark
            assert page.locator("#source img").get_attribute("src") == before
    click(page, "#source", 0.6, 0.5)
    rows(page, 2)
    page.locator("#source").get_by_label("Clear").or_(page.locator("#source").get_by_label("Remove")).first.click()
    page.locator("#table", has_text="Choose the left photo.").wait_for()
    page.wait_for_timeout(500)
    assert page.locator("#source img").count() == 0


@pytest.mark.slow
def test_matches_are_compared_and_downloaded(address_of, desktop):
    page = desktop.page
    open_app(desktop, address_of())
    assert "mini is a small model" in page.locator(".gradio-container").inner_text()
    take_example(page)
    assert page.locator("#category textarea, #category input").input_value() == "fish"
    click(page, "#source", 0.5, 0.5)
    rows(page, 1)
    page.locator("#grid-side input").click()
    page.get_by_role("option", name="2 x 2").click()
    page.get_by_role("button", name="Grid").click()
    rows(page, 4)
    page.locator("#compare input").check()
    page.locator("#second-target img").wait_for()
    page.locator("#second-heat img").wait_for()
    page.wait_for_function("document.querySelectorAll('#table th').length === 3")
    assert [len(row) for row in rows(page, 4)] == [9] * 4
    content = json.loads(download(page, "#json").read_text())
    assert content["format"] == "sd4match-matches"
    assert (content["backbone"], content["category"], len(content["matches"])) == ("mini", "fish", 4)
    assert content["compared"][0]["prompt"] == '"a photo of a fish"'
    with Image.open(download(page, "#png")) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height / 2 > 300
    page.locator("#dense").click()
    page.locator("#warp img").wait_for()
    page.locator("#correspondence img").wait_for()
    page.get_by_role("button", name="Undo").click()
    rows(page, 3)
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_text("Click a point in the left photo.").wait_for()
    assert (desktop.outside, desktop.errors) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_a_prompt_is_trained_used_downloaded_and_uploaded(address_of, request, width, tmp_path):
    screen = request.getfixturevalue(width)
    page = screen.page
    open_app(screen, address_of())
    take_example(page)
    page.get_by_role("tab", name="Train").click()
    page.locator("#train-target img").wait_for()
    page.locator("#train").click()
    assert "click at least 3 points" in message(page)
    for x in (0.3, 0.5, 0.6):
        click(page, "#train-source", x, 0.5)
        click(page, "#train-target", x, 0.5)
    page.locator("#steps input[type=number]").fill("4")
    page.locator("#train").click()
    page.get_by_text("Done after 4 of 4 steps").wait_for(timeout=60_000)
    page.locator("#curve img").wait_for()
    file = download(page, "#learned")
    info, _ = read_prompt(file)
    assert (info.config.kind, info.details["step"], info.details["points"]) == ("single", 4, 3)
    page.locator("#use").click()
    page.wait_for_function("document.querySelector('#prompt input').value === 'learned 1'")
    page.get_by_role("tab", name="Match").click()
    click(page, "#source", 0.5, 0.5)
    assert "learned 1" in page.locator("#table").inner_text()
    named = tmp_path / "my prompt.safetensors"
    named.write_bytes(file.read_bytes())
    upload(page, "#prompt-file", named)
    page.wait_for_function("document.querySelector('#prompt input').value === 'my prompt.safetensors'")
    page.wait_for_function("document.querySelector('#table').innerText.includes('my prompt.safetensors')")
    named.write_bytes(b"nothing")
    upload(page, "#prompt-file", named)
    assert "my prompt.safetensors is not a safetensors file" in message(page)
    assert (screen.outside, screen.errors) == ([], [])


@pytest.mark.slow
def test_a_training_is_stopped_while_another_page_matches(address_of, desktop, phone):
    address = address_of()
    for screen in (desktop, phone):
        open_app(screen, address)
        take_example(screen.page)
    page = desktop.page
    page.get_by_role("tab", name="Train").click()
    page.locator("#train-target img").wait_for()
    for x in (0.3, 0.5, 0.6):
        click(page, "#train-source", x, 0.5)
        click(page, "#train-target", x, 0.5)
    page.locator("#steps input[type=number]").fill("1000")
    page.locator("#train").click()
    page.get_by_text("Step 2 of 1000").or_(page.get_by_text(re.compile("Step [3-9] of 1000"))).wait_for(timeout=60_000)
    click(phone.page, "#source", 0.5, 0.5)
    rows(phone.page, 1)
    other = phone.page
    other.get_by_role("tab", name="Train").click()
    other.locator("#train-target img").wait_for()
    for x in (0.3, 0.5, 0.6):
        click(other, "#train-source", x, 0.5)
        click(other, "#train-target", x, 0.5)
    other.locator("#train").click()
    other.get_by_text("Waits until another page's training has ended").wait_for()
    assert (other.locator("#train").is_disabled(), other.locator("#stop").is_disabled()) == (True, False)
    other.locator("#stop").click()
    other.get_by_text("Stopped: the training was stopped before its first step").wait_for()
    page.locator("#stop").click()
    page.get_by_text(re.compile(r"Done after \d+ of 1000 steps")).wait_for()
    download(page, "#learned")
    assert phone.page.locator("#prompt input").input_value() == "empty"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["large", "turned", "gray", "transparent"])
def test_a_click_on_an_uploaded_photo_is_its_pixel(address_of, desktop, tmp_path, kind):
    file, exif = tmp_path / f"{kind}.png", Image.Exif()
    size = (3000, 2000) if kind == "large" else (60, 40)
    if kind == "turned":
        exif[0x0112] = 6
        size = (40, 60)
    mode = {"gray": "L", "transparent": "RGBA"}.get(kind, "RGB")
    Image.new(mode, size, "white").save(file, exif=exif)
    width, height = (60, 40) if kind == "turned" else size
    page = desktop.page
    open_app(desktop, address_of(FAKE))
    for picture in ("#source", "#target"):
        upload(page, picture, file)
        page.wait_for_function(
            "([picture, wide]) => { const i = document.querySelector(picture + ' img');"
            " return i?.complete && Math.max(i.naturalWidth, i.naturalHeight) === 1024 }", arg=[picture, width > height]
        )  # fmt: skip
    box = page.locator("#source img").bounding_box()
    scale = min(box["width"] / width, box["height"] / height)  # the photo stands in the middle of its element
    corner = [(box["width"] - scale * width) / 2, (box["height"] - scale * height) / 2]
    x, y = (corner[0] + scale * width * 0.75) / box["width"], (corner[1] + scale * height * 0.25) / box["height"]
    click(page, "#source", x, y)
    ((_, found_x, found_y, *_),) = rows(page, 1)
    pixel = max(1.0, 1 / scale)  # of the screen, or the rounding of the table
    assert found_x == pytest.approx(width * 0.75 - 0.5, abs=pixel)
    assert found_y == pytest.approx(height * 0.25 - 0.5, abs=pixel)


@pytest.mark.slow
def test_a_photo_is_taken_with_the_webcam(address_of, desktop):
    page = desktop.page
    open_app(desktop, address_of(FAKE))
    page.locator("#source").get_by_label("Capture from camera").click()
    page.locator("#source").get_by_text("Access", exact=False).click()
    page.locator("#source").get_by_label("capture photo").click()
    page.wait_for_function("document.querySelector('#source img')?.naturalWidth === 1024")
    click(page, "#source", 0.5, 0.5)
    assert (desktop.outside, desktop.errors) == ([], [])
