"""Conformance checks: what every component of a sort must do. Call them from a test.

Each check raises AssertionError that says what is wrong.
"""

from __future__ import annotations

import torch

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.geometry import ImageFrame
from sd4match.interfaces import Backbone
from sd4match.structures.images import Views
from sd4match.structures.tensors import Encoded, EvaluationNoise, FeatureMap, PromptEmbedding, Sampling
from sd4match.testing.fakes import random_photo

_SIZES = ((40, 60), (70, 30), (50, 50))


@check_arguments
def check_backbone(backbone: Backbone, *, sampling: Sampling | None = None, tolerance: float = 1e-4) -> None:
    """Check the contract of `Backbone`.

    Shapes are those of its spec; a view carries the photo's frame and key; features do not depend on the order or the
    size of a batch, are the same bits for the same batch, and carry the frames; the prompt, where there is one,
    matters and gets a gradient, and weights do not; evaluation noise is each photo's own.

    Args:
        backbone: as built.
        sampling: timestep and noise to try it with.
        tolerance: of equality between batches of different size, relative to the largest feature.

    >>> from sd4match.testing import FakeBackbone
    >>> check_backbone(FakeBackbone())
    """
    check_number("tolerance", tolerance, low=0.0)
    sampling = sampling or Sampling(100, 2, EvaluationNoise(1))
    photos = [random_photo(size, seed=seed) for seed, size in enumerate(_SIZES)]
    views = [backbone.prepare(photo) for photo in photos]
    for photo, view in zip(photos, views, strict=True):
        assert view.frame.original_size == photo.size, "a view's frame must say the photo's size"
        assert view.key == photo.key, "a view must carry its photo's key"
        assert view.pixels.shape[1:] == view.frame.model_size, "a view's frame must say the view's size"
    prompts = _prompts(backbone, len(photos))

    def features(rows: list[int]) -> FeatureMap:
        with torch.no_grad():
            encoded = backbone.encode(Views.of([views[row] for row in rows]))
            chosen = None if prompts is None else PromptEmbedding(prompts[rows])
            return backbone.extract(encoded, chosen, sampling)

    whole = features([0, 1, 2])
    _check_map(backbone, whole, [view.frame for view in views])
    limit = tolerance * float(whole.values.abs().max())
    assert torch.equal(whole.values, features([0, 1, 2]).values), "the same batch must give the same bits"
    assert (features([2, 0, 1]).values - whole.values[[2, 0, 1]]).abs().max() <= limit, "order changes features"
    assert (features([1]).values - whole.values[1:2]).abs().max() <= limit, "batch size changes features"
    if prompts is not None:
        _check_prompt(backbone, backbone.encode(Views.of(views[:2])), prompts[:2], sampling)


def _prompts(backbone: Backbone, count: int) -> torch.Tensor | None:
    """Return a different prompt embedding for each photo; None for a backbone without a prompt."""
    if backbone.spec.prompt_width is None:
        assert backbone.text_encoder is None, "a backbone without a prompt has no text encoder"
        return None
    spec, text_encoder = backbone.spec, backbone.text_encoder
    start = torch.zeros(1, spec.max_length, spec.prompt_width or 0)
    if text_encoder is not None:
        assert (text_encoder.width, text_encoder.max_length) == (spec.prompt_width, spec.max_length), (
            "text encoder and spec do not fit"
        )
        with torch.no_grad():
            start = text_encoder.encode(text_encoder.embed(text_encoder.tokenize([""])))
    noise = torch.randn(count, *start.shape[1:], generator=torch.Generator().manual_seed(0))
    return start + 0.1 * noise.to(start)


def _check_map(backbone: Backbone, whole: FeatureMap, frames: list[ImageFrame]) -> None:
    spec = backbone.spec
    assert whole.values.shape[1] == spec.channels, (
        f"the spec says {spec.channels} channels, not {whole.values.shape[1]}"
    )
    assert whole.values.dtype == torch.float32, "feature maps come out in float32"
    assert whole.values.isfinite().all(), "features must be finite"
    assert list(whole.grid.frames) == frames, "a map must carry the frames of its views"
    height, width = whole.grid.frames[0].model_size
    assert whole.size == (height // spec.stride, width // spec.stride), "map and stride do not fit"
    assert tuple(whole.groups) == tuple(spec.groups), "channel groups are not those of the spec"
    assert (whole.values[0] - whole.values[1]).abs().max() > 0, "different photos must have different features"


def _check_prompt(backbone: Backbone, encoded: Encoded, prompts: torch.Tensor, sampling: Sampling) -> None:
    learned = prompts.clone().requires_grad_()
    made = backbone.extract(encoded, PromptEmbedding(learned), sampling)
    made.values.square().mean().backward()
    assert learned.grad is not None, "the prompt gets no gradient"
    assert learned.grad.isfinite().all(), "the prompt's gradient is not finite"
    assert learned.grad.abs().max() > 0, "the prompt has no influence"
    assert all(not weight.requires_grad for weight in backbone.parameters()), "a backbone's weights are frozen"
