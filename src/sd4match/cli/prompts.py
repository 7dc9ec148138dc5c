"""`sd4match prompts`: look into prompt files, convert, export, draw them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd4match.cli.common import BackboneName, Device

if TYPE_CHECKING:
    from torch import Tensor

    from sd4match.config.experiment import ExperimentConfig
    from sd4match.interfaces import Backbone, PromptProvider
    from sd4match.structures.images import ImageBatch, Photo

app = typer.Typer(help="Prompt files: inspect, convert, export, imagine.", no_args_is_help=True, rich_markup_mode=None)

MINI_REMARK = (
    "mini is too small to compose an object from noise: it draws coloured parts on a background, and only their change "
    "from prompt to prompt means something."
)

PromptFile = Annotated[Path, typer.Argument(help="A prompt file.")]
Pair = Annotated[tuple[Path, Path] | None, typer.Option(help="Two photos, for a prompt that depends on photos.")]
Category = Annotated[str | None, typer.Option(help="What is in the photos, for a class prompt.")]


@app.command("inspect")
def inspect(
    file: PromptFile, as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False
) -> None:
    """Print all that a prompt file says of itself, and the shapes in it."""
    from sd4match.prompting.serialization import describe_prompt, read_prompt

    info, tensors = read_prompt(file)
    shapes = {name: list(value.shape) for name, value in sorted(tensors.items())}
    facts = {**describe_prompt(info), "tensors": shapes}
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        typer.echo(f"{key:<{width}}  {value if isinstance(value, str) else json.dumps(value)}")


@app.command("convert")
def convert(
    published: Annotated[
        Path, typer.Argument(help="A folder of the SD4Match authors' prompts, or a checkpoint of ODISE.")
    ],
    output: Annotated[Path, typer.Option(help="The prompt file to write.")] = Path("prompt.safetensors"),
    backbone: Annotated[
        str | None, typer.Option(help="A model folder whose architecture the file is for, if it is not SD 2.1's.")
    ] = None,
) -> None:
    """Make a prompt file of a published prompt. The folder's name tells its settings; nothing in it is executed."""
    from sd4match.backbones.config import StableDiffusionConfig
    from sd4match.errors import ConfigError
    from sd4match.prompting.published import read_published
    from sd4match.prompting.serialization import PromptInfo, write_prompt
    from sd4match.version import __version__

    found = read_published(published)
    architecture = found.architecture
    if backbone is not None:
        spec = StableDiffusionConfig.of(weights=backbone, layers=found.details.get("layer") or 0).spec()
        widths = {value.shape[-1] for name, value in found.tensors.items() if "linear" not in name}
        if widths != {spec.prompt_width}:
            raise ConfigError(f"{published} has vectors of width {widths.pop()}; {backbone} takes {spec.prompt_width}")
        found.config.check_spec(spec)
        architecture = spec.architecture
    info = PromptInfo(found.config, architecture, "unknown", __version__, found.details)
    write_prompt(info, found.tensors, output)
    typer.echo(f"A {found.config.kind} prompt. Written: {output}")


@app.command("export")
def export(
    file: PromptFile,
    output: Annotated[Path, typer.Option(help="The textual-inversion file to write.")] = Path(
        "learned_embeds.safetensors"
    ),
    token: Annotated[str, typer.Option(help="The new word.")] = "<sd4match>",
    category: Category = None,
    pair: Pair = None,
    backbone: BackboneName = None,
    device: Device = "cpu",
) -> None:
    """Write a prompt of token space as a textual inversion, for any diffusers pipeline of the same text encoder."""
    from sd4match.prompting.textual_inversion import export_textual_inversion

    _, model, provider = _load(file, backbone, device)
    images, partners = _look(provider, model, category, pair)
    export_textual_inversion(provider, output, backbone=model, images=images, partners=partners, token=token)
    typer.echo(
        f"Written: {output}. In diffusers: pipeline.load_textual_inversion({str(output)!r}); pipeline({token!r})"
    )


