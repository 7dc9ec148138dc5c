"""How prompts that depend on photos come to see them."""

from __future__ import annotations

import torch

from sd4match.errors import InputError
from sd4match.protocols import ImageEncoder
from sd4match.types import ImageBatch, ImageFeatures

VIEW = "prompt"
"""The name under which `ImageBatch.views` has what a prompt's image encoder looks at."""


def look(encoder: ImageEncoder, images: ImageBatch, device: torch.device) -> ImageFeatures:
    """The encoder's features of a batch.

    Raises:
        InputError: the batch lacks the view.
    """
    if VIEW not in images.views:
        raise InputError(f"the batch has no view {VIEW!r}: make it with the prompt's `views` (`pairing.wanted_views`)")
    features = encoder.encode(images.views[VIEW])
    return ImageFeatures(features.local.to(device), features.pooled.to(device))
