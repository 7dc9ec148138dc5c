"""What a user does while annotating pairs of photos: clicks, corrections of guesses, and the way from pair to pair."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from sd4match.app.annotation_store import AnnotationStore, Pair, Point
from sd4match.errors import InputError, SD4MatchError
from sd4match.pipeline import SemanticMatcher
from sd4match.results import Features

_KEPT_FEATURES = 8
_NEAR = 0.02
"""Distance of a click from a point that is selected by it, as a share of the longer side of the photo."""
TO_DO = "to do"
NOT_VISIBLE = "not visible"


@dataclass(frozen=True)
class Guess:
    """Where the matcher sees a point of one photo in the other."""

    point: tuple[float, float]
    score: float


class Guesser:
    """A matcher that keeps the features of the photos that it saw last.

    Args:
        matcher: guesses.
        category: what photos show whose annotation does not say it; for text prompts.
    """

    def __init__(self, matcher: SemanticMatcher, *, category: str | None = None) -> None:
        self.matcher = matcher
        self.category = category
        self._features: OrderedDict[tuple[str, str | None], Features] = OrderedDict()
        self._lock = Lock()

    def guess(self, store: AnnotationStore, pair: Pair, point: tuple[float, float]) -> Guess | None:
        """Find a point of the first photo in the second; None if the matcher finds none.

        Raises:
            SD4MatchError: a photo cannot be read, or the matcher cannot match, for example a text prompt without a
                category.
        """
        with self._lock:
            if self.matcher.prompt.scope == "pair":
                photos = [store.photo(photo) for photo in pair]
                source, target = (store.category(photo) or self.category for photo in pair)
                known = (source, target) if source and target else None
                found = self.matcher.match(photos[0], photos[1], [point], category=known)
            else:
                features = [self._extracted(store, photo) for photo in pair]
                found = self.matcher.match(features[0], features[1], [point])
        if len(found) == 0:
            return None
        x, y = found.target_points[0]
        return Guess((float(x), float(y)), float(found.scores[0]))

    def _extracted(self, store: AnnotationStore, name: str) -> Features:
        category = store.category(name) or self.category
        photo = store.photo(name)
        key = photo.key, category
        if key not in self._features:
            self._features[key] = self.matcher.extract(photo, category=category)
        self._features.move_to_end(key)
        while len(self._features) > _KEPT_FEATURES:
            self._features.popitem(last=False)
        return self._features[key]


@dataclass(frozen=True)
class Row:
    """A point of the pair: where it is on the left and on the right."""

    name: str
    places: tuple[Point, Point]
    known: tuple[bool, bool]
    """Whether each photo has it, or says that it is not visible."""

    def state(self, side: int) -> str:
        """Return what is known of it in a photo, in words."""
        if not self.known[side]:
            return TO_DO
        place = self.places[side]
        return NOT_VISIBLE if place is None else f"{place[0]:g}, {place[1]:g}"


class AnnotationSession:
    """One user's way through the pairs; every change is in the store when a method returns.

    Args:
        store: photos and points.
        guesser: guesses where a point of the left photo is in the right one.
        index: pair to begin with.

    After each call `message` says what was done, or what was refused and why, and `is_refused` which of the two.
    """

    def __init__(self, store: AnnotationStore, guesser: Guesser, *, index: int = 0) -> None:
        self.store = store
        self.guesser = guesser
        self.index = 0
        self.is_swapped = False
        self.selected: str | None = None
        self.guess: Guess | None = None
        self.is_boxing = False
        self.corner: tuple[int, tuple[float, float]] | None = None
        """First corner of a box, and on which side it is."""
        self.message = ""
        self.is_refused = False
        self.go(index)

    # what is shown ----------------------------------------------------------------------------------------------------

    @property
    def pair(self) -> Pair:
        """Return the photos on the left and on the right."""
        left, right = self.store.pairs[self.index % len(self.store.pairs)]
        return (right, left) if self.is_swapped else (left, right)

    @property
    def rows(self) -> list[Row]:
        """Return the points of both photos, those of the left one first."""
        left, right = (self.store.points(photo) for photo in self.pair)
        return [
            Row(name, (left.get(name), right.get(name)), (name in left, name in right)) for name in {**left, **right}
        ]

    @property
    def row(self) -> Row | None:
        """Return the selected point."""
        return next((row for row in self.rows if row.name == self.selected), None)

    @property
    def progress(self) -> str:
        """Return how far the user has come."""
        rows = self.rows
        done = sum(all(row.known) for row in rows)
        left = f", {len(rows) - done} to do" if done < len(rows) else ""
        total = sum(point is not None for photo in self.store.photos for point in self.store.points(photo).values())
        return (
            f"Pair {self.index + 1} of {len(self.store.pairs)}: {_count(done, 'point')}{left}. "
            f"In the folder: {_count(total, 'point')} on {_count(len(self.store.photos), 'photo')}."
        )

    # what the user does -----------------------------------------------------------------------------------------------

    def go(self, index: int) -> None:
        """Go to a pair; beyond the last one comes the first again."""
        self.index = index % len(self.store.pairs)
        self.is_swapped = False
        self._forget()
        self._next_to_do()

    def swap(self) -> None:
        """Show the left photo on the right, and the other way round."""
        self.is_swapped = not self.is_swapped
        self._forget()
        self._next_to_do()

    def open_pair(self, left: str, right: str) -> None:
        """Show two photos beside each other, as a further pair if it is none yet.

        Raises:
            SD4MatchError: they make no pair.
        """
        self.go(self.store.add_pair(left, right))
        if self.pair != (left, right):
            self.swap()
        categories = [self.store.category(photo) for photo in self.pair]
        if categories[0] != categories[1]:
            self.refuse(
                f"The photos are of different categories, {categories[0] or 'none'} and {categories[1] or 'none'}: the "
                "data set makes pairs of one category."
            )

    def select(self, name: str | None) -> None:
        """Select a point, and guess where it is on the right if that is not known."""
        self._forget()
        self.selected = name
        row = self.row
        if row is None:
            return
        if row.known[1] or row.places[0] is None:
            self._say(f"{row.name}: {row.state(0)} on the left, {row.state(1)} on the right. A click moves it.")
            return
        self._say(f"{row.name}: click where it is on the right.")
        try:
            self.guess = self.guesser.guess(self.store, self.pair, row.places[0])
        except SD4MatchError as error:
            self.refuse(f"no guess, click on the right yourself: {error}")
        else:
            self._say(
                f"{row.name}: the matcher finds it nowhere; click where it is on the right."
                if self.guess is None
                else f"{row.name}: guess with score {self.guess.score:.2f}. Accept it, or click the right place."
            )

    def click(self, side: int, point: tuple[float, float]) -> None:
        """Mark a point where the user clicked.

        On the left a click near a mark selects it; otherwise it sets the selected point, if that is not known there, or
        a new one. On the right it sets the selected point.

        Args:
            side: 0 for the left photo, 1 for the right one.
            point: (x, y) in its pixels.

        Raises:
            SD4MatchError: nothing is selected to be set on the right, or it cannot be saved.
        """
        photo = self.pair[side]
        if self.is_boxing:
            self._corner(side, point)
            return
        if side == 1:
            row = self.row
            if row is None:
                raise InputError("click on the left first, or choose a point from the list: no point is selected")
            self.store.mark(row.name, {photo: point})
            self._done(row.name, "marked")
            return
        near = self._nearest(point)
        if near is not None:
            self.select(near)
            return
        row = self.row
        if row is not None and not row.known[0]:
            self.store.mark(row.name, {photo: point})
            self._done(row.name, "marked")
            return
        name = self.store.new_name(self.pair)
        self.store.mark(name, {photo: point})
        self.select(name)

    def accept(self) -> None:
        """Save the guess.

        Raises:
            SD4MatchError: there is none, or it cannot be saved.
        """
        if self.guess is None or self.selected is None:
            raise InputError("there is no guess to accept: select a point that is to do on the right")
        self.store.mark(self.selected, {self.pair[1]: self.guess.point})
        self._done(self.selected, "accepted")

    def hide(self) -> None:
        """Say that the right photo does not show the selected point.

        Raises:
            SD4MatchError: nothing is selected, or it cannot be saved.
        """
        name = self._selected_name()
        self.store.mark(name, {self.pair[1]: None})
        self._done(name, "not visible on the right")

    def delete(self) -> None:
        """Remove the selected point from both photos.

        Raises:
            SD4MatchError: nothing is selected, or it cannot be saved.
        """
        name = self._selected_name()
        self.store.remove(name, [photo for photo in self.pair if name in self.store.points(photo)])
        self._forget()
        self._say(f"{name}: removed from both photos. Undo brings it back.")

    def rename(self, name: str) -> None:
        """Rename the selected point in all photos of the category.

        Raises:
            SD4MatchError: nothing is selected, the name cannot be one, or it cannot be saved.
        """
        old = self._selected_name()
        name = name.strip()
        if name == old:
            return
        self.store.rename(old, name, self.pair)
        self.select(name)

    def undo(self) -> None:
        """Take the last change back.

        Raises:
            SD4MatchError: it cannot be saved.
        """
        taken_back = self.store.undo()
        self.index %= len(self.store.pairs)
        self._forget()
        self._say("The last change is taken back." if taken_back else "There is nothing to take back.")

    def describe(self, category: str) -> None:
        """Say what both photos show; an empty text for nothing.

        Raises:
            SD4MatchError: it cannot be a category, or it cannot be saved.
        """
        wanted = category.strip() or None
        if any(self.store.category(photo) != wanted for photo in self.pair):
            self.store.describe(self.pair, category=wanted)
            self.select(self.selected)

    def box(self, is_boxing: bool) -> None:
        """Say whether clicks set the corners of boxes, or points."""
        self._forget()
        self.is_boxing = is_boxing
        if is_boxing:
            self._say("Click two opposite corners of the object, on either photo.")

    def remove_boxes(self) -> None:
        """Remove the boxes of both photos.

        Raises:
            SD4MatchError: it cannot be saved.
        """
        for photo in self.pair:
            if self.store.box(photo) is not None:
                self.store.frame(photo, None)
        self._say("The boxes of both photos are removed.")

    def assign(self, side: int, split: str | None) -> None:
        """Put the left (0) or the right photo (1) into a split.

        Raises:
            SD4MatchError: there is no such split, or it cannot be saved.
        """
        photo = self.pair[side]
        self.store.assign(photo, split)
        self._say(f"{photo} is in {'no split' if split is None else f'the split {split}'}.")

    def share_out(self) -> None:
        """Put all annotated photos into splits.

        Raises:
            SD4MatchError: there are too few, or it cannot be saved.
        """
        counts = self.store.share_out()
        self._say("Photos shared out: " + ", ".join(f"{count} {split}" for split, count in counts.items()) + ".")

    def reload(self) -> None:
        """Read the folder again.

        Raises:
            SD4MatchError: it cannot be annotated any more.
        """
        pair = self.store.pairs[self.index]
        self.store.reload()
        self.go(self.store.pairs.index(pair) if pair in self.store.pairs else 0)
        self._say("The folder is read again.")

    def _corner(self, side: int, point: tuple[float, float]) -> None:
        if self.corner is None or self.corner[0] != side:
            self.corner = side, point
            self._say("Now click the opposite corner.")
            return
        (x, y), (u, v) = self.corner[1], point
        self.corner = None
        self.store.frame(self.pair[side], (x, y, u, v))
        self._say(f"The box of {self.pair[side]} is set.")

    def _selected_name(self) -> str:
        if self.selected is None:
            raise InputError("no point is selected: click on the left, or choose one from the list")
        return self.selected

    def _nearest(self, point: tuple[float, float]) -> str | None:
        """Return the name of the point of the left photo that a click hits."""
        reach = _NEAR * max(self.store.size(self.pair[0]))
        near = [
            (distance, row.name)
            for row in self.rows
            if row.places[0] is not None and (distance := math.dist(row.places[0], point)) <= reach
        ]
        return min(near)[1] if near else None

    def _done(self, name: str, what: str) -> None:
        """Say what was saved, and select the next point that is to do."""
        self._forget()
        if not self._next_to_do():
            self.selected = name
            self._say(f"{name}: {what}. Every point of this pair is done: click a new one on the left, or go on.")
        else:
            self._say(f"{name}: {what}. {self.message}")

    def _next_to_do(self) -> bool:
        """Select the first point of the left photo of which nothing is known on the right."""
        waiting = next((row.name for row in self.rows if row.places[0] is not None and not row.known[1]), None)
        if waiting is None:
            self._say("Click a point on the left.")
            return False
        self.select(waiting)
        return True

    def _forget(self) -> None:
        self.selected = self.guess = self.corner = None
        self.is_boxing = False
        self._say("")

    def _say(self, text: str) -> None:
        self.message, self.is_refused = text, False

    def refuse(self, text: str) -> None:
        """Say why something was not done."""
        self.message, self.is_refused = text, True


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
