"""State and actions of a user who annotates pairs of photos: clicks, corrections of guesses, and navigation."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from threading import Lock

from sd4match.app.annotation_pictures import Room
from sd4match.app.annotation_store import AnnotationStore, Pair, Point
from sd4match.errors import InputError, SD4MatchError
from sd4match.pipeline import SemanticMatcher
from sd4match.results import Features

_KEPT_FEATURES = 8
TO_DO = "to do"
NOT_VISIBLE = "not visible"


@dataclass(frozen=True)
class Guess:
    """Match that the matcher proposes for a point."""

    point: tuple[float, float]
    score: float


class Guesser:
    """Matcher that caches the features of the last photos.

    Args:
        matcher: matcher that guesses.
        category: category of photos whose annotation has none, for text prompts.
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
    """Named point of a pair, with its coordinates in the left and in the right photo."""

    name: str
    points: tuple[Point, Point]
    known: tuple[bool, bool]
    """Flags of whether the point is annotated in each photo, as a location or as not visible."""

    def state(self, side: int) -> str:
        """Return the annotation of the point in a photo as text."""
        if not self.known[side]:
            return TO_DO
        point = self.points[side]
        return NOT_VISIBLE if point is None else f"{point[0]:g}, {point[1]:g}"


class Needs(IntEnum):
    """State that an action of the page depends on, and that must be as shown; each level includes those before it."""

    NOTHING = 0
    PAIR = 1
    """Photos of the pair, their order, and whether clicks set points or boxes."""
    SELECTION = 2
    """Selected point."""
    GUESS = 3


