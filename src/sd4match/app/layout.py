"""Layout of the app: components of the page, and the events that call methods of the session."""

from __future__ import annotations

import functools
import html
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sd4match.app.theme import import_gradio
from sd4match.arguments import check_arguments
from sd4match.config.experiment import ExperimentConfig
from sd4match.errors import InputError, SD4MatchError

if TYPE_CHECKING:
    import gradio
    from PIL import Image

    from sd4match.app.matching import MatchSettings
    from sd4match.app.session import Session, View

_HEAD = """# sd4match
Choose two photos, or an example below, then click a point in the left one: its match, score and heat map appear."""
_TRAIN = """Teach a prompt your own correspondences: **click a point in the left photo, then the same part in the right
one**, at least {fewest} times; ten or more over the whole object are better. The photos are those of the tab Match."""
_STYLE = """<style>
#table { max-height: 320px; overflow: auto !important; padding: 4px 0; }
#table .refused { border-left: 4px solid #d55e00; padding-left: 8px; font-weight: 600; }
.matches { width: 100%; border: 0 !important; border-collapse: collapse; font-size: 0.85rem; }
.matches td { white-space: nowrap; }
.matches small { font-weight: normal; }
.matches :is(tr, th, td) {
  padding: 4px 6px !important; text-align: left; border: 0 !important; vertical-align: bottom;
  border-bottom: 1px solid var(--border-color-primary) !important;
}
.matches .mark { border-radius: 5px; padding: 0 7px; font-weight: 600; }
#examples, #examples .grid-wrap { height: auto !important; min-height: 0 !important; max-height: none !important; }
#examples .thumbnail-item { aspect-ratio: 2 / 1 !important; }
#second-target .image-container { padding-bottom: 42px; }
#examples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
@media (max-width: 600px) { #examples .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; } }
</style>"""
_HEIGHT, _HEIGHT_OF_HEAT = 440, 400
"""Height of photos with the buttons below them, and of heat maps, in CSS pixels."""
_GRIDS = (2, 3, 4, 6, 8)
_SOURCES = ["upload", "webcam", "clipboard"]


@check_arguments
def build_app(
    config: ExperimentConfig | None = None,
    *,
    prompts: Mapping[str, Path] | None = None,
    device: str = "auto",
) -> gradio.Blocks:
    """Build the app, with a tab that matches clicked points, and one that trains a prompt on them.

    Args:
        config: experiment of the first model to choose from; the preset "empty", on mini, if not given. All models that
            need no download can be chosen too.
        prompts: files of learned prompts to choose from, by the names that the page shows.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Returns:
        Blocks of gradio: `launch` them with `**launch_options()`, or mount them in another application.

    Raises:
        ConfigError: gradio is not installed, or there is no such device.
        CheckpointError: the model of the experiment cannot be loaded.
        PromptFileError: one of the prompts is no prompt file.

    >>> build_app().title  # doctest: +SKIP
    'sd4match'
    """
    from sd4match.app.matching import Matching, models_here
    from sd4match.app.session import Session
    from sd4match.config.presets import load_preset
    from sd4match.prompting.serialization import read_prompt

    for file in (prompts or {}).values():
        read_prompt(file)
    gr = import_gradio()
    config = config or load_preset("empty")
    matching = Matching(models_here(config), device=device)
    matching.model(config.backbone.model_name)  # so that errors in it are raised before the page is served
    with gr.Blocks(title="sd4match", analytics_enabled=False, delete_cache=(3600, 86_400)) as app:
        session = gr.State(
            lambda: Session(matching, dict(prompts or {})), delete_callback=lambda closed: closed.close()
        )
        _Page(gr, session, matching.experiments, dict(prompts or {}))
    return app


