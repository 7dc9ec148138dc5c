"""The implicit captioner: an image embedding nudges the empty prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.prompting.config import ImplicitCaptionerConfig
from sd4match.prompting.fixed import TextEmbeddings, text_encoder_of
from sd4match.prompting.looking import VIEW, look
from sd4match.protocols import Backbone, ImageEncoder, ParameterGroup, Prepare, Scope
from sd4match.registry import image_encoders
from sd4match.types import ImageBatch, PromptEmbedding

_LINEAR_SCALE = 0.1


class ImplicitCaptioner(nn.Module):
    """ODISE's implicit captioner in hidden space: text("") + tanh(alpha) * (W e + pos).

    e is the pooled image embedding (CLIP ViT-L/14 in ODISE), W (D, e) with bias, alpha and pos (L, D). alpha starts at
    zero, so the first prompt is the empty one. ODISE also adds a learned term to the UNet's time embedding; a prompt
    here cannot, so numbers published with it (52.4 on SPair-71k) are not claimed.

    Args:
        backbone: what it conditions.
        settings: the fields of `ImplicitCaptionerConfig`: image_encoder, seed.

    Raises:
        ConfigError: a setting that does not fit, or a backbone without a prompt.
    """

    scope: Scope = "image"

    def __init__(self, *, backbone: Backbone, **settings: Any) -> None:
        super().__init__()
        text = text_encoder_of(backbone)
        self.config = config = ImplicitCaptionerConfig.of(**settings)
        config.check_spec(backbone.spec)
        encoder: ImageEncoder = image_encoders.build(config.image_encoder, backbone=backbone)
        self._frozen = (TextEmbeddings(text), encoder)
        self.views: Mapping[str, Prepare] = {VIEW: encoder.prepare}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.linear = nn.Linear(encoder.spec.pooled, text.width)
            self.positions = nn.Parameter(0.02 * torch.randn(text.token_budget, text.width))
        self.alpha = nn.Parameter(torch.zeros(text.token_budget, text.width))

    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """(B, L, D).

        Raises:
            InputError: the batch lacks the view named in `views`.
        """
        embed, encoder = self._frozen
        pooled = look(encoder, images, self.alpha.device).pooled
        return PromptEmbedding(embed([""]).to(pooled) + self.nudge(pooled))

    def nudge(self, pooled: Float[Tensor, "batch features"]) -> Float[Tensor, "batch slots width"]:
        """tanh(alpha) * (W e + pos)."""
        added: Tensor = self.alpha.tanh() * (self.linear(pooled)[:, None] + self.positions)
        return added

    def parameter_groups(self) -> list[ParameterGroup]:
        """Vectors alpha and pos, and at a tenth of their rate W."""
        return [
            ParameterGroup("vectors", (self.alpha, self.positions)),
            ParameterGroup("linear", tuple(self.linear.parameters()), scale=_LINEAR_SCALE),
        ]
