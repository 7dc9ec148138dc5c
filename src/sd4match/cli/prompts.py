"""Commands `sd4match prompts`, which inspect, convert, export and visualize prompt files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.answer import Document
from sd4match.cli.common import BackboneName, Category, Device, option_groups
from sd4match.paths import as_path

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from sd4match.config.experiment import ExperimentConfig
    from sd4match.interfaces import Backbone, Prompt
    from sd4match.structures.images import ImageBatch, Photo

    Row = tuple[str, tuple[Photo, ...], Tensor]
    """Label, photos and embedding (L, D) of one prompt."""

app = typer.Typer(help="Prompt files: inspect, convert, export, imagine.", no_args_is_help=True, rich_markup_mode=None)

SOFTWARE = "sd4match prompts imagine"
"""Name of `imagine` in the metadata of its pictures."""

MINI_REMARK = (
    "mini is too small to compose an object from noise: it draws colored parts on a background, and only their change "
    "from prompt to prompt means something."
)

PromptArgument = Annotated[str, typer.Argument(help="Prompt file.", metavar="FILE")]


@dataclass(frozen=True)
class PromptOptions:
    """Options for the inputs of a prompt and its device."""

    category: Category = None
    pair: Annotated[tuple[Path, Path] | None, typer.Option(help="Two photos, for a prompt that depends on photos.")] = (
        None
    )
    backbone: BackboneName = None
    device: Device = "cpu"


@app.command("inspect")
def inspect(file: PromptArgument) -> Document:
    """Print the metadata of a prompt file and the shapes of its tensors."""
    import json

    from sd4match.prompting.serialization import describe_prompt, read_prompt

    info, tensors = read_prompt(file)
    shapes = {name: list(value.shape) for name, value in sorted(tensors.items())}
    facts = {**describe_prompt(info), "tensors": shapes}
    width = max(map(len, facts))
    for key, value in facts.items():
        plain = isinstance(value, str) and value.isprintable()  # not what would control the terminal
        typer.echo(f"{key if key.isprintable() else json.dumps(key):<{width}}  {value if plain else json.dumps(value)}")
    return facts


@app.command("convert")
def convert(
    published: Annotated[
        str, typer.Argument(help="Folder of an SD4Match prompt, or checkpoint of ODISE.", metavar="PATH")
    ],
    output: Annotated[str, typer.Option(help="Prompt file to write.", metavar="FILE")] = "prompt.safetensors",
    backbone: Annotated[
        str | None, typer.Option(help="Model folder whose architecture the file is for; default: SD 2.1's.")
    ] = None,
) -> Document:
    """Convert a published prompt to a prompt file. The folder's name gives its config; no code in it is executed."""
    from sd4match.backbones.config import StableDiffusionConfig
    from sd4match.cli.progress import waiting
    from sd4match.errors import ConfigError
    from sd4match.io.files import check_output_file
    from sd4match.prompting.published import files_of, is_converted, read_published
    from sd4match.prompting.serialization import PromptInfo, write_prompt
    from sd4match.version import __version__

    source, target = as_path(published, what="the published prompt"), as_path(output, what="--output")
    check_output_file(target, inputs=files_of(source), is_own=is_converted, what="converted prompt")
    with waiting("reading the published prompt"):
        prompt = read_published(source)
    architecture = prompt.architecture
    if backbone is not None:
        spec = StableDiffusionConfig(weights=backbone, layers=prompt.details.get("layer") or 0).spec()
        widths = {value.shape[-1] for name, value in prompt.tensors.items() if "linear" not in name}
        if widths != {spec.prompt_width}:
            raise ConfigError(f"{published} has vectors of width {widths.pop()}; {backbone} takes {spec.prompt_width}")
        prompt.config.check_spec(spec)
        architecture = spec.architecture
    info = PromptInfo(prompt.config, architecture, "unknown", __version__, prompt.details)
    write_prompt(info, prompt.tensors, target)
    typer.echo(f"A {prompt.config.kind} prompt. Written: {target}")
    return {"kind": prompt.config.kind, "file": target}


