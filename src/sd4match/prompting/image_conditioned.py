"""Base class of prompts that are computed from image features."""

from __future__ import annotations

from torch import nn

from sd4match.arguments import check_arguments
from sd4match.checks import check_finite
from sd4match.interfaces import Backbone, ImageEncoder, Prompt
from sd4match.prompting.config import ConditionalPromptConfig, ImplicitCaptionerConfig
from sd4match.prompting.text import text_encoder_of
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import ImageFeatures
from sd4match.structures.tensors import ParameterGroup as ParameterGroup

VIEW = "prompt"
"""Name in `ImageBatch.views` of the views for the image encoder of a prompt."""

_LINEAR_SCALE = 0.1


class ImageConditionedPrompt(Prompt):
    """Prompt that depends on the features of an image encoder. Linear layers learn at a tenth of the rate.

    Args:
        config: config of the prompt, which names the image encoder.
        backbone: backbone that the prompt conditions.

    Raises:
        ConfigError: the config does not fit the backbone.
        InputError: the backbone takes no prompt.
    """

    alpha: nn.Parameter
    """Gate of the image-conditioned vectors."""

    @check_arguments
    def __init__(self, config: ConditionalPromptConfig | ImplicitCaptionerConfig, backbone: Backbone) -> None:
        super().__init__()
        self.text_encoder = text_encoder_of(backbone)
        config.check_spec(backbone.spec)
        self.image_encoder: ImageEncoder = config.image_encoder.build(backbone=backbone)
        self.views = {VIEW: self.image_encoder.prepare}

    @check_arguments
    def encode_images(self, images: ImageBatch) -> ImageFeatures:
        """Return the image features of B photos, on the device of the parameters.

        Args:
            images: B photos with the view "prompt".

        Raises:
            InputError: the batch lacks the view.
            NonFiniteError: an image feature is NaN or infinite.
        """
        features = self.image_encoder.encode(images.view(VIEW))
        for name, values in (("local", features.local), ("pooled", features.pooled)):
            check_finite(
                f"the {name} image features of {type(self.image_encoder).__name__} in {values.dtype}", values,
                "check its weights with `models check`",
            )  # fmt: skip
        return ImageFeatures(features.local.to(self.alpha.device), features.pooled.to(self.alpha.device))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return two groups: the vectors, and the linear layers at a tenth of the learning rate."""
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        linear = tuple(parameter for layer in layers for parameter in layer.parameters())
        vectors = tuple(self.parameters(recurse=False))
        return [ParameterGroup("vectors", vectors), ParameterGroup("linear", linear, scale=_LINEAR_SCALE)]
