"""Features of a frozen Stable Diffusion: photo -> latents -> noisy latents -> the UNet's up-block `layer`."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from sd4match.backbones.checkpoints import find_checkpoint, read_json, read_spec
from sd4match.backbones.frames import pad, squash
from sd4match.backbones.text import ClipTextEncoder
from sd4match.backbones.unet import features_at
from sd4match.errors import CheckpointError, InputError, ShapeError
from sd4match.spec import FeatureSpec
from sd4match.types import (
    EvaluationNoise,
    FeatureMap,
    Latents,
    Photo,
    PromptEmbedding,
    Sampling,
    TrainingNoise,
    View,
    Views,
)

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SKETCH_SIZE = 24
_Draw = tuple[str | int, ...]


class StableDiffusionBackbone(nn.Module):
    """Stable Diffusion as a feature extractor (Eqs. 1 and 2).

    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps; the feature map is the output of up-block `layer`, averaged over
    `ensemble_size` noises eps. The UNet runs only so far. Weights are frozen; gradients reach the prompt.

    Convention: feature cells are aligned with the corners of the image.
    """

    def __init__(
        self,
        *,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text: ClipTextEncoder,
        signal: Float[Tensor, " timesteps"],
        spec: FeatureSpec,
        layer: int = 1,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(False).eval()
        self.vae = vae.requires_grad_(False).eval()
        self.text = text
        self.spec = spec
        self.layer = layer
        self.image_size = (image_size, image_size) if image_size else spec.native_size
        if any(side % spec.size_multiple for side in self.image_size):
            raise InputError(f"image_size must be a multiple of {spec.size_multiple}, not {image_size}")
        self.fingerprint = _sketch(unet)
        self.register_buffer("signal", signal, persistent=False)
        self.signal: Tensor

    @classmethod
    def from_folder(
        cls,
        weights: str = "mini",
        *,
        layer: int = 1,
        image_size: int | None = None,
        frame: Literal["squash", "pad"] = "squash",
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        device: str | torch.device = "cpu",
    ) -> StableDiffusionBackbone:
        """Load a diffusers folder.

        Args:
            weights: "mini" or the path of a folder.
            layer: up-block, from 0; 1 in SD4Match and DIFT.
            image_size: side of the model's image in pixels; what the model was trained on, if not given.
            frame: "squash" a photo to that square (SD4Match, DIFT), or "pad" it (SD+DINO).
            dtype: of weights and arithmetic; feature maps come out in float32.
            device: where it runs.

        Raises:
            CheckpointError: the folder is missing, incomplete or damaged.
        """
        folder = find_checkpoint(weights)
        spec = read_spec(folder, layer=layer, frame=frame, dtype=dtype)
        kind = _DTYPES[dtype]
        try:
            unet = UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", torch_dtype=kind, local_files_only=True
            )
            vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=kind, local_files_only=True)
            model = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=kind, local_files_only=True)
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
            settings = read_json(folder / "scheduler" / "scheduler_config.json")
            signal = DDIMScheduler.from_config(settings).alphas_cumprod
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"cannot load the model in {folder}: {reason}") from None
        backbone = cls(
            unet=unet,
            vae=vae,
            text=ClipTextEncoder(model, tokenizer),
            signal=signal,
            spec=spec,
            layer=layer,
            image_size=image_size,
        )
        return backbone.to(device)

    def prepare(self, photo: Photo) -> View:
        """Into the model's square, squashed or padded as `spec.frame` says, scaled to [-1, 1]."""
        return pad(photo, self.image_size[0]) if self.spec.frame == "pad" else squash(photo, self.image_size)

    @torch.no_grad()
    def encode(self, views: Views) -> Latents:
        """The moments of the VAE's posterior."""
        expected = (3, *self.image_size)
        if tuple(views.pixels.shape[1:]) != expected:
            raise ShapeError(f"expected views (B, {', '.join(map(str, expected))}), got {tuple(views.pixels.shape)}")
        posterior = self.vae.encode(views.pixels.to(self.signal.device, self.vae.dtype)).latent_dist
        return Latents(posterior.mean.float(), posterior.logvar.float(), views.frames, views.keys)

    def extract(self, latents: Latents, prompt: PromptEmbedding | None, sampling: Sampling) -> FeatureMap:
        """Features under a prompt (Eq. 2).

        Args:
            latents: of B images.
            prompt: (B, L, D), or (1, L, D) for the same prompt everywhere.
            sampling: timestep, ensemble, noise, posterior.

        Raises:
            InputError: no prompt, or a timestep that the model does not have.
            ShapeError: the prompt is of another width or batch.
        """
        context = self._context(prompt, len(latents.keys))
        if not 0 <= sampling.timestep < len(self.signal):
            raise InputError(f"timestep must be in [0, {len(self.signal)}), not {sampling.timestep}")
        kept, spread = self.signal[sampling.timestep].sqrt(), (1 - self.signal[sampling.timestep]).sqrt()
        total: Tensor | None = None
        for member in range(sampling.ensemble_size):
            clean = self._draw_latents(latents, sampling, member)
            noisy = kept * clean + spread * _noise(clean, latents.keys, sampling.noise, ("noise", member))
            features = features_at(self.unet, noisy.to(self.unet.dtype), sampling.timestep, context, self.layer).float()
            total = features if total is None else total + features
        assert total is not None
        return FeatureMap(total / sampling.ensemble_size, latents.frames, "corners")

    def _context(self, prompt: PromptEmbedding | None, batch: int) -> Tensor:
        if prompt is None:
            raise InputError("Stable Diffusion needs a prompt; the empty one is EmptyPrompt")
        values = prompt.values
        if values.shape[-1] != self.spec.prompt_width or values.shape[0] not in (1, batch):
            raise ShapeError(f"expected a prompt ({batch}, L, {self.spec.prompt_width}), got {tuple(values.shape)}")
        return values.expand(batch, -1, -1).to(self.signal.device, self.unet.dtype)

    def _draw_latents(self, latents: Latents, sampling: Sampling, member: int) -> Tensor:
        """z_0: posterior mean, or mean + deviation * noise; times the VAE's scale."""
        scale: float = self.vae.config.scaling_factor
        mean = latents.mean.to(self.signal.device)
        if sampling.posterior == "mode":
            return mean * scale
        draw = ("posterior", member if sampling.posterior == "member" else 0)
        noise = _noise(mean, latents.keys, sampling.noise, draw)
        return (mean + torch.exp(0.5 * latents.log_variance.to(mean)) * noise) * scale


def _noise(like: Tensor, keys: tuple[str, ...], policy: EvaluationNoise | TrainingNoise, draw: _Draw) -> Tensor:
    """Standard normal noise for each image, from a stream of its own; drawn on the CPU, so the same on any device."""
    rows = []
    for row, key in enumerate(keys):
        name: _Draw
        if isinstance(policy, TrainingNoise):
            name = (policy.seed, policy.step, policy.first_index + row)
        else:
            name = (policy.seed, key)
        digest = hashlib.blake2b(repr((*name, *draw)).encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        rows.append(torch.randn(like.shape[1:], generator=generator))
    return torch.stack(rows).to(like)


def _sketch(unet: nn.Module) -> str:
    """A few weights at fixed places: equal to 1 % for the same model in another dtype or a re-saved mirror."""
    tensors = [value for _, value in sorted(unet.state_dict().items()) if value.ndim > 1]
    chosen = [tensors[i * len(tensors) // _SKETCH_SIZE] for i in range(_SKETCH_SIZE)]
    values = [float(tensor.flatten()[tensor.numel() // 2]) for tensor in chosen]
    return " ".join(f"{value:.4g}" for value in values)
