"""What prompts that look at photos share: an image encoder, its view, and how fast which part learns."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from sd4match.errors import InputError
from sd4match.interfaces import Backbone, ImageEncoder, Prepare, TextEncoder
from sd4match.prompting.config import ConditionalPromptConfig, ImplicitCaptionerConfig
from sd4match.prompting.text import text_encoder_of
from sd4match.registry import image_encoders
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import ImageFeatures, ParameterGroup

VIEW = "prompt"
"""The name under which `ImageBatch.views` has what a prompt's image encoder looks at."""

_LINEAR_SCALE = 0.1


class LookingPrompt(nn.Module):
    """A prompt that depends on what the config's image encoder sees. Linear layers learn at a tenth of the rate."""

    def __init__(self, config: ConditionalPromptConfig | ImplicitCaptionerConfig, backbone: Backbone) -> None:
        super().__init__()
        text = text_encoder_of(backbone)
        config.check_spec(backbone.spec)
        encoder: ImageEncoder = image_encoders.build(config.image_encoder, backbone=backbone)
        self._frozen: tuple[TextEncoder, ImageEncoder] = (text, encoder)  # a tuple: no part of this module's state
        self.views: Mapping[str, Prepare] = {VIEW: encoder.prepare}

    def look(self, images: ImageBatch) -> ImageFeatures:
        """The encoder's features of a batch, where this prompt's parameters are.

        Raises:
            InputError: the batch lacks the view.
        """
        if VIEW not in images.views:
            raise InputError(
                f"the batch has no view {VIEW!r}: make it with the prompt's `views` (`pairing.wanted_views`)"
            )
        features = self._frozen[1].encode(images.views[VIEW])
        device = next(self.parameters()).device
        return ImageFeatures(features.local.to(device), features.pooled.to(device))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Vectors, and at a tenth of their rate the weights and biases of linear layers."""
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        linear = tuple(parameter for layer in layers for parameter in layer.parameters())
        vectors = tuple(self.parameters(recurse=False))
        return [ParameterGroup("vectors", vectors), ParameterGroup("linear", linear, scale=_LINEAR_SCALE)]
