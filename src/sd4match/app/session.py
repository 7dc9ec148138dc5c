"""State of one user's page: photos, points, prompts, results and a training, independent of the layout."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from threading import RLock

import numpy as np
from PIL import Image

from sd4match.app.learning import ClickedPairs, Progress, Training
from sd4match.app.marks import color_of, draw_marks, ink_on, point_of_click
from sd4match.app.matching import EMPTY, TEXT, Answer, Matching, MatchSettings, Point
from sd4match.app.serving import TEMPORARY_FILES
from sd4match.dense import DenseMatch
from sd4match.errors import InputError, PhotoError, PromptFileError, SD4MatchError
from sd4match.geometry import grid_points
from sd4match.prompting.serialization import read_prompt
from sd4match.results import MatchResult
from sd4match.structures.images import Photo
from sd4match.viz.colors import hex_color
from sd4match.viz.matches import stack

MOST_POINTS = 64
MOST_PROMPTS = 20
SOURCE, TARGET = 0, 1


@dataclass(frozen=True, eq=False)
class Column:
    """Matches under one prompt, as the page shows them."""

    target: Image.Image
    """Target photo with the matches as numbered marks."""
    heat: Image.Image | None
    """Heat map of the last point in the target; None without a point."""


@dataclass(frozen=True, eq=False)
class View:
    """Content of the page."""

    source: Image.Image | None
    target: Image.Image | None
    columns: tuple[Column, ...]
    """Matches of each compared prompt; () without two photos."""
    text: str
    """HTML with a table of points, matches and scores, or with a hint what to do, or the reason of a failure."""


class Session:
    """State of one user's page. Its methods may be called from several threads.

    Args:
        matching: models and features, shared by all users.
        prompts: files of learned prompts that all users may choose, by name.

    A copy of a session is a new session, since gradio copies the first state of a page.
    """

    def __init__(self, matching: Matching, prompts: dict[str, Path] | None = None) -> None:
        self.matching = matching
        self.photos: list[Photo | None] = [None, None]
        self.points: list[Point] = []
        self.clicked: list[list[Point]] = [[], []]
        """Training points in both photos; the source has one more until the target is clicked."""
        self.prompts = dict(prompts or {})
        self.training: Training | None = None
        self.answers: dict[str, Answer] = {}
        """Last matches by prompt."""
        self.last_view: View | None = None
        """Current content of the page."""
        self.matched_last: tuple[object, ...] = ()
        """Photos, points and settings of the last attempt to match."""
        self.dense_of: tuple[object, ...] | None = None
        """Photos and settings of the displayed dense matches."""
        self.warned = ""
        """Reason of the last failure, so that the page shows it only once."""
        self._folder: Path | None = None
        self._numbers = count(1)
        """Numbers for the names of prompt files, which are chosen when a training begins."""
        self.lock = RLock()
        """Lock of changes of the session, held also until the view after a change is computed."""

    def __deepcopy__(self, memo: object) -> Session:
        return Session(self.matching, self.prompts)

    @property
    def folder(self) -> Path:
        """Folder for files of this session; removed by `close`."""
        with self.lock:
            if self._folder is None:
                self._folder = Path(mkdtemp(prefix="session-", dir=os.environ.get(TEMPORARY_FILES)))
            return self._folder

    def close(self) -> None:
        """Stop the training, and remove the files of the session."""
        if self.training is not None:
            self.training.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def open_photo(self, side: int, file: Path, name: str) -> None:
        """Open an uploaded file as a photo. The old photo remains if the file cannot be read.

        Args:
            side: `SOURCE` or `TARGET`.
            file: path of the uploaded file.
            name: original name of the file.

        Raises:
            PhotoError: the file is no photo, or too large; the message gives the original name.
        """
        try:
            photo = Photo.open(file)
        except PhotoError as error:
            raise PhotoError(str(error).replace(str(file), name)) from None
        self.set_photo(side, Photo(photo.pixels, name))

    def set_photo(self, side: int, photo: Photo | None) -> None:
        """Replace a photo, and remove the points and clicked pairs that belong to the old one."""
        with self.lock:
            self.photos[side] = photo
            self.clicked = [[], []]
            self.answers = {}
            if side == SOURCE:
                self.points = []

    def check_shown(self, side: int, key: str) -> None:
        """Check that a click was made on the current photo, and not on an earlier or later one.

        Args:
            side: `SOURCE` or `TARGET`.
            key: key of the photo that the page showed, or anything else for a file that was just uploaded.

        Raises:
            InputError: it is another photo, or there is none.
        """
        if self._photo(side).key != key:
            raise InputError("the photo was still being read: click again, now that it is there")

    def add_point(self, click: Sequence[float]) -> None:
        """Add the point at a click on the displayed source.

        Raises:
            InputError: there is no source, or there are `MOST_POINTS` already.
        """
        with self.lock:
            if len(self.points) >= MOST_POINTS:
                raise InputError(f"at most {MOST_POINTS} points at once: undo some, or clear them")
            self.points.append(point_of_click(self._photo(SOURCE), click))

    def undo_point(self) -> None:
        """Remove the last point, if there is one."""
        with self.lock:
            del self.points[-1:]

    def set_grid(self, side: int) -> None:
        """Replace all points by a regular grid; 0 points a side remove all.

        Raises:
            InputError: there is no source.
        """
        with self.lock:
            points = grid_points(self._photo(SOURCE).size, side=side).tolist() if side else []
            self.points = [(x, y) for x, y in points]

    def view(self, compared: Sequence[MatchSettings]) -> View:
        """Match all points under each of the settings, and return the content of the page.

        Raises:
            SD4MatchError: matching fails; nothing of the session is changed.
        """
        from sd4match.viz import draw_heat_map

        with self.lock:
            (source, target), points = self.photos, list(self.points)
        if source is None or target is None or not points:
            return self.unmatched_view(len(compared))
        answers = {label_of(settings): self.matching.match((source, target), points, settings) for settings in compared}
        shown = []
        for answer in answers.values():
            result, values = answer.result, answer.correlation.values[0, 0]
            marks = zip((result.indices + 1).tolist(), map(tuple, result.target_points.tolist()), strict=True)
            last = result.indices.tolist()[-1:] == [len(points) - 1]
            best = tuple(result.target_points[-1].tolist()) if last else None
            heat = draw_heat_map(target, values.float().cpu().numpy(), answer.correlation.target.grid, point=best)
            shown.append(Column(draw_marks(target, marks), heat))
        with self.lock:
            self.answers, self.warned = answers, ""
        text = table_of(points, answers)
        if len(answers) < len(compared):
            text = f"<p>Both prompts are the same: choose another second one to compare.</p>{text}"
        return View(draw_marks(source, enumerate(points, 1)), shown[0].target, tuple(shown), text)

    def unmatched_view(self, columns: int = 1, *, reason: str = "") -> View:
        """Return the points without matches, and forget older matches.

        Args:
            columns: number of compared prompts.
            reason: why the points cannot be matched; "" if the user has to choose or click something first.
        """
        with self.lock:
            (source, target), points = self.photos, list(self.points)
            self.answers, self.warned = {}, reason
        if reason and source is not None and target is not None and points:
            text = f'<p class="refused">⚠ Not matched: {html.escape(reason)}</p>'
        elif source is None:
            text = "Choose the left photo." if target is not None else "Choose two photos."
        elif target is None:
            text = f"Choose the right photo{': the points are matched in it' if points else ''}."
        else:
            text = "Click a point in the left photo."
        plain = None if target is None else draw_marks(target, ())
        shown = () if plain is None else tuple(Column(plain, None) for _ in range(columns))
        return View(None if source is None else draw_marks(source, enumerate(points, 1)), plain, shown, text)

    def match_dense(self, settings: MatchSettings) -> DenseMatch:
        """Match every cell of the source.

        Raises:
            InputError: a photo is missing.
        """
        return self.matching.match_dense((self._photo(SOURCE), self._photo(TARGET)), settings)

    def save_results(self, settings: MatchSettings) -> tuple[Path, Path]:
        """Write the last matches as JSON and as a picture, and return both files.

        Matches under a second prompt are in the JSON under "compared", and in the picture below the first.

        Raises:
            InputError: nothing is matched.
        """
        answers = dict(self.answers)
        if not answers:
            raise InputError("there is nothing to save: choose two photos, and click a point in the left one")
        labels, first = list(answers), next(iter(answers.values())).result
        model = self.matching.model(settings.model)
        details: dict[str, object] = {
            "backbone": model.name, "prompt": labels[0], "category": settings.category or None,
            "matcher": settings.matcher, "mutual": settings.mutual, "note": MINI_NOTE if model.is_mini else None,
        }  # fmt: skip
        details["compared"] = [
            {
                "prompt": label,
                "target_points": np.round(answer.result.target_points, 2).tolist(),
                "scores": np.round(answer.result.scores, 4).tolist(),
                "indices": answer.result.indices.tolist(),
            }
            for label, answer in list(answers.items())[1:]
        ]
        folder = first.save(self.folder, details=details)
        if len(answers) == 1:
            return folder / "matches.json", folder / "matches.png"
        stack([answer.result.draw(title=label) for label, answer in answers.items()]).save(folder / "compared.png")
        return folder / "matches.json", folder / "compared.png"

    def add_prompt(self, file: Path, name: str) -> str:
        """Add an uploaded file to the prompts, and return its name on the page.

        Raises:
            PromptFileError: it is no prompt file; the message gives the original name.
            InputError: there are `MOST_PROMPTS` already.
        """
        try:
            read_prompt(file)
        except PromptFileError as error:
            raise PromptFileError(str(error).replace(str(file), name)) from None
        saved = self.new_prompt_file()
        shutil.copyfile(file, saved)
        return self._name_prompt(name, saved)

    def new_prompt_file(self) -> Path:
        """Return the path of a new prompt file.

        Raises:
            InputError: there are `MOST_PROMPTS` already.
        """
        if len(self.prompts) >= MOST_PROMPTS:
            raise InputError(f"at most {MOST_PROMPTS} prompts at once: reload the page to begin anew")
        return self.folder / f"prompt-{next(self._numbers)}.safetensors"

    def _name_prompt(self, name: str, file: Path) -> str:
        with self.lock:
            free = name
            while free in (*self.prompts, EMPTY, TEXT):
                free = f"{name} ({len(self.prompts) + 1})"
            self.prompts[free] = file
            return free

    def prompt_of(self, choice: str) -> str | Path:
        """Return the prompt of a name on the page: "empty", "text" or a file.

        Raises:
            InputError: there is no such prompt.
        """
        if choice in (EMPTY, TEXT):
            return choice
        if choice not in self.prompts:
            raise InputError("this prompt is not there any more: choose another one")
        return self.prompts[choice]

    def click_corresponding(self, side: int, click: Sequence[float]) -> None:
        """Add a training point: first in the source, then its correspondence in the target.

        Another click in the source moves the point that has no partner yet.

        Raises:
            InputError: a photo is missing; the target was clicked first; or there are `MOST_POINTS` already.
        """
        with self.lock:
            point = point_of_click(self._photo(side), click)
            source, target = self.clicked
            if side == SOURCE:
                if len(target) >= MOST_POINTS:
                    raise InputError(f"at most {MOST_POINTS} points at once")
                source[len(target) :] = [point]
            elif len(target) == len(source):
                raise InputError("click the point in the left photo first, then the same part here")
            else:
                target.append(point)

    def undo_corresponding(self) -> None:
        """Remove the last click of the training, if there is one."""
        with self.lock:
            source, target = self.clicked
            del (source if len(source) > len(target) else target)[-1:]

    def clear_corresponding(self) -> None:
        """Remove all points of the training."""
        with self.lock:
            self.clicked = [[], []]

    def corresponding_view(self) -> tuple[Image.Image | None, Image.Image | None]:
        """Return both photos with the points of the training."""
        with self.lock:
            photos, clicked = list(self.photos), [list(points) for points in self.clicked]
        source, target = (
            None if photo is None else draw_marks(photo, enumerate(points, 1))
            for photo, points in zip(photos, clicked, strict=True)
        )
        return source, target

    def train(self, model: str, steps: int) -> Iterator[tuple[Progress, str | None]]:
        """Train a Single prompt on the clicked points; yield the progress and finally the name of the prompt.

        The training starts after those of other pages have ended.

        Raises:
            InputError: there are too few points, a training of this page runs already, the model takes no prompt, or
                it was stopped before its first step.
            SD4MatchError: the training cannot go on.
        """
        with self.lock:
            if self.training is not None:
                raise InputError("a training is running already: wait for its end, or stop it")
            source, target = self.clicked
            if len(source) > len(target):
                raise InputError(f"point {len(source)} has no partner: click the same part in the right photo, or undo")
            pairs = ClickedPairs((self._photo(SOURCE), self._photo(TARGET)), list(source), list(target))
            number = sum(name.startswith("learned") for name in self.prompts) + 1
            file = self.new_prompt_file()
            loaded = self.matching.model(model)
            training = self.training = Training(loaded, pairs, steps=steps, file=file)
        try:
            with closing(training.progress(self.matching.training_turn)) as states:
                for progress in states:
                    name = None if progress.file is None else self._name_prompt(f"learned {number}", file)
                    yield progress, name
        finally:
            self.training = None

    def stop_training(self) -> None:
        """End the training after its current step, if there is one."""
        with self.lock:  # one that is about to begin is stopped too
            training = self.training
        if training is not None:
            training.stop()

    def _photo(self, side: int) -> Photo:
        photo = self.photos[side]
        if photo is None:
            raise InputError(f"choose the {'left' if side == SOURCE else 'right'} photo first")
        return photo


MINI_NOTE = (
    "mini is a small model that has only seen drawings: on real photos its matches mean little. "
    "For real ones choose a Stable Diffusion, or hog, which needs no weights."
)


def label_of(settings: MatchSettings) -> str:
    """Return the title of the matches under a prompt.

    >>> label_of(MatchSettings("mini", "text", category="fish"))
    '"a photo of a fish"'
    """
    if isinstance(settings.prompt, Path):
        return settings.name or settings.prompt.stem
    filled = settings.template.replace("{category}", settings.category)
    return "empty prompt" if settings.prompt == EMPTY else f'"{filled}"'


def table_of(points: Sequence[Point], answers: dict[str, Answer]) -> str:
    """Return an HTML table of points, matches and scores."""
    head = "".join(f"<th>match, score<br><small>{html.escape(label)}</small></th>" for label in answers)
    rows = []
    for number, (x, y) in enumerate(points, 1):
        cells = "".join(f"<td>{_match_of(number - 1, answer.result)}</td>" for answer in answers.values())
        color = color_of(number)
        style = f"background:{hex_color(color)};color:{ink_on(color)}"
        mark = f'<span class="mark" style="{style}">{number}</span>'
        rows.append(f"<tr><td>{mark} {x:.0f}, {y:.0f}</td>{cells}</tr>")
    return f'<table class="matches"><tr><th>point<br><small>x, y</small></th>{head}</tr>{"".join(rows)}</table>'


def _match_of(index: int, result: MatchResult) -> str:
    """Return match and score of a point as text."""
    found = np.flatnonzero(result.indices == index)
    if not len(found):
        return "no match"
    (x, y), score = result.target_points[found[0]], result.scores[found[0]]
    return f"{x:.0f}, {y:.0f} <b>{score:.2f}</b>"


def find_prompts(folder: Path) -> dict[str, Path]:
    """Return the prompt files that trainings and the demo have left in their default folders below a folder, by path.

    Args:
        folder: usually the working folder.
    """
    found: dict[str, Path] = {}
    for file in sorted([*folder.glob("demo/*.safetensors"), *folder.glob("runs/*/prompt.safetensors")])[:MOST_PROMPTS]:
        try:
            read_prompt(file)
        except SD4MatchError:
            continue
        found[str(file.relative_to(folder))] = file
    return found
