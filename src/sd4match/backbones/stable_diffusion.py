"""Features of a frozen Stable Diffusion: photo -> posterior of the latents -> noisy latents -> layers of the UNet."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel

from sd4match.backbones.config import StableDiffusionConfig
from sd4match.backbones.joined import joined
from sd4match.backbones.layers import layer_name, parse_layers, stable_diffusion_spec
from sd4match.backbones.loading import check_values, load_whole, read_weights
from sd4match.backbones.model_files import Fields, find_variant, read_json
from sd4match.backbones.network_fields import SCHEDULE, check_scheduler, require
from sd4match.backbones.noise import noisy_latents
from sd4match.backbones.precision import without_autocast, working_dtype
from sd4match.backbones.preprocessing import check_views, put_into_frame
from sd4match.backbones.pretrained import WEIGHTS, find_overlay, find_pretrained
from sd4match.backbones.text_encoder import ClipTextEncoder
from sd4match.backbones.tokenizer import load_tokenizer, tokenizer_digest
from sd4match.backbones.unet import features_at, prune
from sd4match.checks import check_each_finite, check_finite, dtype_name, range_hint
from sd4match.errors import CheckpointError, InputError, ShapeError
from sd4match.fingerprints import network_fingerprint, schedule_fingerprint
from sd4match.geometry import Grid
from sd4match.hashing import arithmetic_config, digest, weights_digest
from sd4match.interfaces import Backbone
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import Encoded, FeatureMap, PromptEmbedding, Sampling

_CLEAN_TIMESTEP = 261
"""Timestep of the time embedding of a CleanDIFT UNet, at which its features were trained."""
_PIXELS_ENCODED_AT_ONCE = 4 * 96 * 96
"""Pixels that the VAE encodes in one batch: a single small photo does not keep all cores busy."""


class StableDiffusionBackbone(Backbone):
    """Stable Diffusion as a feature extractor (Eqs. 1 and 2).

    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps; the feature map is the output of up-blocks of the UNet, or of
    sub-blocks of them, averaged over an ensemble of noises eps. The UNet runs only up to the last requested layer.
    Weights are frozen; features are differentiable in the prompt.

    Several layers are resized to one map size (bilinear, by cell centers, as SD-DINO does) and concatenated; their
    channels are the groups of the map. A clean UNet (CleanDIFT) gets the posterior's mode without noise, with one time
    embedding, whatever the sampling is.

    Convention: feature cells are aligned with the corners of the image ("corners").

    Args:
        config: layers, image size, clean, and passes at once; the other fields concern loading.
        unet: UNet, pruned or not; it is frozen.
        vae: VAE, of which only the encoder is used; it is frozen.
        text_encoder: text encoder of the same model.
        alphas_cumprod: (T,), abar_t for every timestep t.
        spec: shapes of the features; see `stable_diffusion_spec`.
        fingerprint: fingerprint of the networks before the UNet was pruned; None: computed from them.

    Raises:
        InputError: the image size does not fit the model.
    """

    alphas_cumprod: Tensor
    """Cumulative products abar_t for every timestep t, (T,)."""

    def __init__(
        self,
        config: StableDiffusionConfig,
        *,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: ClipTextEncoder,
        alphas_cumprod: Float[Tensor, " timesteps"],
        spec: FeatureSpec,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.unet = unet.requires_grad_(False).eval()
        self.vae = vae.requires_grad_(False).eval()
        self.text_encoder = text_encoder
        self.spec = spec
        self.layers = parse_layers(config.layers)
        self.clean = config.is_clean
        self.passes_at_once = config.passes_at_once
        side = config.image_size
        self.image_size = (side, side) if side else spec.native_size
        if any(side % spec.size_multiple for side in self.image_size):
            raise InputError(f"image_size must be a multiple of {spec.size_multiple}, not {side}")
        self.encoded_at_once = max(1, _PIXELS_ENCODED_AT_ONCE // (self.image_size[0] * self.image_size[1]))
        self.fingerprint = fingerprint or fingerprint_of(unet, text_encoder, vae, alphas_cumprod)
        self.register_buffer("alphas_cumprod", alphas_cumprod, persistent=False)

    def prepare(self, photo: Photo) -> View:
        """Squash or pad a photo to the model's square, as `spec.frame` says, and scale it to [-1, 1].

        Args:
            photo: any.
        """
        return put_into_frame(photo, self.spec.frame, self.image_size)

    @torch.no_grad()
    def encode(self, views: Views) -> Encoded:
        """Compute the VAE's posterior, in batches whose size depends on the size of the model's image only.

        The VAE runs in its own dtype, also inside an autocast, so that latents always have the same bits.

        Args:
            views: B photos, as `prepare` returns them.

        Returns:
            Tensors "mean" and "log_variance", (B, C, h, w), float32.

        Raises:
            ShapeError: the views have another size than the model's image.
            NonFiniteError: the latents are not finite, for example beyond the range of float16.
        """
        check_views(views, self.image_size)
        where = {"device": self.alphas_cumprod.device, "dtype": self.vae.encoder.conv_in.weight.dtype}
        with without_autocast(self.device):
            posteriors = [
                self.vae.encode(some.pixels.to(**where)).latent_dist for some in views.filled(self.encoded_at_once)
            ]
        mean = torch.cat([posterior.mean for posterior in posteriors])[: len(views)].float()
        log_variance = torch.cat([posterior.logvar for posterior in posteriors])[: len(views)].float()
        for values in (mean, log_variance):
            check_each_finite("the latents", views.names, "", values, self.vae.encoder.conv_in.weight.dtype)
        return Encoded({"mean": mean, "log_variance": log_variance}, views.frames, views.keys, views.names)

    def extract(self, encoded: Encoded, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Compute features under a prompt (Eq. 2).

        Args:
            encoded: B photos.
            prompt: (B, L, D), or (1, L, D) for one prompt for all photos.
            sampling: timestep, ensemble, noise and posterior. A clean UNet ignores it, after a check of the timestep.

        Returns:
            (B, C, h, w) features, float32.

        Raises:
            InputError: there is no prompt, it has no tokens or is not floating-point, or the model does not have the
                timestep.
            ShapeError: the prompt has another width or batch.
            NonFiniteError: the prompt or the features are not finite; the message names photo, layer and dtype.
        """
        context = self._context(prompt, len(encoded))
        if not 0 <= sampling.timestep < len(self.alphas_cumprod):
            raise InputError(f"timestep must be in [0, {len(self.alphas_cumprod)}), not {sampling.timestep}")
        if self.clean:
            mean = encoded.tensors["mean"].to(self.alphas_cumprod.device) * self.vae.config.scaling_factor
            return self._map(self._features(mean, _CLEAN_TIMESTEP, context), encoded)
        batch, size = len(encoded), sampling.ensemble_size
        at_once = max(1, self.passes_at_once // batch)
        totals: list[Tensor] | None = None
        for first in range(0, size, at_once):
            members = range(first, min(first + at_once, size))
            noisy = noisy_latents(
                encoded, sampling, members,
                scale=self.vae.config.scaling_factor, alpha_cumprod=self.alphas_cumprod[sampling.timestep],
            )  # fmt: skip
            features = self._features(noisy, sampling.timestep, context.repeat(len(members), 1, 1))
            sums = [layer.unflatten(0, (len(members), batch)).sum(dim=0) for layer in features]
            totals = sums if totals is None else [total + more for total, more in zip(totals, sums, strict=True)]
        assert totals is not None
        return self._map([total / size for total in totals], encoded)

    @property
    def encoded_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each encoded tensor of one photo."""
        down = 2 ** (len(self.vae.config.block_out_channels) - 1)
        shape = (self.vae.config.latent_channels, *(side // down for side in self.image_size))
        return {"mean": shape, "log_variance": shape}

    def weights_digest(self) -> str:
        """Return a digest of the VAE's encoder and of its memory format, which changes results by rounding."""
        contiguous = self.vae.encoder.conv_in.weight.is_contiguous()
        return digest(weights_digest(self.vae), *(() if contiguous else ("channels last",)))

    def _features(self, latents: Tensor, timestep: int, context: Tensor) -> list[Tensor]:
        """Return the features of each layer, in float32."""
        outputs = features_at(self.unet, latents.to(self.unet.conv_in.weight.dtype), timestep, context, self.layers)
        return [output.float() for output in outputs]

    def _map(self, features: list[Tensor], encoded: Encoded) -> FeatureMap:
        """Check, resize and concatenate the features of all layers."""
        dtype = working_dtype(self.unet.conv_in.weight.dtype, self.device)
        for layer, values in zip(self.layers, features, strict=True):
            names = encoded.names or encoded.keys
            check_each_finite("the features", names, f"at layer {layer_name([layer])}", values, dtype)
        side = self.image_size[0] // self.spec.stride
        grid = Grid(encoded.frames, (side, side), "corners")
        return FeatureMap(joined(features, (side, side)), grid, self.spec.groups)

    def _context(self, prompt: PromptEmbedding | None, batch: int) -> Tensor:
        """Return the prompt embedding of each image, on the device and in the dtype of the UNet."""
        if prompt is None:
            raise InputError("Stable Diffusion needs a prompt; the empty one is EmptyPrompt")
        values = prompt.values
        if values.ndim != 3 or values.shape[::2] not in ((1, self.spec.prompt_width), (batch, self.spec.prompt_width)):
            raise ShapeError(f"expected a prompt ({batch}, L, {self.spec.prompt_width}), got {tuple(values.shape)}")
        if not values.is_floating_point() or values.shape[1] == 0:
            raise InputError(f"a prompt is a floating-point tensor of one token or more, not {values.shape[1]} tokens "
                             f"of {dtype_name(values.dtype)}")  # fmt: skip
        context = values.to(self.alphas_cumprod.device, self.unet.conv_in.weight.dtype)
        name = f"the values of the prompt embedding in {dtype_name(context.dtype)}"
        check_finite(name, context.detach(), range_hint(context.dtype))
        return context.expand(batch, -1, -1)


def load_stable_diffusion(
    config: StableDiffusionConfig, *, device: str | torch.device = "cpu"
) -> StableDiffusionBackbone:
    """Load a model: the encoder of the VAE, the text encoder, and the UNet up to the last requested layer.

    On a CPU the VAE is loaded in float32, whatever the dtype of the config is.

    Args:
        config: model, layers and options.
        device: device of the weights.

    Raises:
        CheckpointError: the model is not found, incomplete or damaged.
    """
    folder, overlay = find_pretrained(config.weights), find_overlay(config.weights)
    configs = {name: read_json(folder / name / "config.json") for name in WEIGHTS}
    spec = stable_diffusion_spec(
        configs, where=str(folder), layers=config.layers, frame=config.frame, dtype=config.dtype,
        image_size=config.image_size, cells=config.cells, clean=config.is_clean,
    )  # fmt: skip
    for name, needed in _NEEDED.items():
        require(Fields(configs[name], str(folder / name / "config.json")), *needed)
    vocab_size: int = configs["text_encoder"]["vocab_size"]
    tokenizer = load_tokenizer(folder / "tokenizer", vocab_size=vocab_size, text_encoder=configs["text_encoder"])
    alphas_cumprod = _read_schedule(folder / "scheduler" / "scheduler_config.json")
    variants = {name: find_variant(folder / name, stem, config.variant) for name, stem in WEIGHTS.items()}
    dtype: torch.dtype = getattr(torch, config.dtype)
    unet = load_whole(
        UNet2DConditionModel, folder / "unet", stem=WEIGHTS["unet"], variant=variants["unet"], torch_dtype=dtype
    )
    if overlay is not None:
        _replace_weights(unet, overlay)
    # half-precision convolutions are up to 200 times slower on CPUs without kernels for them
    vae_dtype = torch.float32 if torch.device(device).type == "cpu" else dtype
    vae = load_whole(AutoencoderKL, folder / "vae", stem=WEIGHTS["vae"], variant=variants["vae"], torch_dtype=vae_dtype)
    text_model = load_whole(
        CLIPTextModel, folder / "text_encoder", stem=WEIGHTS["text_encoder"], variant=variants["text_encoder"],
        dtype=dtype, others=_OTHER_TOWER,
    )  # fmt: skip
    text_encoder = ClipTextEncoder(text_model, tokenizer)
    fingerprint = fingerprint_of(
        unet, text_encoder, vae, alphas_cumprod
    )  # before pruning, so that it does not depend on the layers
    prune(unet, parse_layers(config.layers))
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    vae.decoder = vae.post_quant_conv = None
    if config.channels_last:
        unet, vae = (network.to(memory_format=torch.channels_last) for network in (unet, vae))
    backbone = StableDiffusionBackbone(
        config,
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        alphas_cumprod=alphas_cumprod,
        spec=spec,
        fingerprint=fingerprint,
    )
    return backbone.to(device)


def fingerprint_of(
    unet: nn.Module, text_encoder: ClipTextEncoder, vae: AutoencoderKL, alphas_cumprod: Float[Tensor, " timesteps"]
) -> str:
    """Return the fingerprint of everything that features depend on; see `sd4match.fingerprints`."""
    vae_modules = [module for module in (vae.encoder, vae.quant_conv) if module is not None]
    return " ".join([
        network_fingerprint("unet", unet),
        network_fingerprint("text_encoder", text_encoder.model, config=tokenizer_digest(text_encoder.tokenizer)),
        network_fingerprint("vae", *vae_modules, config=arithmetic_config(vae)),
        schedule_fingerprint(alphas_cumprod),
    ])  # fmt: skip


def _read_schedule(file: Path) -> Float[Tensor, " timesteps"]:
    """Return abar_t for every timestep of a scheduler.

    Raises:
        CheckpointError: a field has a value that cannot work.
    """
    content = read_json(file)
    check_scheduler(Fields(content, str(file)))
    alphas_cumprod: Tensor = DDIMScheduler(
        **{name: content[name] for name in SCHEDULE if name in content}
    ).alphas_cumprod
    return alphas_cumprod


def _replace_weights(unet: UNet2DConditionModel, file: Path) -> None:
    """Load the weights of a file into a UNet."""
    try:
        unet.load_state_dict(read_weights(file), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"cannot load the model in {file}: {reason}") from None
    check_values(unet, file)


_OTHER_TOWER = (r"^vision_model\.", r"^visual_projection\.", r"^text_projection\.", r"^logit_scale$")
"""Tensors of a whole CLIP besides its text transformer."""
_NEEDED = {
    "unet": ("layers_per_block", "norm_num_groups", "out_channels", "down_block_types", "up_block_types"),
    "vae": ("layers_per_block", "latent_channels", "down_block_types", "up_block_types"),
    "text_encoder": ("num_attention_heads", "hidden_size", "intermediate_size", "hidden_act"),
}
"""Fields whose defaults in the libraries are those of another Stable Diffusion, or of none."""