@app.command("export")
@option_groups
def export(
    file: PromptArgument,
    *,
    output: Annotated[
        str, typer.Option(help="Textual-inversion file to write.", metavar="FILE")
    ] = "learned_embeds.safetensors",
    token: Annotated[str, typer.Option(help="New word of the tokenizer.")] = "<sd4match>",
    options: PromptOptions,
) -> Document:
    """Write a prompt of token space as a textual inversion, for diffusers pipelines of the same text encoder."""
    from sd4match.prompting.textual_inversion import check_export, check_word, export_textual_inversion

    source, target = as_path(file, what="the prompt file"), as_path(output, what="--output")
    check_word(token)
    check_export(target, option="--output", inputs=(source, *(options.pair or ())))
    _, backbone, prompt = _load(source, options)
    images, partners = _inputs(prompt, backbone, options)
    export_textual_inversion(prompt, target, backbone=backbone, images=images, partners=partners, token=token)
    typer.echo(
        f"Written: {target}. In diffusers: pipeline.load_textual_inversion({str(target)!r}); pipeline({token!r})"
    )
    return {"file": target, "token": token}


@app.command("imagine")
@option_groups
def imagine(
    file: PromptArgument,
    *,
    output: Annotated[str, typer.Option(help="Picture to write.", metavar="FILE")] = "imagined.png",
    images: Annotated[int, typer.Option(min=1, max=16, help="Images per prompt.")] = 4,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 30,
    guidance: Annotated[float, typer.Option(help="Guidance scale, from 1 (none) to 100.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, max=2**40, help="Seed of the noise.")] = 0,
    options: PromptOptions,
) -> Document:
    """Generate images from a learned prompt and from the empty prompt: a labeled grid."""
    from sd4match.cli.progress import progress_bar
    from sd4match.errors import InputError
    from sd4match.io.files import check_output_file, write_atomically

    source, target = as_path(file, what="the prompt file"), as_path(output, what="--output")
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"--output must be a .png or a .jpg, not {target}")
    check_output_file(target, inputs=(source, *(options.pair or ())), is_own=_is_imagined, what="picture of `imagine`")
    if not 1 <= guidance <= 100:  # also refuses NaN
        raise InputError(f"--guidance must be from 1 to 100, not {guidance}")
    config, backbone, prompt = _load(source, options)
    from sd4match.viz.imagine import draw_grid, load_painter, paint  # after `_load`, which silences its imports

    rows = [*_reference_rows(backbone, options.category), *_rows(prompt, backbone, options)]
    empty = rows[0][2]
    name, device = config.backbone.model_name, str(backbone.device)
    painter = load_painter(name, device=device)
    drawn = []
    with progress_bar() as bar:
        task = bar.add_task("drawing", total=steps * len(rows))
        for label, photos, embedding in rows:
            pictures = paint(
                painter, embedding.to(device), empty=empty.to(device), images=images, steps=steps, guidance=guidance,
                seed=seed, on_step=lambda: bar.advance(task),
            )  # fmt: skip
            drawn.append((label, photos, pictures))
    title = f"{source.name} on {name}: {steps} steps, guidance {guidance:g}, seed {seed}"
    write_atomically(target, _encode(draw_grid(drawn, title=title), target), error=InputError)
    typer.echo(f"Written: {target}")
    note = MINI_REMARK if name == "mini" else None
    if note:
        typer.echo(note)
    return {"file": target, "rows": [label for label, *_ in rows], "note": note}


def _encode(picture: Image, target: Path) -> bytes:
    """Return the content of a PNG or JPEG file whose metadata name `imagine`."""
    from io import BytesIO

    from PIL.PngImagePlugin import PngInfo

    content = BytesIO()
    if target.suffix.lower() == ".png":
        info = PngInfo()
        info.add_text("Software", SOFTWARE)
        picture.save(content, "png", pnginfo=info)
    else:
        picture.save(content, "jpeg", comment=SOFTWARE)
    return content.getvalue()


def _is_imagined(path: Path) -> bool:
    """Return whether the metadata of a picture name `imagine`."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            made_by = picture.info.get("Software", picture.info.get("comment"))
    except Exception:  # of a damaged picture of any format, or none
        return False
    return made_by in (SOFTWARE, SOFTWARE.encode())


def _load(file: Path, options: PromptOptions) -> tuple[ExperimentConfig, Backbone, Prompt]:
    """Load the backbone and the prompt of a file. The file is read first, so that errors in it come at once."""
    from sd4match.cli.common import prepare_device, read_config
    from sd4match.cli.progress import waiting
    from sd4match.prompting.serialization import load_prompt, read_prompt
    from sd4match.prompting.text import clean_category

    read_prompt(file)
    if options.category is not None:
        clean_category(options.category)
    config = read_config(preset=None, config=None, overrides=None, default="empty", backbone=options.backbone)
    device = prepare_device(options.device)
    with waiting(f"loading {config.backbone.model_name}"):
        backbone = config.backbone.build(device=device)
        return config, backbone, load_prompt(file, backbone=backbone)


def _inputs(prompt: Prompt, backbone: Backbone, options: PromptOptions) -> tuple[ImageBatch, ImageBatch | None]:
    """Return the images for the prompt.

    Raises:
        InputError: the prompt needs --category or --pair.
    """
    from sd4match.data.collate import make_images
    from sd4match.errors import InputError
    from sd4match.prompting.pairing import preprocessors
    from sd4match.structures.images import ImageBatch, Photo

    if prompt.scope == "category" and options.category is None:
        raise InputError("this prompt is one for each category: give --category NAME")
    if options.pair is None:
        if prompt.scope in ("image", "pair"):
            raise InputError("this prompt depends on photos: give --pair PHOTO PHOTO")
        return ImageBatch({}, (options.category,)), None
    prepare = preprocessors(backbone, prompt)
    source, target = (make_images([Photo.open(path)], [options.category], prepare) for path in options.pair)
    return source, target


def _reference_rows(backbone: Backbone, category: str | None) -> list[Row]:
    """Return the rows of the empty prompt and, if there is a category, of its text prompt."""
    from sd4match.prompting.text import EmptyPrompt, TextPrompt
    from sd4match.structures.images import ImageBatch

    images = ImageBatch({}, (category,))
    rows: list[Row] = [("empty prompt", (), EmptyPrompt(backbone=backbone)(images).values[0])]
    if category is not None:
        rows.append((f"a photo of a {category}", (), TextPrompt(backbone=backbone)(images).values[0]))
    return rows


def _rows(prompt: Prompt, backbone: Backbone, options: PromptOptions) -> list[Row]:
    """Return the rows of a learned prompt: one for each learned category or photo, or a single one."""
    from sd4match.prompting.learned import ClassPrompt
    from sd4match.structures.images import ImageBatch

    name, category = type(prompt).__name__, options.category
    batches: list[tuple[str, ImageBatch, ImageBatch | None]]
    if category is None and isinstance(prompt, ClassPrompt):
        batches = [(f"{name}: {known}", ImageBatch({}, (known,)), None) for known in prompt.config.categories]
    else:
        images, partners = _inputs(prompt, backbone, options)
        label = name if category is None else f"{name}: {category}"
        batches = [(label, images, partners)]
        if prompt.scope == "image" and partners is not None:
            batches.append((label, partners, None))
    rows: list[Row] = []
    for label, images, partners in batches:
        photos = images.photos + (partners.photos if prompt.scope == "pair" and partners is not None else ())
        rows.append((label, photos, prompt(images, partners).values[0]))
    return rows
