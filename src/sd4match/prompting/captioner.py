"""Implicit captioner: a projected image embedding is added to the empty prompt."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

from sd4match.arguments import check_arguments
from sd4match.checks import check_finite
from sd4match.interfaces import Backbone, Scope
from sd4match.prompting.config import ImplicitCaptionerConfig
from sd4match.prompting.image_conditioned import ImageConditionedPrompt
from sd4match.prompting.text import TextEmbeddings
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import PromptEmbedding


class ImplicitCaptioner(ImageConditionedPrompt):
    """Implicit captioner of ODISE in hidden space: text("") + tanh(alpha) * (W e + pos).

    e is the pooled image embedding (CLIP ViT-L/14 in ODISE), W is (D, e) with bias, alpha and pos are (L, D). alpha is
    initialized to zero, so that training begins at the empty prompt. ODISE also adds a learned term to the time
    embedding of the UNet, which a prompt cannot change here; results published with it (52.4 on SPair-71k) are not
    reproduced.

    Args:
        config: None for the defaults.
        backbone: backbone that the prompt conditions.
        initialize: False leaves the parameters without values, for a state dict that is loaded next.

    Raises:
        ConfigError: the config does not fit the backbone.
        InputError: the backbone takes no prompt.

    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> backbone = FakeBackbone(text_encoder=FakeTextEncoder())
    >>> prompt = ImplicitCaptioner(ImplicitCaptionerConfig(image_encoder="backbone"), backbone=backbone)
    >>> prompt.condition(torch.zeros(2, 48)).shape
    torch.Size([2, 77, 8])
    """

    scope: Scope = "image"

    @check_arguments
    def __init__(
        self, config: ImplicitCaptionerConfig | None = None, *, backbone: Backbone, initialize: bool = True
    ) -> None:
        config = config or ImplicitCaptionerConfig()
        super().__init__(config, backbone)
        self.config: ImplicitCaptionerConfig = config
        self._embed = TextEmbeddings(self.text_encoder)
        length, width = self.text_encoder.max_length, self.text_encoder.width
        self.linear = skip_init(nn.Linear, self.image_encoder.spec.pooled, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        self.alpha = nn.Parameter(torch.empty(length, width))
        if initialize:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the parameters to the initial values that `config.seed` determines."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.linear.reset_parameters()
            self.positions.copy_(0.02 * torch.randn(self.positions.shape))
        self.alpha.zero_()

    @check_arguments
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return the prompt embeddings (B, L, D).

        Args:
            images: B photos with the view "prompt".
            partners: not used.

        Raises:
            InputError: the batch lacks the view.
            NonFiniteError: an image feature or a learned value is NaN or infinite.
        """
        pooled = self.encode_images(images).pooled
        values = self._embed([""]).to(pooled) + self.condition(pooled)
        check_finite(f"the values of the prompt in {values.dtype}", values)
        return PromptEmbedding(values)

    @check_arguments
    def condition(self, pooled: Float[Tensor, "batch features"]) -> Float[Tensor, "batch tokens width"]:
        """Return tanh(alpha) * (W e + pos), (B, L, D).

        Args:
            pooled: pooled image features e, (B, e).
        """
        conditional: Tensor = self.alpha.tanh() * (self.linear(pooled)[:, None] + self.positions)
        return conditional
