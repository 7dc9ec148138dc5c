"""Conditional prompting module (CPM), which computes a prompt from both photos of a pair."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from sd4match.arguments import check_arguments
from sd4match.errors import InputError
from sd4match.interfaces import Backbone
from sd4match.prompting.config import ConditionalPromptConfig
from sd4match.prompting.image_conditioned import ImageConditionedPrompt
from sd4match.prompting.initial import initial_vectors, load_initial_weights
from sd4match.prompting.tokens import encode_token_vectors
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import ImageFeatures, PromptEmbedding


class ConditionalPrompt(ImageConditionedPrompt):
    """SD4Match-CPM (section 3.3 of the paper): [global; tanh(alpha) * (x + pos)] between BOS and EOS.

    x is (B, num_tokens, D). F_A and F_B are the patch features (P, C) of the photo and of its partner, f_A and f_B
    their pooled features, and [;] concatenates channels. "Pooled" is adaptive max-pooling from P patches to num_tokens.

    ===================  =========================================================================
    local, pair          W_N W_C [F_A; F_B], pooled
    local, image         W_C F_A, pooled; with W_N if `mix_patches` is true
    global, pair         W_C [f_A; f_B], the same for all tokens
    global, image        W_C f_A, the same for all tokens, as in an implicit captioner
    ===================  =========================================================================

    W_C is a linear layer over channels (to D, with bias) and W_N one over patches (P to P, with bias); both learn at a
    tenth of the learning rate. Conditioned on a pair, both photos share one prompt, and A is the source; conditioned on
    an image, each photo has its own.

    Convention: no position embeddings of the text encoder are added to the learned vectors.

    Args:
        config: None for the defaults.
        backbone: backbone that the prompt conditions.
        initialize: if False, parameters are left uninitialized; use this only if a state dict is loaded next.

    Raises:
        ConfigError: the config does not fit the backbone.
        InputError: the backbone takes no prompt, or a text to start from is too long.

    >>> from sd4match.testing import FakeBackbone, FakeTextEncoder
    >>> config = ConditionalPromptConfig(image_encoder="backbone", num_global_tokens=3, num_tokens=4)
    >>> prompt = ConditionalPrompt(config, backbone=FakeBackbone(text_encoder=FakeTextEncoder()))
    >>> features = ImageFeatures(torch.zeros(2, 64, 48), torch.zeros(2, 48))
    >>> prompt.condition(features, features).shape
    torch.Size([2, 4, 8])
    """

    @check_arguments
    def __init__(
        self, config: ConditionalPromptConfig | None = None, *, backbone: Backbone, initialize: bool = True
    ) -> None:
        config = config or ConditionalPromptConfig()
        super().__init__(config, backbone)
        self.config: ConditionalPromptConfig = config
        self.scope = config.condition_on
        width, spec = self.text_encoder.width, self.image_encoder.spec
        channels = spec.local if config.features == "local" else spec.pooled
        photos = 2 if config.condition_on == "pair" else 1
        self.channel_linear = skip_init(nn.Linear, photos * channels, width)
        self.patch_linear = skip_init(nn.Linear, spec.patches, spec.patches) if config.mixes_patches else None
        self.alpha = nn.Parameter(torch.empty(config.num_tokens, width))
        self.positions = nn.Parameter(torch.empty(config.num_tokens, width))
        count = config.num_global_tokens
        self.global_embeddings = nn.Parameter(torch.empty(count, width)) if count else None
        if initialize:
            self.reset_parameters()
            load_initial_weights(self, config, backbone)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Reset the parameters according to `config.init` and `config.seed`.

        Raises:
            InputError: `config.init` is a text of more than `config.num_global_tokens` tokens.
        """
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.channel_linear.reset_parameters()
            if self.patch_linear is not None:
                self.patch_linear.reset_parameters()
            self.alpha.copy_(torch.rand(self.alpha.shape))
            self.positions.copy_(torch.rand(self.positions.shape))
        if self.global_embeddings is not None:
            self.global_embeddings.copy_(
                initial_vectors(
                    self.text_encoder, space="token", num_tokens=config.num_global_tokens, init=config.init,
                    seed=config.seed,
                )
            )  # fmt: skip

    @check_arguments
    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """Return the prompt embeddings (B, L, D).

        Args:
            images: B photos with the view "prompt".
            partners: the other photo of each pair; required if the prompt is conditioned on pairs.

        Raises:
            InputError: `partners` are missing for a prompt of pairs, or a batch lacks the view.
        """
        return PromptEmbedding(encode_token_vectors(self.text_encoder, self.token_vectors(images, partners)))

    @check_arguments
    def token_vectors(
        self, images: ImageBatch, partners: ImageBatch | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the vectors (B, num_global_tokens + num_tokens, D) between BOS and EOS.

        Args:
            images: B photos with the view "prompt".
            partners: the other photo of each pair, for a prompt that is conditioned on pairs.

        Raises:
            InputError: `partners` are missing for a prompt of pairs, or a batch lacks the view.
        """
        if self.config.condition_on == "image":
            partners = None
        elif partners is None:
            raise InputError("this prompt is conditioned on pairs: it needs the partner of every photo")
        own = self.encode_images(images)
        conditional = self.condition(own, None if partners is None else self.encode_images(partners))
        if self.global_embeddings is None:
            return conditional
        return torch.cat([self.global_embeddings.expand(len(images), -1, -1), conditional], dim=1)

    @check_arguments
    def condition(
        self, own: ImageFeatures, partner: ImageFeatures | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Return tanh(alpha) * (x + pos), (B, num_tokens, D), from image features.

        Args:
            own: features of B photos (A).
            partner: features of their partners (B), for a prompt that is conditioned on pairs.
        """
        inputs = [own] if partner is None else [own, partner]
        if self.config.features == "global":
            x = self.channel_linear(torch.cat([features.pooled for features in inputs], dim=-1))[:, None]
        else:
            x = self.channel_linear(torch.cat([features.local for features in inputs], dim=-1)).transpose(1, 2)
            if self.patch_linear is not None:
                x = self.patch_linear(x)
            x = F.adaptive_max_pool1d(x, self.config.num_tokens).transpose(1, 2)
        conditional: Tensor = self.alpha.tanh() * (x + self.positions)
        return conditional