@app.command("imagine")
def imagine(
    file: PromptFile,
    output: Annotated[Path, typer.Option(help="The picture to write.")] = Path("imagined.png"),
    category: Category = None,
    pair: Pair = None,
    images: Annotated[int, typer.Option(min=1, max=16, help="For each prompt.")] = 4,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Of the diffusion.")] = 30,
    guidance: Annotated[float, typer.Option(help="Against the empty prompt, from 1 (none) to 100.")] = 4.0,
    seed: Annotated[int, typer.Option(min=0, max=2**40, help="Of the noise.")] = 0,
    backbone: BackboneName = None,
    device: Device = "cpu",
) -> None:
    """Let the whole diffusion model draw from a learned prompt, beside the empty one: a labelled grid."""
    from sd4match.cli.common import progress_bar
    from sd4match.errors import InputError
    from sd4match.prompting.text import EmptyPrompt, TextPrompt
    from sd4match.structures.images import ImageBatch

    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"--output must be a .png or a .jpg, not {output}")
    if not 1 <= guidance <= 100:  # NaN is neither
        raise InputError(f"--guidance must be from 1 to 100, not {guidance}")
    config, model, provider = _load(file, backbone, device)
    from sd4match.viz.imagine import draw_grid, load_painter, paint  # after `_load`, which quietens what this imports

    nothing = ImageBatch({}, (category,))
    empty = EmptyPrompt(backbone=model)(nothing).values[0]
    rows: list[tuple[str, tuple[Photo, ...], Tensor]] = [("empty prompt", (), empty)]
    if category is not None:
        rows.append((f"a photo of a {category}", (), TextPrompt(backbone=model)(nothing).values[0]))
    rows += _rows(provider, model, category, pair)
    painter = load_painter(config.backbone.weights, device=device)  # type: ignore[attr-defined]
    drawn = []
    with progress_bar() as bar:
        task = bar.add_task("drawing", total=steps * len(rows))
        for label, photos, embedding in rows:
            pictures = paint(
                painter, embedding.to(device), empty=empty.to(device), images=images, steps=steps, guidance=guidance,
                seed=seed, on_step=lambda: bar.advance(task),
            )  # fmt: skip
            drawn.append((label, photos, pictures))
    title = (
        f"{file.name} on {getattr(config.backbone, 'weights', '')}: {steps} steps, guidance {guidance:g}, seed {seed}"
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draw_grid(drawn, title=title).save(output)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}") from None
    typer.echo(f"Written: {output}")
    if getattr(config.backbone, "weights", None) == "mini":
        typer.echo(MINI_REMARK)


def _load(file: Path, backbone: str | None, device: str) -> tuple[ExperimentConfig, Backbone, PromptProvider]:
    from sd4match import registry
    from sd4match.cli.common import pick_device, quiet_libraries, read_config
    from sd4match.prompting.serialization import load_prompt, read_prompt

    read_prompt(file)
    config = read_config(preset=None, config=None, overrides=None, default="empty", backbone=backbone)
    where = pick_device(device)
    quiet_libraries()
    model: Backbone = registry.backbones.build(config.backbone, device=where)
    return config, model, load_prompt(file, backbone=model)


def _look(
    provider: PromptProvider, model: Backbone, category: str | None, pair: tuple[Path, Path] | None
) -> tuple[ImageBatch, ImageBatch | None]:
    """What the provider wants to see of the options."""
    from sd4match.data.collate import make_images
    from sd4match.errors import InputError
    from sd4match.prompting.pairing import wanted_views
    from sd4match.structures.images import ImageBatch, Photo

    if provider.scope == "category" and category is None:
        raise InputError("this prompt is one for each category: give --category NAME")
    if pair is None:
        if provider.scope in ("image", "pair"):
            raise InputError("this prompt depends on photos: give --pair PHOTO PHOTO")
        return ImageBatch({}, (category,)), None
    views = wanted_views(model, provider)
    one, other = (make_images([Photo.open(path)], [category], views) for path in pair)
    return one, other


def _rows(
    provider: PromptProvider, model: Backbone, category: str | None, pair: tuple[Path, Path] | None
) -> list[tuple[str, tuple[Photo, ...], Tensor]]:
    """Label, photos and embedding (L, D) of each prompt that the provider makes of the options."""
    from sd4match.structures.images import ImageBatch

    name = type(provider).__name__
    if provider.scope == "category" and category is None:
        known: tuple[str, ...] = getattr(getattr(provider, "config", None), "categories", ())
        batches: list[tuple[str, ImageBatch, ImageBatch | None]]
        batches = [(f"{name}: {one}", ImageBatch({}, (one,)), None) for one in known]
    else:
        images, partners = _look(provider, model, category, pair)
        batches = [(name if category is None else f"{name}: {category}", images, partners)]
        if provider.scope == "image" and partners is not None:
            batches.append((batches[0][0], partners, None))
    return [
        (
            label,
            images.photos + (partners.photos if provider.scope == "pair" and partners is not None else ()),
            provider(images, partners).values[0],
        )
        for label, images, partners in batches
    ]
