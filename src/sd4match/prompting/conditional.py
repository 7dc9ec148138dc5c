"""The conditional prompting module: a prompt that the two photos of a pair decide together."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sd4match.errors import InputError
from sd4match.interfaces import Backbone, Scope
from sd4match.prompting.config import ConditionalPromptConfig
from sd4match.prompting.image_conditioned import LookingPrompt
from sd4match.prompting.initial import initial_vectors, take_over
from sd4match.prompting.tokens import encode_slots
from sd4match.structures.images import ImageBatch
from sd4match.structures.tensors import ImageFeatures, PromptEmbedding


class ConditionalPrompt(LookingPrompt):
    """SD4Match-CPM (section 3.3 of the paper): [global; tanh(alpha) * (x + pos)] between BOS and EOS.

    What x, (B, slots, D), is, with own features F_A and the partner's F_B:

    ===================  =========================================================================
    local, pair          AdaptiveMaxPool over patches of W_N W_C [F_A; F_B]
    local, image         AdaptiveMaxPool over patches of W_C F_A; with W_N if `mix_patches` is true
    global, pair         W_C [f_A; f_B], the same in all slots (f: the pooled features)
    global, image        W_C f_A, the same in all slots: the shape of an implicit captioner
    ===================  =========================================================================

    W_C acts on channels (to D, with bias), W_N on patches (P to P, with bias); both learn at a tenth of the rate. A
    pair has one prompt for both photos, and the first of the pair is A.

    Convention: the learned vectors get no position embedding.

    Args:
        backbone: what it conditions.
        settings: the fields of `ConditionalPromptConfig`: image_encoder, condition_on, features, global_slots, slots,
            mix_patches, init, start_from, seed.

    Raises:
        ConfigError: settings that do not go together, or with the backbone.
    """

    def __init__(self, *, backbone: Backbone, **settings: Any) -> None:
        config = ConditionalPromptConfig.of(**settings)
        super().__init__(config, backbone)
        self.config = config
        text, encoder = self._frozen
        self.scope: Scope = config.condition_on
        spec = encoder.spec
        own = spec.local if config.features == "local" else spec.pooled
        seen = own * (2 if config.condition_on == "pair" else 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.channel_linear = nn.Linear(seen, text.width)
            self.patch_linear = nn.Linear(spec.patches, spec.patches) if config.mixes_patches else None
            self.alpha = nn.Parameter(torch.rand(config.slots, text.width))
            self.positions = nn.Parameter(torch.rand(config.slots, text.width))
        start = initial_vectors(text, space="token", slots=config.global_slots, init=config.init, seed=config.seed)
        self.global_embeddings = nn.Parameter(start) if config.global_slots else None
        take_over(self, config, backbone)

    def forward(self, images: ImageBatch, partners: ImageBatch | None = None) -> PromptEmbedding:
        """(B, L, D).

        Raises:
            InputError: `partners` are missing for a prompt of pairs, or the batch lacks the views named in `views`.
        """
        return PromptEmbedding(encode_slots(self._frozen[0], self.token_vectors(images, partners)))

    def token_vectors(
        self, images: ImageBatch, partners: ImageBatch | None = None
    ) -> Float[Tensor, "batch slots width"]:
        """(B, global_slots + slots, D), what stands between BOS and EOS; raises as `forward`."""
        if self.config.condition_on == "image":
            partners = None
        elif partners is None:
            raise InputError("this prompt is conditioned on pairs: it needs the partner of every photo")
        conditional = self.condition(self.look(images), None if partners is None else self.look(partners))
        if self.global_embeddings is None:
            return conditional
        return torch.cat([self.global_embeddings.expand(len(images), -1, -1), conditional], dim=1)

    def condition(self, own: ImageFeatures, partner: ImageFeatures | None = None) -> Float[Tensor, "batch slots width"]:
        """tanh(alpha) * (x + pos), from features.

        Args:
            own: of the photos (A).
            partner: of their partners (B), for a prompt of pairs.
        """
        both = [own] if partner is None else [own, partner]
        if self.config.features == "global":
            x = self.channel_linear(torch.cat([one.pooled for one in both], dim=-1))[:, None]
        else:
            x = self.channel_linear(torch.cat([one.local for one in both], dim=-1)).transpose(1, 2)
            if self.patch_linear is not None:
                x = self.patch_linear(x)
            x = F.adaptive_max_pool1d(x, self.config.slots).transpose(1, 2)
        conditional: Tensor = self.alpha.tanh() * (x + self.positions)
        return conditional
