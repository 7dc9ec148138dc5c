"""Images that the whole diffusion model generates from a prompt."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.backbones.pretrained import find_pretrained
from sd4match.checks import LARGEST_SEED, check_count, check_finite, check_number, check_shape
from sd4match.devices import resolve_device
from sd4match.errors import CheckpointError, InputError
from sd4match.structures.images import Photo
from sd4match.viz.layout import font_of, line_height, text_size, write

_MOST_IMAGES, _MOST_STEPS = 1000, 1000
_SIDE = 160
_GAP = 6
_LABEL_WIDTH, _LABEL_LETTERS, _LABEL_SHARE = 190, 22, 0.25
"""Column of labels: width in pixels for text 14 pixels high, letters per line, and share of the width."""
_INK = (30, 30, 30)


@check_arguments
def load_painter(weights: str, *, device: str = "cpu") -> StableDiffusionPipeline:
    """Load the whole diffusion pipeline of a model, in float32, without progress bars and safety checker.

    Args:
        weights: model or folder, as in `backbone.weights`.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto".

    Raises:
        CheckpointError: the folder is missing, incomplete or damaged.
        ConfigError: there is no such device.

    >>> load_painter("mini").device
    device(type='cpu')
    """
    resolved = resolve_device(device)
    folder = find_pretrained(weights)
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot load a pipeline from {folder}: {' '.join(str(error).split())[:300]}") from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(resolved, torch.float32)


@torch.no_grad()
@check_arguments
def paint(
    painter: StableDiffusionPipeline,
    embedding: Float[Tensor, "tokens width"],
    *,
    empty: Float[Tensor, "tokens width"],
    images: int = 4,
    steps: int = 30,
    guidance: float = 4.0,
    seed: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> list[Image.Image]:
    """Generate images from a prompt embedding, with classifier-free guidance against the empty prompt.

    Args:
        painter: pipeline from `load_painter`.
        embedding: (L, D), the prompt.
        empty: (L, D), the empty prompt.
        images: number of images; image i starts from the noise of (seed, i) for every prompt.
        steps: number of denoising steps.
        guidance: guidance scale; 1 for none.
        seed: seed of the noise, at least 0.
        on_step: called after each step.

    Raises:
        ShapeError: an embedding is not (L, D), or the two differ in shape.
        InputError: an argument is of another type, or out of bounds.
        NonFiniteError: a picture has NaN or infinite pixels.

    >>> painter = load_painter("mini")
    >>> empty = torch.zeros(77, painter.unet.config.cross_attention_dim)
    >>> [picture.size for picture in paint(painter, empty, empty=empty, images=1, steps=1)]
    [(96, 96)]
    """
    check_shape("embedding", embedding, "L D", of="floats")
    check_shape("empty", empty, "L D", of="floats", L=len(embedding), D=embedding.shape[1])
    check_count("images", images, 1, _MOST_IMAGES)
    check_count("steps", steps, 1, _MOST_STEPS)
    check_number("guidance", guidance)
    check_count("seed", seed, 0, LARGEST_SEED // 10_007 - _MOST_IMAGES)

    def tell(pipeline: object, step: int, timestep: object, values: dict[str, Tensor]) -> dict[str, Tensor]:
        on_step()
        return values

    drawn = painter(
        prompt_embeds=embedding.expand(images, -1, -1),
        negative_prompt_embeds=empty.expand(images, -1, -1),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed * 10_007 + number) for number in range(images)],
        callback_on_step_end=tell,
        output_type="pt",
    )
    check_finite("the generated pictures", drawn.images, "another prompt or less guidance may help")
    processor = painter.image_processor
    pictures: list[Image.Image] = processor.numpy_to_pil(processor.pt_to_numpy(drawn.images))
    return pictures


@check_arguments
def draw_grid(rows: Sequence[tuple[str, Sequence[Photo], Sequence[Image.Image]]], *, title: str = "") -> Image.Image:
    """Draw a row for each prompt: its label, the photos it was computed from, the generated images.

    Args:
        rows: label, photos and generated images of each prompt.
        title: text above the grid.

    Raises:
        InputError: there is no row.

    >>> photo = Photo.from_image(Image.new("RGB", (8, 8)))
    >>> draw_grid([("empty", (), [Image.new("RGB", (8, 8))]), ("pair", (photo, photo), [])], title="mini").size
    (694, 366)
    """
    if not rows:
        raise InputError("rows must hold one prompt or more")
    seen = max(len(photos) for _, photos, _ in rows)
    columns = seen + max(len(drawn) for _, _, drawn in rows)
    step = _SIDE + _GAP
    size = text_size(round(columns * step / (1 - _LABEL_SHARE)))
    labels, top = round(_LABEL_WIDTH * size / 14), line_height(size) + 2 * _GAP if title else _GAP
    lines = round((_SIDE - 16) / (1.3 * size))
    canvas = Image.new("RGB", (labels + columns * step + _GAP, top + len(rows) * step), "white")
    draw = ImageDraw.Draw(canvas)
    write(canvas, title, _GAP, _GAP, canvas.width - 2 * _GAP, size=size)
    for number, (label, photos, drawn) in enumerate(rows):
        y = top + number * step
        draw.multiline_text((8, y + 8), _wrapped(label, lines), fill=_INK, font=font_of(size))
        for column, photo in enumerate(photos):
            x = labels + column * step
            canvas.paste(_square(photo.to_image()), (x, y))
            draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), outline=_INK, width=3)
        for column, picture in enumerate(drawn):
            canvas.paste(_square(picture), (labels + (seen + column) * step, y))
    return canvas


def _square(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _wrapped(text: str, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, _LABEL_LETTERS, max_lines=max(lines, 1), placeholder="..."))