class _Page:
    """Components of the page, and the functions that their events call.

    Args:
        gr: module gradio.
        session: state of the user.
        experiments: models to choose from.
        prompts: files of prompts to choose from, by name.
    """

    def __init__(
        self, gr: Any, session: Any, experiments: Mapping[str, ExperimentConfig], prompts: Mapping[str, Path]
    ) -> None:
        from sd4match.app.examples import example_pairs

        self.gr = gr
        self.session = session
        self.experiments = experiments
        self.examples = example_pairs()
        first = next(iter(experiments.values()))
        gr.HTML(_STYLE, padding=False)
        gr.Markdown(_HEAD)
        with gr.Tab("Match"):
            self.note = gr.Markdown(self._note_of(next(iter(experiments))))
            self._lay_out_matching(first, prompts)
        with gr.Tab("Train") as self.train_tab:
            self._lay_out_training()
        self._connect_matching()
        self._connect_training()

    # layout

    def _lay_out_matching(self, first: ExperimentConfig, prompts: Mapping[str, Path]) -> None:
        gr = self.gr
        with gr.Row():
            with gr.Column(min_width=300):
                self.source = self._photo("Left photo: click the points to find", "source")
                with gr.Row():
                    self.undo = gr.Button("Undo", size="sm", min_width=60)
                    self.clear = gr.Button("Clear", size="sm", min_width=60)
                    self.grid = gr.Button("Grid", size="sm", min_width=60)
                    self.grid_side = gr.Dropdown(
                        [(f"{side} x {side}", side) for side in _GRIDS], value=4, show_label=False, container=False,
                        min_width=110, elem_id="grid-side", label="Points a side",
                    )  # fmt: skip
                self.table = gr.HTML("Choose two photos.", elem_id="table", padding=False)
            with gr.Column(min_width=300):
                self.target = self._photo("Right photo: the matches", "target")
                self.heat = self._picture("Heat map of the last point", "heat", height=_HEIGHT_OF_HEAT)
            with gr.Column(min_width=300, visible=False) as self.second_column:
                self.second_target = self._picture("Right photo: second prompt", "second-target", height=_HEIGHT)
                self.second_heat = self._picture("Heat map: second prompt", "second-heat", height=_HEIGHT_OF_HEAT)
        with gr.Row():
            self.json = gr.DownloadButton("Download JSON", size="sm", interactive=False, min_width=120, elem_id="json")
            self.png = gr.DownloadButton("Download picture", size="sm", interactive=False, min_width=120, elem_id="png")
            self.dense = gr.Button("Match all pixels", size="sm", min_width=120, elem_id="dense")
        with gr.Column(visible=False) as self.dense_column:
            self.correspondence = self._picture("Every pixel", "correspondence", show_label=False)
            self.warp = self._picture("Warp", "warp", show_label=False)
        with gr.Accordion("Examples (drawings that come with the package)", open=True):
            self.gallery = gr.Gallery(
                [(pair.thumbnail(), pair.category) for pair in self.examples], columns=4,
                allow_preview=False, show_label=False, interactive=False, object_fit="contain", buttons=[],
                elem_id="examples", label="Examples",
            )  # fmt: skip
        with gr.Accordion("MatchSettings", open=True):
            self._lay_out_settings(first, prompts)

    def _lay_out_settings(self, first: ExperimentConfig, prompts: Mapping[str, Path]) -> None:
        from sd4match.app.matching import MATCHERS

        gr = self.gr
        choices = self._prompt_choices(prompts)
        text = getattr(first.prompt, "template", "a photo of a {category}")
        chosen = first.prompt.kind if first.prompt.kind in ("empty", "text") else next(iter(prompts), "empty")
        with gr.Row():
            with gr.Column(min_width=260):
                self.model = gr.Dropdown(
                    list(self.experiments), label="Model", elem_id="model",
                    info="what is on this machine; `sd4match models list` says how to get others",
                )  # fmt: skip
                self.matcher = gr.Dropdown(
                    list(MATCHERS), label="Matcher", info="default: the experiment's own", elem_id="matcher"
                )
                self.mutual = gr.Checkbox(label="Only points that match back", elem_id="mutual")
            with gr.Column(min_width=260):
                self.prompt = gr.Dropdown(
                    choices, value=chosen, label="Prompt", info="empty, text, or one that was learned", elem_id="prompt"
                )
                self.category = gr.Textbox(
                    label="Category", info="what both photos show", max_length=100, elem_id="category"
                )
                self.template = gr.Textbox(
                    text, label="Text", info="of the prompt text; {category} is filled in", max_length=300,
                    elem_id="template",
                )  # fmt: skip
            with gr.Column(min_width=260):
                self.second_prompt = gr.Dropdown(
                    choices, value="text", label="Second prompt", info="beside the first, if both are compared",
                    elem_id="second-prompt",
                )  # fmt: skip
                self.compare = gr.Checkbox(label="Compare both prompts", elem_id="compare")
                self.timestep = gr.Slider(
                    0, 999, value=first.evaluation.sampling.timestep, step=1, label="Timestep",
                    info="of the noise under which features are read", elem_id="timestep",
                )  # fmt: skip
        self.prompt_file = gr.File(
            label="Add a learned prompt (.safetensors)", file_types=[".safetensors"],
            height=120, elem_id="prompt-file",
        )  # fmt: skip

    def _lay_out_training(self) -> None:
        from sd4match.app.learning import FEWEST_POINTS, MOST_STEPS

        gr = self.gr
        gr.Markdown(_TRAIN.format(fewest=FEWEST_POINTS))
        with gr.Row():
            self.train_source = self._picture("Left photo: click a point", "train-source", height=_HEIGHT)
            self.train_target = self._picture("Right photo: click the same part", "train-target", height=_HEIGHT)
        with gr.Row():
            self.train_undo = gr.Button("Undo the last click", size="sm", min_width=120)
            self.train_clear = gr.Button("Clear all points", size="sm", min_width=120)
        with gr.Row():
            self.steps = gr.Slider(1, MOST_STEPS, value=60, step=1, label="Steps", min_width=200, elem_id="steps")
            self.train = gr.Button("Train", variant="primary", min_width=120, elem_id="train")
            self.stop = gr.Button("Stop", variant="stop", min_width=120, interactive=False, elem_id="stop")
        self.progress = gr.Markdown("No training yet.", elem_id="progress")
        with gr.Row():
            self.curve = self._picture("Loss", "curve", show_label=False)
            with gr.Column(min_width=200):
                self.learned = gr.DownloadButton("Download prompt", interactive=False, elem_id="learned")
                self.use = gr.Button("Use it in the tab Match", interactive=False, elem_id="use")
                self.learned_name = gr.State()

    def _photo(self, label: str, elem_id: str) -> Any:
        """Return a component for a photo of the user."""
        return self.gr.Image(
            label=label, sources=_SOURCES, type="filepath", image_mode=None, format="jpeg", height=_HEIGHT, buttons=[],
            elem_id=elem_id, interactive=True, placeholder="Drop a photo here\n- or -\nclick to choose one",
        )  # fmt: skip

    def _picture(self, label: str, name: str, **options: Any) -> Any:
        """Return a component for a picture that users cannot change."""
        return self.gr.Image(
            label=label,
            interactive=False,
            type="pil",
            format="jpeg",
            elem_id=name,
            buttons=["fullscreen"],
            min_width=300,
            **options,
        )

    # events

    def _connect_matching(self) -> None:
        self.settings = [
            self.model, self.prompt, self.second_prompt, self.compare, self.category, self.template, self.matcher,
            self.timestep, self.mutual,
        ]  # fmt: skip
        self.shown = [
            self.source, self.target, self.heat, self.second_target, self.second_heat, self.table, self.json, self.png,
            self.dense_column,
        ]  # fmt: skip
        for side, image in enumerate((self.source, self.target)):
            # preprocess=False: the file as it was uploaded, which Photo reads, bounds and names in its errors
            self._matches_on(image.input, self._uploaded(side), [image], preprocess=False)
            self._matches_on(image.clear, self._cleared(side))
            emptied = _in_turn(self._emptied(side))
            # not in the queue: it is called after every change of the picture, and mostly there is nothing to do
            on(
                image.change,
                emptied,
                [self.session, image],
                [image],
                preprocess=False,
                queue=False,
                show_progress="hidden",
            )
        self._matches_on(self.source.select, self._clicked, [self.source], preprocess=False)
        self._matches_on(self.undo.click, self._undone)
        self._matches_on(self.clear.click, self._points_cleared)
        self._matches_on(self.grid.click, self._gridded, [self.grid_side])
        self._matches_on(self.gallery.select, self._example_chosen, outputs=[self.category])
        for choice in (
            self.prompt.change, self.second_prompt.change, self.matcher.input, self.timestep.release, self.mutual.input,
            self.category.submit, self.category.blur, self.template.submit, self.template.blur,
        ):  # fmt: skip
            self._matches_on(choice, self._setting_chosen)
        model_chosen = on(self.model.input, self._model_chosen, [self.model], [self.note, self.timestep])
        self._matches_on(model_chosen.then, self._setting_chosen)
        compare_chosen = on(self.compare.change, self._compare_chosen, [self.compare], [self.second_column])
        self._matches_on(compare_chosen.then, self._setting_chosen)
        on(
            self.prompt_file.upload, self._prompt_added, [self.session, self.prompt_file],
            [self.prompt, self.second_prompt, self.prompt_file],
        )  # fmt: skip
        on(
            self.dense.click, self._dense, [self.session, *self.settings],
            [self.dense_column, self.correspondence, self.warp], show_progress="full",
        )  # fmt: skip

    def _matches_on(
        self,
        event: Any,
        function: Callable[..., Any],
        inputs: Sequence[Any] = (),
        *,
        outputs: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        """Connect an event with a function that updates the matches, and then write their files.

        Args:
            event: event of a component, or `then` of an earlier one.
            function: function of the session, the inputs and the settings.
            inputs: further components that are inputs of the function.
            outputs: further components whose values it returns first.
            options: options of gradio's event.
        """
        inputs = [self.session, *inputs, *self.settings]
        matched = on(event, _in_turn(function), inputs, [*outputs, *self.shown], **options)
        saved = _in_turn(self._saved)
        on(matched.then, saved, [self.session, *self.settings], [self.json, self.png], show_progress="hidden")

    def _connect_training(self) -> None:
        pictures = [self.train_source, self.train_target]
        for side, picture in enumerate(pictures):
            clicked = _in_turn(self._corresponding_clicked(side))
            on(picture.select, clicked, [self.session, picture], pictures, preprocess=False)
        on(self.train_undo.click, _in_turn(self._corresponding_undone), [self.session], pictures)
        on(self.train_clear.click, _in_turn(self._corresponding_cleared), [self.session], pictures)
        on(self.train_tab.select, _in_turn(self._corresponding), [self.session], pictures)
        on(
            self.train.click, self._trained, [self.session, self.model, self.steps],
            [self.progress, self.curve, self.learned, self.use, self.learned_name, self.train, self.stop,
             self.prompt, self.second_prompt],
            show_progress="hidden", concurrency_limit=None,
        )  # fmt: skip
        on(self.stop.click, lambda session: session.stop_training(), [self.session], [])
        on(self.use.click, lambda name: name, [self.learned_name], [self.prompt])

    # handlers

    def _settings_of(
        self, session: Session, model: str, prompt: str, second: str, compare: bool, category: str, template: str,
        matcher: str, timestep: int, mutual: bool,
    ) -> list[MatchSettings]:  # fmt: skip
        from sd4match.app.matching import MatchSettings

        return [
            MatchSettings(
                model=model, prompt=session.prompt_of(name), name=name, template=template, category=category.strip(),
                matcher=matcher, timestep=timestep, mutual=mutual,
            )
            for name in ([prompt, second] if compare else [prompt])
        ]  # fmt: skip

    def _setting_chosen(self, session: Session, *values: Any) -> tuple[Any, ...]:
        """Call `_refreshed` if a setting has changed, since leaving a field does not always change it."""
        if session.matched_last == (*session.photos, *session.points, *values):
            return (self.gr.skip(),) * len(self.shown)
        return self._refreshed(session, *values)

    def _refreshed(self, session: Session, *values: Any) -> tuple[Any, ...]:
        """Match all points if possible, and return the values of the components in `shown`."""
        session.matched_last = (*session.photos, *session.points, *values)
        try:
            settings = self._settings_of(session, *values)
            view, dense_now = session.view(settings), (*session.photos, settings[0])
        except SD4MatchError as error:
            reason = " ".join(str(error).split())
            if reason != session.warned:
                self.gr.Warning(html.escape(reason), duration=20)
            columns = 1 + bool(values[self.settings.index(self.compare)])
            view, dense_now = session.unmatched_view(columns, reason=reason), ()
        session.last_view = view
        return (*self._values_of(session, view), self._dense_if(session, dense_now))

    def _values_of(self, session: Session, view: View) -> tuple[Any, ...]:
        second = view.columns[1] if len(view.columns) > 1 else None
        heat = view.columns[0].heat if view.columns else None
        old_files = (self.gr.update(interactive=False),) * 2  # until those of these matches are written
        return (
            self._shown(session, 0, view.source), view.target, heat, second and second.target, second and second.heat,
            view.text, *old_files,
        )  # fmt: skip

    def _shown(self, session: Session, side: int, picture: Image.Image | None) -> str | None:
        """Return the file of a photo with its marks; its name contains the key of the photo, see `_key_of`."""
        from gradio.processing_utils import save_pil_to_cache

        photo = session.photos[side]
        if photo is None or picture is None:
            return None
        file: str = save_pil_to_cache(picture, self.source.GRADIO_CACHE, name=photo.key, format="jpeg")
        return file

    def _dense_if(self, session: Session, now: tuple[Any, ...]) -> Any:
        """Hide the dense matches if photos or settings have changed."""
        if session.dense_of == now:
            return self.gr.skip()
        session.dense_of = None
        return self.gr.update(visible=False)

    def _saved(self, session: Session, *values: Any) -> tuple[Any, ...]:
        """Write the files of the last matches, if there are any."""
        if not session.answers:
            return (self.gr.skip(),) * 2
        with self._errors_shown():
            files = session.save_results(self._settings_of(session, *values)[0])
            return tuple(self.gr.update(value=str(file), interactive=True) for file in files)

    def _uploaded(self, side: int) -> Callable[..., tuple[Any, ...]]:
        def opened(session: Session, payload: dict[str, Any] | None, *values: Any) -> tuple[Any, ...]:
            if payload is None:
                session.set_photo(side, None)
                return self._refreshed(session, *values)
            file = Path(payload["path"])
            try:
                session.open_photo(side, file, payload.get("orig_name") or file.name)
            except SD4MatchError as error:
                self.gr.Warning(_one_line(error), duration=20)
            return self._refreshed(session, *values)

        return opened

    def _cleared(self, side: int) -> Callable[..., tuple[Any, ...]]:
        def cleared(session: Session, *values: Any) -> tuple[Any, ...]:
            session.set_photo(side, None)
            return self._refreshed(session, *values)

        return cleared

    def _emptied(self, side: int) -> Callable[..., Any]:
        def emptied(session: Session, payload: dict[str, Any] | None) -> Any:
            """Show a photo again that the page removed because of a file that is too large to upload."""
            view = session.last_view
            if payload is not None or session.photos[side] is None or view is None:
                return self.gr.skip()
            return self._shown(session, side, (view.source, view.target)[side])

        return emptied

    def _clicked(self, event: Any, session: Session, shown: dict[str, Any] | None, *values: Any) -> tuple[Any, ...]:
        with self._errors_shown():
            session.check_shown(0, _key_of(shown))
            session.add_point(event.index)
        return self._refreshed(session, *values)

    def _undone(self, session: Session, *values: Any) -> tuple[Any, ...]:
        session.undo_point()
        return self._refreshed(session, *values)

    def _points_cleared(self, session: Session, *values: Any) -> tuple[Any, ...]:
        session.set_grid(0)
        return self._refreshed(session, *values)

    def _gridded(self, session: Session, side: int, *values: Any) -> tuple[Any, ...]:
        with self._errors_shown():
            session.set_grid(side)
        return self._refreshed(session, *values)

    def _example_chosen(self, event: Any, session: Session, *values: Any) -> tuple[Any, ...]:
        pair = self.examples[event.index]
        session.set_photo(0, pair.source)
        session.set_photo(1, pair.target)
        given = list(values)
        given[self.settings.index(self.category)] = pair.category
        return (pair.category, *self._refreshed(session, *given))

    def _model_chosen(self, model: str) -> tuple[Any, ...]:
        return self._note_of(model), self.experiments[model].evaluation.sampling.timestep

    def _compare_chosen(self, is_chosen: bool) -> Any:
        return self.gr.update(visible=is_chosen)

    def _note_of(self, model: str) -> str:
        from sd4match.app.session import MINI_NOTE

        return f"*{MINI_NOTE}*" if self.experiments[model].backbone.model_name == "mini" else ""

    def _prompt_added(self, session: Session, file: str) -> tuple[Any, ...]:
        try:
            name = session.add_prompt(Path(file), Path(file).name)
        except SD4MatchError as error:
            self.gr.Warning(_one_line(error), duration=20)
            return self.gr.skip(), self.gr.skip(), None
        choices = self._prompt_choices(session.prompts)
        return self.gr.update(choices=choices, value=name), self.gr.update(choices=choices), None

    def _prompt_choices(self, prompts: Mapping[str, Path]) -> list[str]:
        return ["empty", "text", *prompts]

    def _dense(self, session: Session, *values: Any) -> tuple[Any, ...]:
        from sd4match.viz import draw_correspondence, draw_warp

        with self._errors_shown():
            settings = self._settings_of(session, *values)[0]
            before = tuple(session.photos)
            match = session.match_dense(settings)
            colors = draw_correspondence(match, title="Every pixel: places that match have the same color")
            warp = draw_warp(match, title="The right photo, warped onto the left one")
            with session.lock:
                if tuple(session.photos) != before:
                    raise InputError("the photos were changed meanwhile: match all pixels again")
                session.dense_of = (*before, settings)
            return self.gr.update(visible=True), colors, warp

    def _corresponding_clicked(self, side: int) -> Callable[..., tuple[Any, ...]]:
        def clicked(event: Any, session: Session, shown: dict[str, Any] | None) -> tuple[Any, ...]:
            with self._errors_shown():
                session.check_shown(side, _key_of(shown))
                session.click_corresponding(side, event.index)
            return self._corresponding(session)

        return clicked

    def _corresponding_undone(self, session: Session) -> tuple[Any, ...]:
        session.undo_corresponding()
        return self._corresponding(session)

    def _corresponding_cleared(self, session: Session) -> tuple[Any, ...]:
        session.clear_corresponding()
        return self._corresponding(session)

    def _corresponding(self, session: Session) -> tuple[Any, ...]:
        return tuple(self._shown(session, side, picture) for side, picture in enumerate(session.corresponding_view()))

    def _trained(self, session: Session, model: str, steps: int) -> Iterator[tuple[Any, ...]]:
        gr = self.gr
        update, skip = gr.update, gr.skip
        idle = (update(interactive=True), update(interactive=False))
        busy = idle[::-1]
        yield "Loading ...", skip(), skip(), skip(), skip(), *busy, skip(), skip()
        try:
            for progress, name in session.train(model, steps):
                files: tuple[Any, ...] = (skip(),) * 3
                choices: tuple[Any, ...] = (skip(),) * 2
                if name is not None:
                    known = self._prompt_choices(session.prompts)
                    files = update(value=str(progress.file), interactive=True), update(interactive=True), name
                    choices = update(choices=known), update(choices=known)
                yield str(progress), _curve(progress.losses), *files, *busy, *choices
        except SD4MatchError as error:
            gr.Warning(_one_line(error), duration=20)
            yield f"Stopped: {_one_line(error)}", *(skip(),) * 4, *idle, skip(), skip()
            return
        yield *(skip(),) * 5, *idle, skip(), skip()

    @contextmanager
    def _errors_shown(self) -> Iterator[None]:
        """Show errors of sd4match on the page, in one line."""
        try:
            yield
        except SD4MatchError as error:
            raise self.gr.Error(_one_line(error), duration=20, print_exception=False) from None


def on(event: Any, function: Callable[..., Any], inputs: list[Any], outputs: list[Any], **options: Any) -> Any:
    """Connect an event with a function, whose first parameter is the data of the event if it is named `event`."""
    called = function
    if _takes_event(function):

        def called(event: Any, *values: Any) -> Any:
            return function(event, *values)

        called.__annotations__["event"] = import_gradio().SelectData  # gradio looks for it by its type
    options = {"show_progress": "minimal", "concurrency_limit": 4, "api_visibility": "private", **options}
    return event(called, inputs, outputs, **options)


def _in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run calls for one session one after the other, so that the last one shows all changes."""
    position = int(_takes_event(function))

    @functools.wraps(function)
    def called(*values: Any) -> Any:
        with values[position].lock:
            return function(*values)

    return called


def _takes_event(function: Callable[..., Any]) -> bool:
    return "event" in inspect.signature(function).parameters


def _key_of(shown: dict[str, Any] | None) -> str:
    """Return the key of the photo that a picture of the page shows; see `_Page._shown`."""
    return Path(shown["path"]).stem if shown else ""


def _curve(losses: Sequence[float]) -> Any:
    from sd4match.viz import figure_to_image, plot_training

    return (
        figure_to_image(plot_training(losses, [], excess_losses=losses, title="Loss of each step"), scale=1)
        if losses
        else None
    )


def _one_line(error: Exception) -> str:
    """Return a message as the page shows it, which takes it for HTML."""
    return html.escape(" ".join(str(error).split()))