class AnnotationSession:
    """Session of one user. Every change is in the store when a method returns.

    The current pair is stored by the names of its photos, since other pages may change the list of pairs.

    Args:
        store: photos and points.
        guesser: matcher that guesses where a point of the left photo is in the right one.
        pair: photos to begin with; the first pair of the store if none is given, or they are not in the folder.

    After each call `message` says what was done, or what was refused and why; `is_refused` tells the two cases apart.
    """

    def __init__(self, store: AnnotationStore, guesser: Guesser, *, pair: Pair | None = None) -> None:
        self.store = store
        self.guesser = guesser
        self.room = Room()
        self.pair: Pair = store.pairs[0] if pair is None or not set(pair) <= set(store.photos) else pair
        """Photos on the left and on the right."""
        self.selected: str | None = None
        self._selected_as: str | None = None
        """Name that the selected point had when it was selected; renaming does not change the selection."""
        self.guess: Guess | None = None
        self.is_boxing = False
        self.corner: tuple[int, tuple[float, float]] | None = None
        """Side and coordinates of the first corner of a box."""
        self.photos_shown: tuple[str, ...] = ()
        """Names of photos that can be chosen on the page."""
        self.message = ""
        self.is_refused = False
        self._show(self.pair)

    # displayed state --------------------------------------------------------------------------------------------------

    @property
    def index(self) -> int | None:
        """Index of the pair in the store, in either order; None if it is not there."""
        either = self.pair, self.pair[::-1]
        return next((index for index, pair in enumerate(self.store.pairs) if pair in either), None)

    @property
    def view(self) -> str:
        """Token of the displayed state, which the page sends back with each action; see `check`."""
        values = (self.pair, self.is_boxing), self._selected_as, self.guess
        return ".".join(blake2b(repr(value).encode(), digest_size=8).hexdigest() for value in values)

    @property
    def rows(self) -> list[Row]:
        """Points of both photos, those of the left one first."""
        left, right = (self.store.points(photo) for photo in self.pair)
        return [
            Row(name, (left.get(name), right.get(name)), (name in left, name in right)) for name in {**left, **right}
        ]

    @property
    def row(self) -> Row | None:
        """Selected point; None if no point is selected."""
        return next((row for row in self.rows if row.name == self.selected), None)

    @property
    def progress(self) -> str:
        """Progress of the annotation as text."""
        rows = self.rows
        done = sum(all(row.known) for row in rows)
        left = f", {len(rows) - done} to do" if done < len(rows) else ""
        total = sum(point is not None for photo in self.store.photos for point in self.store.points(photo).values())
        index, pairs = self.index, len(self.store.pairs)
        which = f"A further pair beside {pairs}" if index is None else f"Pair {index + 1} of {pairs}"
        return (
            f"{which}: {_count(done, 'point')}{left}. "
            f"In the folder: {_count(total, 'point')} on {_count(len(self.store.photos), 'photo')}."
        )

    # actions of the user ----------------------------------------------------------------------------------------------

    def check(self, seen: str | None, needs: Needs) -> None:
        """Check that an action was made on the current state, since the page may have shown an older one.

        Args:
            seen: the `view` that the page showed.
            needs: state that the action depends on.

        Raises:
            InputError: the page showed another state, or a photo of the pair is no longer in the folder.
        """
        gone = [photo for photo in self.pair if photo not in self.store.photos]
        if gone:
            self._show(self.store.pairs[0])
            raise InputError(f"{' and '.join(gone)} is not in the folder any more: here is the first pair")
        if (seen or "").split(".")[:needs] != self.view.split(".")[:needs]:
            raise InputError(
                "nothing was changed: what you clicked was just being replaced on the page; look, and repeat it"
            )

    def needs_of_click(self, side: int) -> Needs:
        """Return the state that a click on a photo depends on; on the left usually the photos only."""
        if self.is_boxing:
            return Needs.PAIR
        sets_selected = side == 1 or (self.row is not None and not self.row.known[0])
        return Needs.SELECTION if sets_selected else Needs.PAIR

    def move(self, step: int) -> None:
        """Move forward or back by some pairs; the first pair follows the last one."""
        index = self.index
        if index is None:
            index = -1 if step > 0 else 0
        self._show(self.store.pairs[(index + step) % len(self.store.pairs)])

    def swap(self) -> None:
        """Swap the left and the right photo."""
        self._show(self.pair[::-1])

    def open_pair(self, left: str, right: str) -> None:
        """Show two photos, and add them as a pair if they are none yet.

        Raises:
            SD4MatchError: they cannot be a pair.
        """
        self.store.add_pair(left, right)
        self._show((left, right))
        categories = [self.store.category(photo) for photo in self.pair]
        if categories[0] != categories[1]:
            self.refuse(
                f"The photos are of different categories, {categories[0] or 'none'} and {categories[1] or 'none'}: the "
                "data set makes pairs of one category."
            )

    def select(self, name: str | None) -> None:
        """Select a point, and guess where it is on the right if that is not known."""
        self._forget()
        self._choose(name)
        row = self.row
        if row is None:
            self._choose(None)
            return
        if row.known[1] or row.points[0] is None:
            self._say(f"{row.name}: {row.state(0)} on the left, {row.state(1)} on the right. A click moves it.")
            return
        self._say(f"{row.name}: click where it is on the right.")
        try:
            self.guess = self.guesser.guess(self.store, self.pair, row.points[0])
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
        row = self.row
        if self.guess is None or row is None:
            raise InputError("there is no guess to accept: select a point that is to do on the right")
        self.store.mark(row.name, {self.pair[1]: self.guess.point})
        self._done(row.name, "accepted")

    def hide(self) -> None:
        """Annotate the selected point as not visible in the right photo.

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
        """Rename the selected point in all photos of the category; a name that others have makes it the same point.

        Raises:
            SD4MatchError: nothing is selected, the name cannot be one, or it cannot be saved.
        """
        old = self._selected_name()
        name = name.strip()
        if name == old:
            return
        joins = name in self.store.names(self.pair)
        self.store.rename(old, name, self.pair)
        self.selected = name
        self.message = self.message.replace(f"{old}:", f"{name}:", 1)
        if joins:
            self._say_first(f"{old} is now the same point as {name} of other photos; Undo takes it back.")

    def undo(self) -> None:
        """Undo the last change, name it in the message, and show a pair of its photos.

        Raises:
            SD4MatchError: it cannot be saved.
        """
        change = self.store.undo()
        if change is None:
            self._say("There is nothing to take back.")
            return
        if not set(change.photos) <= set(self.pair):
            self.pair = next((pair for pair in self.store.pairs if set(change.photos) <= set(pair)), self.pair)
        self._show(self.pair)
        if change.point in [row.name for row in self.rows]:
            self.select(change.point)
        self._say_first(f"Taken back: {change.text}.")

    def describe(self, category: str) -> None:
        """Set the category of both photos; an empty text removes it.

        Raises:
            SD4MatchError: the text cannot be a category, or it cannot be saved.
        """
        wanted = category.strip() or None
        if all(self.store.category(photo) == wanted for photo in self.pair):
            return
        self.store.describe(self.pair, category=wanted)
        in_category = (photo for photo in self.store.photos if self.store.category(photo) == wanted)
        others = (photo for photo in in_category if photo not in self.pair)
        taken = {name for photo in others for name in self.store.points(photo)}
        joined = [row.name for row in self.rows if row.name in taken]
        selected_as = self._selected_as
        self.select(self.selected)
        self._selected_as = selected_as
        self._say_first(f"Both photos show {wanted or 'no category'}.")
        if joined:
            self._say_first(f"Points that are now the same as those of other photos: {', '.join(joined)}.")

    def box(self, is_boxing: bool) -> None:
        """Set whether clicks set the corners of boxes, or points."""
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
        self.store.reload()
        self._show(self.pair if set(self.pair) <= set(self.store.photos) else self.store.pairs[0])
        self._say_first("The folder is read again.")

    def _show(self, pair: Pair) -> None:
        self.pair = pair
        self._forget()
        self._next_to_do()

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
        row = self.row  # another page may have removed it
        if row is None:
            raise InputError("no point is selected: click on the left, or choose one from the list")
        return row.name

    def _nearest(self, point: tuple[float, float]) -> str | None:
        """Return the name of the point of the left photo that a click hits."""
        reach = self.room.reach(self.store.size(self.pair[0]))
        near = [
            (distance, row.name)
            for row in self.rows
            if row.points[0] is not None and (distance := math.dist(row.points[0], point)) <= reach
        ]
        return min(near)[1] if near else None

    def _done(self, name: str, what: str) -> None:
        """Set a message about a saved change, and select the next point without annotation."""
        self._forget()
        if not self._next_to_do():
            self._choose(name)
            self._say(f"{name}: {what}. Every point of this pair is done: click a new one on the left, or go on.")
        else:
            self._say_first(f"{name}: {what}.")

    def _next_to_do(self) -> bool:
        """Select the first point of the left photo that is not annotated on the right."""
        waiting = next((row.name for row in self.rows if row.points[0] is not None and not row.known[1]), None)
        if waiting is None:
            self._say("Click a point on the left.")
            return False
        self.select(waiting)
        return True

    def _forget(self) -> None:
        self._choose(None)
        self.guess = self.corner = None
        self.is_boxing = False
        self._say("")

    def _choose(self, name: str | None) -> None:
        self.selected = self._selected_as = name

    def _say_first(self, text: str) -> None:
        """Prepend a text to the message."""
        self.message = f"{text} {self.message}".strip()

    def _say(self, text: str) -> None:
        self.message, self.is_refused = text, False

    def refuse(self, text: str) -> None:
        """Set a message about a refused action."""
        self.message, self.is_refused = text, True


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
