"""Conformance of backbones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.geometry import pad_frame, squash_frame
from sd4match.interfaces import Backbone
from sd4match.interfaces.calls import describe_component
from sd4match.structures.images import View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import Encoded, EvaluationNoise, FeatureMap, PromptEmbedding, Sampling, TrainingNoise
from sd4match.testing.conformance.common import (
    ask,
    check_device,
    check_digest,
    check_frozen,
    check_prepare,
    close,
    equal,
    has_tensors,
    hold,
    promising,
    some_photos,
    untouched,
)


@check_arguments
def check_backbone(backbone: Backbone, *, sampling: Sampling | None = None, tolerance: float = 1e-4) -> None:
    """Check that a backbone keeps the promises of `Backbone`.

    - Shapes are those of its spec. A view has the photo's frame and key, and depends on the photo alone.
    - Features depend neither on the order or size of a batch nor on earlier calls. They have the same bits for the same
      batch, and the frames of the views.
    - The prompt, if there is one, changes the features and gets a gradient. Weights get none.
    - The noise of a photo does not depend on the rest of the batch.
    - It computes on the device that it is moved to, and its digest changes with its weights.

    Args:
        backbone: the backbone, already built.
        sampling: timestep and noise of the features.
        tolerance: largest difference between batches of different size, relative to the largest feature, >= 0.

    Raises:
        AssertionError: a promise is broken; the message says which.

    >>> from sd4match.testing import FakeBackbone
    >>> check_backbone(FakeBackbone())
    """
    check_number("tolerance", tolerance, low=0.0)
    name, sampling = describe_component("backbone", backbone), sampling or Sampling(100, 2, EvaluationNoise(1))
    hold(isinstance(getattr(backbone, "spec", None), FeatureSpec), f"{name} must say its shapes in a FeatureSpec, spec")
    check_frozen(name, backbone)
    views = check_prepare(name, backbone.prepare, some_photos())
    _check_views(backbone.spec, views)
    check_digest(name, backbone)
    hold(
        backbone.weights_digest() is None or backbone.fingerprint != "unknown",
        f"{name} has a weights_digest, and so must have a fingerprint other than 'unknown'",
    )
    prompts = _prompts(backbone, len(views))

    def features(rows: Sequence[int], drawn: Sampling = sampling) -> FeatureMap:
        with torch.no_grad():
            encoded = _encode(name, backbone, [views[row] for row in rows])
            chosen = None if prompts is None else PromptEmbedding(prompts[list(rows)])
            with untouched(f"extract of {name}", *encoded.tensors.values()):
                return ask(f"{name} must extract maps", backbone.extract, encoded, chosen, drawn, kind=FeatureMap)

    whole = features([0, 1, 2])
    _check_map(backbone.spec, whole, views)
    _check_encoded(name, backbone, views, tolerance=tolerance)
    for promise, rows in (
        ("the order of a batch changes features", [2, 0, 1]),
        ("the batch size changes features", [1]),
        ("earlier calls change features", [0, 1, 2]),
    ):
        allowed = 0.0 if rows == [0, 1, 2] else tolerance
        if not close(features(rows).values, whole.values[rows], allowed):
            steady = equal(features([0, 1, 2]).values, features([0, 1, 2]).values)
            raise AssertionError(promise if steady else "the same batch must give the same bits")
    training = [replace(sampling, ensemble_size=1, noise=TrainingNoise(1, 2, rows)) for rows in ((0, 1, 2), (1,))]
    hold(
        close(features([1], training[1]).values, features([0, 1, 2], training[0]).values[1:2], tolerance),
        "noise of a training must depend on seed, step and index alone, not on how a batch is split",
    )
    if prompts is not None:
        _check_prompt(name, backbone, views, prompts, sampling, tolerance=tolerance)
    if has_tensors(backbone):
        check_device(
            name, backbone, lambda moved, device: {"features": _there(moved, views, prompts, sampling, device)},
            {"features": whole.values}, tolerance=tolerance,
        )  # fmt: skip


def _check_views(spec: FeatureSpec, views: Sequence[View]) -> None:
    """Check that views agree with the spec."""
    several = spec.size_multiple
    sides = (*spec.native_size, *(side for view in views for side in view.frame.model_size))
    hold(
        all(side % several == 0 for side in sides),
        f"the spec says that sides are multiples of {several}, and native_size or a view is of another size",
    )
    for view in views:
        photo, (height, width) = view.frame.original_size, view.frame.model_size
        wanted = squash_frame(photo, (height, width)) if spec.frame == "squash" else pad_frame(photo, height)
        hold(
            view.frame == wanted, f"the spec says that photos are put into the image by {spec.frame}, and they are not"
        )


def _encode(name: str, backbone: Backbone, views: Sequence[View]) -> Encoded:
    with untouched(f"encode of {name}", *(view.pixels for view in views)):
        encoded = ask(f"{name} must encode photos", backbone.encode, Views.of(views), kind=Encoded)
    frames, keys = tuple(view.frame for view in views), tuple(view.key for view in views)
    hold(
        (encoded.frames, encoded.keys) == (frames, keys), "what is encoded must carry the frames and keys of its views"
    )
    return encoded


def _check_encoded(name: str, backbone: Backbone, views: Sequence[View], *, tolerance: float) -> None:
    """Check that an encoded photo depends on this photo alone."""
    with torch.no_grad():
        whole, again, single = (_encode(name, backbone, some) for some in (views, views, views[1:2]))
    for key, tensor in whole.tensors.items():
        hold(equal(tensor, again.tensors[key]), "photos must be encoded to the same bits each time")
        hold(
            close(single.tensors[key], tensor[1:2], tolerance),
            "an encoded photo must not depend on the rest of its batch",
        )


def _prompts(backbone: Backbone, count: int) -> Tensor | None:
    """Return a different prompt embedding for each photo; None for a backbone without a prompt."""
    if backbone.spec.prompt_width is None:
        hold(backbone.text_encoder is None, "a backbone without a prompt has no text encoder")
        return None
    spec, text_encoder = backbone.spec, backbone.text_encoder
    start = torch.zeros(1, spec.max_length, spec.prompt_width or 0)
    if text_encoder is not None:
        hold(
            (text_encoder.width, text_encoder.max_length) == (spec.prompt_width, spec.max_length),
            "text encoder and spec do not fit",
        )
        with torch.no_grad(), promising("a text encoder must encode the empty text"):
            start = text_encoder.encode(text_encoder.embed(text_encoder.tokenize([""])))
    noise = torch.randn(count, *start.shape[1:], generator=torch.Generator().manual_seed(0))
    return start + 0.1 * noise.to(start)


def _check_map(spec: FeatureSpec, whole: FeatureMap, views: Sequence[View]) -> None:
    channels = whole.values.shape[1]
    hold(channels == spec.channels, f"the spec says {spec.channels} channels, not {channels}")
    hold(whole.values.dtype == torch.float32, f"feature maps come out in float32, not {whole.values.dtype}")
    hold(whole.values.isfinite().all(), "features must be finite")
    hold(list(whole.grid.frames) == [view.frame for view in views], "a map must carry the frames of its views")
    height, width = whole.grid.frames[0].model_size
    hold(whole.size == (height // spec.stride, width // spec.stride), "map and stride do not fit")
    hold(tuple(whole.groups) == tuple(spec.groups), "channel groups are not those of the spec")
    hold((whole.values[0] - whole.values[1]).abs().max() > 0, "different photos must have different features")


def _check_prompt(
    name: str, backbone: Backbone, views: Sequence[View], prompts: Tensor, sampling: Sampling, *, tolerance: float
) -> None:
    """Check that a prompt has influence and a gradient, and that one prompt can serve all photos."""
    encoded = _encode(name, backbone, views[:2])
    first = prompts[:1].clone().requires_grad_()
    with promising(f"{name} must take one prompt, (1, L, D), for all photos"):
        made = backbone.extract(encoded, PromptEmbedding(first), sampling)
        with torch.no_grad():
            each = backbone.extract(encoded, PromptEmbedding(prompts[[0, 0]]), sampling)
    hold(
        close(made.values, each.values, tolerance), "one prompt for all photos must be the same as that prompt for each"
    )
    value = made.values.square().mean()
    gradient = torch.autograd.grad(value, first, allow_unused=True)[0] if value.requires_grad else None
    hold(gradient is not None, "the prompt gets no gradient")
    if gradient is not None:
        hold(gradient.isfinite().all(), "the prompt's gradient is not finite")
        hold(gradient.abs().max() > 0, "the prompt has no influence")


def _there(
    moved: Backbone, views: Sequence[View], prompts: Tensor | None, sampling: Sampling, device: torch.device
) -> Tensor:
    """Return the features on another device, of encoded photos on the CPU, where a cache has them."""
    encoded = moved.encode(Views.of(views))
    on_cpu = replace(encoded, tensors={key: value.cpu() for key, value in encoded.tensors.items()})
    prompt = None if prompts is None else PromptEmbedding(prompts.detach().to(device))
    return moved.extract(on_cpu, prompt, sampling).values
