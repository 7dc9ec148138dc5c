"""The implicit captioner: an image embedding nudges the empty prompt."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sd4match.interfaces import Backbone, Scope
from sd4match.prompting.config import ImplicitCaptionerConfig
from sd4match.prompting.image_conditioned import LookingPrompt
from sd4match.prompting.text import TextEmbeddings
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import PromptEmbedding


class ImplicitCaptioner(LookingPrompt):
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
        config = ImplicitCaptionerConfig.of(**settings)
        super().__init__(config, backbone)
        self.config = config
        text, encoder = self._frozen
        self._embed = TextEmbeddings(text)
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
        pooled = self.look(images).pooled
        return PromptEmbedding(self._embed([""]).to(pooled) + self.nudge(pooled))

    def nudge(self, pooled: Float[Tensor, "batch features"]) -> Float[Tensor, "batch slots width"]:
        """tanh(alpha) * (W e + pos)."""
        added: Tensor = self.alpha.tanh() * (self.linear(pooled)[:, None] + self.positions)
        return added
