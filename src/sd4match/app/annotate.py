"""`sd4match app --annotate FOLDER`: mark corresponding points on one's own photos in the browser."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from sd4match.app.annotation_pictures import Mark, draw_annotation, to_photo
from sd4match.app.annotation_session import AnnotationSession, Guesser
from sd4match.app.annotation_store import AnnotationStore
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
"""How long gradio keeps the drawn photos in its folder for temporary files."""
_HINT = (
    "Click a point on the left: the matcher's guess appears on the right as a dashed ring. Accept it, or click the "
    "right place. Points of one name correspond, in all photos of a category. Every click is saved at once."
)


def build_annotation_app(
    store: AnnotationStore, matcher: SemanticMatcher, *, category: str | None = None, note: str = ""
) -> gradio.Blocks:
    """Build the app in which a user marks corresponding points of the photos of a folder.

    Args:
        store: photos and points; held with `AnnotationStore.open` while the app runs.
        matcher: guesses where a point of the left photo is in the right one.
        category: what photos show whose annotation does not say it; for text prompts.
        note: what a user should know about the guesses, for example that a small model makes them.

    Raises:
        ConfigError: gradio is not installed.
    """
    gr = import_gradio()
    layout = _Layout(gr, store, note)
    guesser = Guesser(matcher, category=category)
    where = {"index": 0}  # the pair of the latest action, to which a page that is reloaded returns

    def started(session: AnnotationSession | None) -> AnnotationSession:
        return session or AnnotationSession(store, guesser, index=where["index"])

    def handler(action: Callable[..., object]) -> Callable[..., list[Any]]:
        """Return a handler that does something with the session and shows what came of it."""

        def handle(session: AnnotationSession | None, *values: Any) -> list[Any]:
            session = started(session)
            try:
                action(session, *values)
            except SD4MatchError as error:
                session.refuse(str(error))
            where["index"] = session.index
            return [session, *layout.shown(session)]

        return handle

    def clicker(side: int) -> Callable[..., list[Any]]:
        click = handler(lambda session, pixel: session.click(side, to_photo(_photo(session, side), pixel)))

        # gradio finds the event by the type of the argument, which must be no text
        def handle(session: AnnotationSession | None, event: Any) -> list[Any]:
            return click(session, event.index)

        handle.__annotations__["event"] = gr.SelectData
        return handle

    with layout.blocks:
        state = gr.State(None)
        outputs = [state, *layout.outputs]
        options = {
            "outputs": outputs, "concurrency_id": "annotation", "concurrency_limit": 1, "show_progress": "minimal",
            "show_progress_on": [layout.status], "api_visibility": "private",
        }  # fmt: skip

        def on(event: Callable[..., Any], action: Callable[..., object], *inputs: Any) -> None:
            event(handler(action), inputs=[state, *inputs], **options)

        for side, picture in enumerate(layout.pictures):
            picture.select(clicker(side), inputs=[state], **options)
        on(layout.blocks.load, lambda session: None)
        on(layout.previous.click, lambda session: session.go(session.index - 1))
        on(layout.following.click, lambda session: session.go(session.index + 1))
        on(layout.swap.click, AnnotationSession.swap)
        on(layout.undo.click, AnnotationSession.undo)
        on(layout.accept.click, AnnotationSession.accept)
        on(layout.hide.click, AnnotationSession.hide)
        on(layout.delete.click, AnnotationSession.delete)
        on(layout.points.input, AnnotationSession.select, layout.points)
        on(layout.name.input, lambda session, name: session.rename(name or ""), layout.name)
        on(layout.open_pair.click, AnnotationSession.open_pair, *layout.new_pair)
        on(layout.category.input, lambda session, name: session.describe(name or ""), layout.category)
        on(layout.boxing.input, AnnotationSession.box, layout.boxing)
        on(layout.remove_boxes.click, AnnotationSession.remove_boxes)
        on(layout.share_out.click, AnnotationSession.share_out)
        on(layout.reload.click, AnnotationSession.reload)
        for side, split in enumerate(layout.splits):
            on(split.input, _assigner(side), split)
    return layout.blocks


def _assigner(side: int) -> Callable[[AnnotationSession, str], None]:
    def assign(session: AnnotationSession, split: str) -> None:
        session.assign(side, None if split == _NO_SPLIT else split)

    return assign


def _photo(session: AnnotationSession, side: int) -> Photo:
    return session.store.photo(session.pair[side])


class _Layout:
    """Components of the page, and what they show."""

    def __init__(self, gr: Any, store: AnnotationStore, note: str) -> None:
        self.gr = gr
        self.store = store
        self.blocks = gr.Blocks(
            title="sd4match: annotate", analytics_enabled=False, delete_cache=(_CACHE_SECONDS, _CACHE_SECONDS)
        )
        with self.blocks:
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
                self.name = gr.Dropdown(
                    [], label="Name of the selected point", allow_custom_value=True, min_width=240, elem_id="name",
                    info="Choose a name of this category or type one; it changes in all photos of the category.",
                )  # fmt: skip
            with gr.Accordion("New pair", open=False), gr.Row():
                self.new_pair = [
                    gr.Dropdown([], label=f"Photo on the {side}", min_width=240, elem_id=f"new-{side}")
                    for side in SIDES
                ]
                self.open_pair = gr.Button("Open this pair", min_width=120)
            with gr.Accordion("Category, splits and boxes", open=False):
                with gr.Row():
                    self.category = gr.Dropdown(
                        [], label="What both photos show", allow_custom_value=True, min_width=240, elem_id="category"
                    )
                    self.splits = [
                        gr.Dropdown(_SPLITS, label=f"Split of the {side} photo", min_width=160, elem_id=f"split-{side}")
                        for side in SIDES
                    ]
                    self.share_out = gr.Button("Share all photos out", min_width=160)
                with gr.Row():
                    self.boxing = gr.Checkbox(label="Clicks set the corners of boxes", min_width=240, elem_id="boxing")
                    self.remove_boxes = gr.Button("Remove both boxes", min_width=160)
                    self.reload = gr.Button("Read the folder again", min_width=160)
            with gr.Accordion("Train and measure", open=False):
                gr.Textbox(
                    _commands(store), lines=4, label="In a terminal", buttons=["copy"], interactive=False,
                    elem_id="commands",
                )  # fmt: skip
            gr.Markdown(_HINT + (f"\n\n{note}" if note else ""))
        self.outputs = [
            self.progress, *self.captions, *self.pictures, self.status, self.accept, self.hide, self.delete,
            self.points, self.name, *self.new_pair, self.category, *self.splits, self.boxing, self.remove_boxes,
        ]  # fmt: skip

    def shown(self, session: AnnotationSession) -> list[Any]:
        """Return what `outputs` show of a session."""
        gr, rows, pair = self.gr, session.rows, session.pair
        row = session.row
        choices = [
            (f"{number}. {row.name}: {_state(row.state(0))} / {_state(row.state(1))}", row.name)
            for number, row in enumerate(rows, start=1)
        ]
        has_boxes = self.store.has_boxes
        return [
            f"<p><b>{escape(self.store.root.name)}</b> {escape(session.progress)}</p>",
            *(f"<p>{name}: {escape(photo)}</p>" for name, photo in zip(("Left", "Right"), pair, strict=True)),
            *(self.drawn(session, side) for side in (0, 1)),
            _status(session),
            gr.Button(interactive=session.guess is not None),
            *(gr.Button(interactive=row is not None) for _ in ("hide", "delete")),
            gr.Radio(choices, value=None if row is None else row.name, visible=bool(rows)),
            gr.Dropdown(self.store.names(pair), value=None if row is None else row.name, visible=row is not None),
            *(gr.Dropdown(list(self.store.photos), value=photo) for photo in pair),
            gr.Dropdown(self.store.categories, value=self.store.category(pair[0])),
            *(gr.Dropdown(value=self.store.split(photo) or _NO_SPLIT) for photo in pair),
            gr.Checkbox(value=session.is_boxing, visible=has_boxes),
            gr.Button(visible=has_boxes),
        ]

    def drawn(self, session: AnnotationSession, side: int) -> Image.Image | None:
        """Draw a photo with its points; None if it cannot be read, which the status says."""
        marks = [
            Mark(place, number, is_selected=row.name == session.selected)
            for number, row in enumerate(session.rows, start=1)
            if (place := row.places[side]) is not None
        ]
        if side == 1 and session.guess is not None:
            numbers = {row.name: number for number, row in enumerate(session.rows, start=1)}
            marks.append(Mark(session.guess.point, numbers[session.selected or ""], is_guess=True))
        corner = session.corner[1] if session.corner is not None and session.corner[0] == side else None
        try:
            photo = _photo(session, side)
        except SD4MatchError as error:
            session.refuse(str(error))
            return None
        return draw_annotation(photo, marks, box=self.store.box(session.pair[side]), corner=corner)


def _state(text: str) -> str:
    """Return the state of a point with a sign, which is seen before it is read."""
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
