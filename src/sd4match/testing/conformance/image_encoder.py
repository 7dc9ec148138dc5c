"""Conformance of image encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sd4match.arguments import check_arguments
from sd4match.checks import check_number
from sd4match.interfaces import Backbone, ImageEncoder
from sd4match.interfaces.calls import describe_component
from sd4match.registry import image_encoders
from sd4match.structures.images import Views
from sd4match.structures.specs import ImageFeatureSpec
from sd4match.structures.tensors import ImageFeatures
from sd4match.testing.conformance.common import (
    ask,
    check_config,
    check_device,
    check_digest,
    check_frozen,
    check_prepare,
    close,
    config_of,
    equal,
    has_tensors,
    hold,
    some_photos,
    untouched,
)
from sd4match.testing.fakes import FakeBackbone, FakeTextEncoder


@check_arguments
def check_image_encoder(encoder: Any, *, backbone: Backbone | None = None, tolerance: float = 1e-4) -> None:
    """Check that an image encoder keeps the promises of `ImageEncoder`.

    - Shapes are those of its spec, and preprocessing depends on the photo alone.
    - Features are finite, float32, and without a gradient. They have the same bits for the same batch, and do not
      depend on the rest of the batch.
    - It computes on the device that it is moved to.

    Args:
        encoder: an image encoder, or its config, registered class or kind.
        backbone: backbone to build it with; a fake one by default.
        tolerance: largest difference between batches of different size, relative to the largest feature, >= 0.

    Raises:
        AssertionError: a promise is broken; the message says which.

    >>> check_image_encoder("fake")
    """
    check_number("tolerance", tolerance, low=0.0)
    if not isinstance(encoder, ImageEncoder):
        config = config_of(image_encoders, encoder)
        check_config(config)
        encoder = config.build(backbone=backbone or FakeBackbone(text_encoder=FakeTextEncoder()))
    inner: ImageEncoder = getattr(encoder, "encoder", encoder)  # without the cache around it
    name, spec = describe_component("image encoder", inner), getattr(inner, "spec", None)
    if not isinstance(spec, ImageFeatureSpec):
        raise AssertionError(f"{name} must say its shapes in an ImageFeatureSpec, spec")
    check_frozen(name, inner)
    views = check_prepare(name, inner.prepare, some_photos())
    check_digest(name, inner)

    def features(rows: Sequence[int]) -> dict[str, Tensor]:
        some = [views[row] for row in rows]
        with untouched(f"encode of {name}", *(view.pixels for view in some)):
            made = ask(f"{name} must encode photos", inner.encode, Views.of(some), kind=ImageFeatures)
        return {"local features": made.local, "pooled features": made.pooled}

    whole = features([0, 1, 2])
    shapes = ((3, spec.patches, spec.local), (3, spec.pooled))
    for (what, values), shape in zip(whole.items(), shapes, strict=True):
        found = tuple(values.shape)
        hold(found == shape, f"the spec of {name} says {what} of shape {shape}, not {found}")
        hold(values.dtype == torch.float32, f"the {what} of {name} must be in float32, not {values.dtype}")
        hold(values.isfinite().all(), f"the {what} of {name} must be finite")
        hold(not values.requires_grad, f"{name} is frozen, and its {what} must need no gradient")
        hold((values[0] - values[1]).abs().max() > 0, f"different photos must have different {what} of {name}")
    again, turned, single, later = (features(rows) for rows in ([0, 1, 2], [2, 0, 1], [1], [0, 1, 2]))
    for what, values in whole.items():
        hold(equal(again[what], values), f"the same batch must give the same bits of {what} of {name}")
        hold(close(turned[what], values[[2, 0, 1]], tolerance), f"the order of a batch changes {what} of {name}")
        hold(close(single[what], values[1:2], tolerance), f"the batch size changes {what} of {name}")
        hold(equal(later[what], values), f"earlier calls change {what} of {name}")

    def there(moved: ImageEncoder, device: torch.device) -> dict[str, Tensor]:
        made = moved.encode(Views.of(views))
        return {"local features": made.local, "pooled features": made.pooled}

    if has_tensors(inner):
        check_device(name, inner, there, whole, tolerance=tolerance)
