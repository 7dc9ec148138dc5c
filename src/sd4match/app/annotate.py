"""Browser app of `sd4match app --annotate FOLDER`, in which users mark corresponding points of their photos."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from sd4match.app.annotation_pictures import Mark, Room, draw_annotation, to_photo
from sd4match.app.annotation_session import AnnotationSession, Guesser, Needs
from sd4match.app.annotation_store import AnnotationStore, Pair
from sd4match.app.theme import import_gradio
from sd4match.errors import SD4MatchError
from sd4match.structures.images import Photo

if TYPE_CHECKING:
    import gradio
    from PIL import Image

    from sd4match.pipeline import SemanticMatcher

SIDES = ("left", "right")
_NO_SPLIT = "none"
_SPLITS = (_NO_SPLIT, "train", "validation", "test")
_CACHE_SECONDS = 3600
"""Interval and age in seconds at which gradio deletes drawn photos from its folder for temporary files."""
_NAMED = 12
"""Largest number of names that the page gives as examples."""
_NAME_INFO = "Type a name and press Enter; it changes in all photos of the category."
_HINT = (
    "Click a point on the left: the matcher's guess appears on the right as a dashed ring. Accept it, or click the "
    "right place. Points of one name correspond, in all photos of a category. Every click is saved at once."
)


_MEASURE = """() => {
  const phone = innerWidth <= 640, photo = document.querySelector('.photo');
  const height = phone ? Math.max(140, (innerHeight - 400) / 2) : 0.6 * innerHeight;
  const touched = matchMedia('(pointer: coarse)').matches;
  return [null, JSON.stringify([photo ? photo.clientWidth : innerWidth, height, touched])];
}"""
"""Script that reports the size that a photo may have on the page."""


def build_annotation_app(
    store: AnnotationStore, matcher: SemanticMatcher, *, category: str | None = None, note: str = ""
) -> gradio.Blocks:
    """Build the app in which a user marks corresponding points of the photos of a folder.

    Args:
        store: photos and points; its folder is locked with `AnnotationStore.open` while the app runs.
        matcher: matcher that guesses where a point of the left photo is in the right one.
        category: category of photos whose annotation has none, for text prompts.
        note: remark about the guesses on the page, for example that a small model makes them.

    Raises:
        ConfigError: gradio is not installed.
    """
    gr = import_gradio()
    layout = _Layout(gr, store, note)
    guesser = Guesser(matcher, category=category)
    latest: dict[str, Pair] = {}  # the pair of the latest action, which a reloaded page shows

    def handler(action: Callable[..., object], needs: Callable[[AnnotationSession], Needs]) -> Callable[..., list[Any]]:
        """Return an event handler that runs an action on the session and shows the result."""

        def handle(session: AnnotationSession | None, seen: str | None, *values: Any) -> list[Any]:
            session = session or AnnotationSession(store, guesser, pair=latest.get("pair"))
            try:
                session.check(seen, needs(session))
                action(session, *values)
            except SD4MatchError as error:
                session.refuse(str(error))
            latest["pair"] = session.pair
            return [session, *layout.shown(session)]

        return handle

    def clicker(side: int) -> Callable[..., list[Any]]:
        click = handler(
            lambda session, pixel: session.click(side, to_photo(_photo(session, side), pixel)),
            lambda session: session.needs_of_click(side),
        )

        # gradio finds the event by the type of the argument, which must be no text
        def handle(session: AnnotationSession | None, seen: str | None, event: Any) -> list[Any]:
            return click(session, seen, event.index)

        handle.__annotations__["event"] = gr.SelectData
        return handle

    def measured(session: AnnotationSession | None, room: str | None) -> list[Any]:
        session = session or AnnotationSession(store, guesser, pair=latest.get("pair"))
        session.room = Room.read(room)
        return [session, *layout.shown(session)]

    with layout.blocks:
        state = gr.State(None)
        outputs = [state, *layout.outputs]
        options = {
            "outputs": outputs, "concurrency_id": "annotation", "concurrency_limit": 1, "show_progress": "minimal",
            "show_progress_on": [layout.status], "api_visibility": "private",
        }  # fmt: skip

        def on(event: Callable[..., Any], needs: Needs, action: Callable[..., object], *inputs: Any) -> None:
            event(handler(action, lambda session: needs), inputs=[state, layout.seen, *inputs], **options)

        def on_leaving(
            field: Any,
            needs: Needs,
            action: Callable[..., object],
            shown: Callable[[AnnotationSession], str | None],
        ) -> None:
            """Return a handler that uses the text of a field when the field is left, unless the text is unchanged."""
            act = handler(action, lambda session: needs)

            def handle(session: AnnotationSession | None, seen: str | None, text: str | None) -> Any:
                if session is None or (text or "").strip() == (shown(session) or ""):
                    return gr.skip()
                return act(session, seen, text)

            field.blur(handle, inputs=[state, layout.seen, field], **options)

        for side, picture in enumerate(layout.pictures):
            # a click that comes before the answer to another one is refused with a message, and not dropped
            picture.select(clicker(side), inputs=[state, layout.seen], trigger_mode="multiple", **options)
        layout.blocks.load(measured, inputs=[state, layout.seen], js=_MEASURE, **options)
        on(layout.previous.click, Needs.NOTHING, lambda session: session.move(-1))
        on(layout.following.click, Needs.NOTHING, lambda session: session.move(1))
        on(layout.swap.click, Needs.PAIR, AnnotationSession.swap)
        on(layout.undo.click, Needs.NOTHING, AnnotationSession.undo)
        on(layout.accept.click, Needs.GUESS, AnnotationSession.accept)
        on(layout.hide.click, Needs.SELECTION, AnnotationSession.hide)
        on(layout.delete.click, Needs.SELECTION, AnnotationSession.delete)
        on(layout.points.input, Needs.PAIR, AnnotationSession.select, layout.points)
        on(layout.name.submit, Needs.SELECTION, _rename, layout.name)
        on_leaving(layout.name, Needs.SELECTION, _rename, lambda session: session.selected)
        on(layout.open_pair.click, Needs.NOTHING, AnnotationSession.open_pair, *layout.new_pair)
        on(layout.category.submit, Needs.PAIR, _describe, layout.category)
        on_leaving(layout.category, Needs.PAIR, _describe, lambda session: session.store.category(session.pair[0]))
        on(layout.boxing.input, Needs.NOTHING, AnnotationSession.box, layout.boxing)
        on(layout.remove_boxes.click, Needs.PAIR, AnnotationSession.remove_boxes)
        on(layout.share_out.click, Needs.NOTHING, AnnotationSession.share_out)
        on(layout.reload.click, Needs.NOTHING, AnnotationSession.reload)
        for side, split in enumerate(layout.splits):
            on(split.input, Needs.PAIR, _assigner(side), split)
    return layout.blocks


def _assigner(side: int) -> Callable[[AnnotationSession, str], None]:
    def assign(session: AnnotationSession, split: str) -> None:
        session.assign(side, None if split == _NO_SPLIT else split)

    return assign


def _rename(session: AnnotationSession, name: str | None) -> None:
    session.rename(name or "")


def _describe(session: AnnotationSession, category: str | None) -> None:
    session.describe(category or "")


def _photo(session: AnnotationSession, side: int) -> Photo:
    return session.store.photo(session.pair[side])


class _Layout:
    """Components of the page and their values."""

    def __init__(self, gr: Any, store: AnnotationStore, note: str) -> None:
        self.gr = gr
        self.store = store
        self.blocks = gr.Blocks(
            title="sd4match: annotate", analytics_enabled=False, delete_cache=(_CACHE_SECONDS, _CACHE_SECONDS)
        )
        with self.blocks:
            self.seen = gr.Textbox(visible="hidden", elem_id="seen")
            self.progress = gr.HTML(elem_id="progress")
            with gr.Row(elem_id="moves"):
                self.previous, self.following, self.swap, self.undo = (
                    gr.Button(name, min_width=60, size="md") for name in ("Previous", "Next", "Swap", "Undo")
                )
            self.captions, self.pictures = [], []
            with gr.Row():
                for side in SIDES:
                    with gr.Column(min_width=320, elem_classes="photo"):
                        self.captions.append(gr.HTML())
                        self.pictures.append(
                            gr.Image(
                                format="jpeg", interactive=False, buttons=[], elem_id=f"photo-{side}",
                                show_label=False, alt_text=f"photo on the {side}, with its points",
                            )
                        )  # fmt: skip
            with gr.Column(elem_id="actions"):
                self.status = gr.HTML(elem_id="status")
                with gr.Row():
                    self.accept = gr.Button("Accept", variant="primary", min_width=60, size="md")
                    self.hide = gr.Button("Not visible", min_width=60, size="md")
                    self.delete = gr.Button("Delete", min_width=60, size="md")
            with gr.Row():
                self.points = gr.Radio([], label="Points (left / right)", scale=3, min_width=320, elem_id="points")
                # no list to choose from: gradio's takes its first entry when the field is emptied
                self.name = gr.Textbox(
                    label="Name of the selected point", max_lines=1, min_width=240, elem_id="name", info=_NAME_INFO
                )
            with gr.Accordion("New pair", open=False), gr.Row():
                self.new_pair = [
                    gr.Dropdown([], label=f"Photo on the {side}", min_width=240, elem_id=f"new-{side}")
                    for side in SIDES
                ]
                self.open_pair = gr.Button("Open this pair", min_width=120)
            with gr.Accordion("Category, splits and boxes", open=False):
                with gr.Row():
                    self.category = gr.Textbox(
                        label="What both photos show", max_lines=1, min_width=240, elem_id="category", info=" "
                    )
                    self.splits = [
                        gr.Dropdown(_SPLITS, label=f"Split of the {side} photo", min_width=160, elem_id=f"split-{side}")
                        for side in SIDES
                    ]
                    self.share_out = gr.Button("Put all photos into splits", min_width=160)
                with gr.Row():
                    self.boxing = gr.Checkbox(label="Clicks set the corners of boxes", min_width=240, elem_id="boxing")
                    self.remove_boxes = gr.Button("Remove both boxes", min_width=160)
                    self.reload = gr.Button("Read the folder again", min_width=160)
            with gr.Accordion("Train and measure", open=False):
                gr.Textbox(
                    _commands(store), lines=3, label="In a terminal", buttons=["copy"], interactive=False,
                    elem_id="commands",
                )  # fmt: skip
            gr.Markdown(_HINT + (f"\n\n{note}" if note else ""))
        self.outputs = [
            self.seen, self.progress, *self.captions, *self.pictures, self.status, self.accept, self.hide, self.delete,
            self.points, self.name, *self.new_pair, self.category, *self.splits, self.boxing, self.remove_boxes,
        ]  # fmt: skip

    def shown(self, session: AnnotationSession) -> list[Any]:
        """Return the values of `outputs` for a session."""
        gr, rows, pair = self.gr, session.rows, session.pair
        row = session.row
        choices = [
            (f"{number}. {row.name}: {_state(row.state(0))} / {_state(row.state(1))}", row.name)
            for number, row in enumerate(rows, start=1)
        ]
        has_boxes = self.store.has_boxes
        is_known = session.photos_shown is self.store.photos
        photos = {} if is_known else {"choices": list(self.store.photos)}  # a folder may hold thousands
        session.photos_shown = self.store.photos
        pictures = [self.drawn(session, side) for side in (0, 1)]  # what cannot be drawn, the status says
        left_out = f'<p class="left-out">{escape(text)}</p>' if (text := self.store.left_out) else ""
        names, categories = self.store.names(pair), self.store.categories
        return [
            session.view,
            f"<p><b>{escape(self.store.root.name)}</b> {escape(session.progress)}</p>{left_out}",
            *(f"<p>{name}: {escape(photo)}</p>" for name, photo in zip(("Left", "Right"), pair, strict=True)),
            *pictures,
            _status(session),
            gr.Button(interactive=session.guess is not None),
            *(gr.Button(interactive=row is not None) for _ in ("hide", "delete")),
            gr.Radio(choices, value=None if row is None else row.name, visible=bool(rows)),
            gr.Textbox("" if row is None else row.name, info=_NAME_INFO + _examples(names), visible=row is not None),
            *(gr.Dropdown(value=photo, **photos) for photo in pair),
            gr.Textbox(self.store.category(pair[0]) or "", info="One word for both." + _examples(categories)),
            *(gr.Dropdown(value=self.store.split(photo) or _NO_SPLIT) for photo in pair),
            gr.Checkbox(value=session.is_boxing, visible=has_boxes),
            gr.Button(visible=has_boxes),
        ]

    def drawn(self, session: AnnotationSession, side: int) -> Image.Image | None:
        """Draw a photo with its points; None if it cannot be read, and the status then says why."""
        marks = [
            Mark(point, number, is_selected=row.name == session.selected)
            for number, row in enumerate(session.rows, start=1)
            if (point := row.points[side]) is not None
        ]
        if side == 1 and session.guess is not None:
            marks += [
                Mark(session.guess.point, number, is_guess=True)
                for number, row in enumerate(session.rows, start=1)
                if row.name == session.selected
            ]
        corner = session.corner[1] if session.corner is not None and session.corner[0] == side else None
        try:
            photo = _photo(session, side)
        except SD4MatchError as error:
            session.refuse(str(error))
            return None
        return draw_annotation(photo, marks, box=self.store.box(session.pair[side]), corner=corner, room=session.room)


def _examples(words: Sequence[str]) -> str:
    """Return a text with the words that are in use."""
    more = len(words) - _NAMED
    return f" In use: {', '.join(words[:_NAMED])}{f' and {more} more' if more > 0 else ''}." if words else ""


def _state(text: str) -> str:
    """Return the state of a point with a sign that is recognized at a glance."""
    signs = {"to do": "○ to do", "not visible": "– not visible"}
    return signs.get(text, "✓")


def _status(session: AnnotationSession) -> str:
    kind, sign = ("refused", "⚠ ") if session.is_refused else ("said", "")
    return f'<p role="status" aria-live="polite" class="{kind}">{sign}{escape(session.message)}</p>'


def _commands(store: AnnotationStore) -> str:
    """Return what to type to check the folder, to train a prompt and to measure it."""
    root = shlex.quote(str(store.root))
    exif = " --set data.exif=true" if store.exif else ""
    data = f"--dataset folder --root {root}{exif}"
    return "\n".join([
        f"sd4match data check folder {root}{exif}",
        f"sd4match train {data} --preset single --output runs/own",
        f"sd4match evaluate {data} --prompt runs/own/prompt.safetensors --against empty --output runs/own-report",
    ])  # fmt: skip
