"""Features of a frozen Stable Diffusion: photo -> latents -> noisy latents -> the UNet's up-block `layer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from sd4match.backbones.layers import Layer, Layers, parse_layers, spec_of
from sd4match.backbones.noise import noisy_latents
from sd4match.backbones.preprocessing import pad, squash
from sd4match.backbones.pretrained import find_checkpoint, find_overlay, read_json
from sd4match.backbones.text_encoder import ClipTextEncoder
from sd4match.backbones.unet import features_at, prune
from sd4match.errors import CheckpointError, InputError, ShapeError
from sd4match.geometry import ImageFrame
from sd4match.hashing import digest, weights_digest
from sd4match.structures.images import Photo, View, Views
from sd4match.structures.specs import FeatureSpec
from sd4match.structures.tensors import FeatureMap, Latents, PromptEmbedding, Sampling

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PASSES_AT_ONCE = 8
_SKETCH_SIZE = 24
_CLEAN_TIMESTEP = 261
"""A UNet of CleanDIFT still has a time embedding; this is the one at which its features were made to fit."""


class StableDiffusionBackbone(nn.Module):
    """Stable Diffusion as a feature extractor (Eqs. 1 and 2).

    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps; the feature map is what comes out of up-blocks, or of sub-blocks of
    them, averaged over `ensemble_size` noises eps. The UNet runs only so far. Weights are frozen; gradients reach the
    prompt.

    Several layers are brought to one size (bilinear, by the middles of cells, as SD-DINO does) and concatenated; their
    channels are the map's groups. A clean UNet (CleanDIFT) gets the posterior's mode without noise, under one time
    embedding, whatever the sampling says.

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
        layers: Layers | Sequence[Layer] = 1,
        image_size: int | None = None,
        clean: bool = False,
        passes_at_once: int = PASSES_AT_ONCE,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(False).eval()
        self.vae = vae.requires_grad_(False).eval()
        self.text = text
        self.spec = spec
        self.places = parse_layers(layers)
        self.clean = clean
        self.passes_at_once = passes_at_once
        self.image_size = (image_size, image_size) if image_size else spec.native_size
        if any(side % spec.size_multiple for side in self.image_size):
            raise InputError(f"image_size must be a multiple of {spec.size_multiple}, not {image_size}")
        self.fingerprint = fingerprint or _sketch(unet)
        self.register_buffer("signal", signal, persistent=False)
        self.signal: Tensor

    @classmethod
    def from_folder(
        cls,
        weights: str = "mini",
        *,
        layers: Layers | Sequence[Layer] = 1,
        image_size: int | None = None,
        frame: Literal["squash", "pad"] = "squash",
        cells: int | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        variant: str | None = None,
        clean: bool | None = None,
        passes_at_once: int = PASSES_AT_ONCE,
        channels_last: bool = False,
        gradient_checkpointing: bool = False,
        device: str | torch.device = "cpu",
    ) -> StableDiffusionBackbone:
        """Load a model, and keep of it what is read: the VAE's encoder, and the UNet as far as the last layer.

        Args:
            weights: a known name, the path of a diffusers folder, or an id of the hub.
            layers: up-blocks, from 0, or sub-blocks of them; 1 in SD4Match and DIFT.
            image_size: side of the model's image in pixels; what the model was trained on, if not given.
            frame: "squash" a photo to that square (SD4Match, DIFT), or "pad" it (SD+DINO).
            cells: side of the map; that of the finest layer, if not given.
            dtype: of weights and arithmetic; feature maps come out in float32. On a CPU the VAE stays in float32.
            variant: of the weight files, for example "fp16"; whichever is there, if not given.
            clean: whether the UNet wants no noise; if not given, the name of the weights tells.
            passes_at_once: images times members of the ensemble that the UNet takes at once; more are faster and take
                more memory. All images of an extraction go together in any case.
            channels_last: keep weights in that order; some devices convolve faster so, and sum in another order.
            gradient_checkpointing: compute the UNet's blocks again in the backward pass instead of keeping all between.
            device: where it runs: "cpu", "cuda", "mps".

        Raises:
            CheckpointError: the model is nowhere, incomplete or damaged.
        """
        folder, overlay = find_checkpoint(weights), find_overlay(weights)
        configs = {part: read_json(folder / part / "config.json") for part in ("unet", "vae", "text_encoder")}
        spec = spec_of(
            configs, where=str(folder), layers=layers, frame=frame, dtype=dtype, image_size=image_size, cells=cells
        )
        kind = _DTYPES[dtype]
        try:
            unet = UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", torch_dtype=kind, local_files_only=True,
                variant=_variant(folder / "unet", "diffusion_pytorch_model", variant),
            )  # fmt: skip
            if overlay is not None:
                unet.load_state_dict(load_file(overlay), strict=True)
            # half-precision convolutions are up to 200 times slower on CPUs without kernels for them
            vae_kind = torch.float32 if torch.device(device).type == "cpu" else kind
            vae = AutoencoderKL.from_pretrained(
                folder, subfolder="vae", torch_dtype=vae_kind, local_files_only=True,
                variant=_variant(folder / "vae", "diffusion_pytorch_model", variant),
            )  # fmt: skip
            model = CLIPTextModel.from_pretrained(
                folder, subfolder="text_encoder", dtype=kind, local_files_only=True,
                variant=_variant(folder / "text_encoder", "model", variant),
            )  # fmt: skip
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
            settings = read_json(folder / "scheduler" / "scheduler_config.json")
            signal = DDIMScheduler.from_config(settings).alphas_cumprod
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"cannot load the model in {folder}: {reason}") from None
        fingerprint = _sketch(unet)  # of the whole, so that it does not depend on the layer
        prune(unet, parse_layers(layers))
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        vae.decoder = vae.post_quant_conv = None
        if channels_last:
            unet, vae = (model.to(memory_format=torch.channels_last) for model in (unet, vae))
        backbone = cls(
            unet=unet,
            vae=vae,
            text=ClipTextEncoder(model, tokenizer),
            signal=signal,
            spec=spec,
            layers=layers,
            image_size=image_size,
            clean=weights.startswith("cleandift") if clean is None else clean,
            passes_at_once=passes_at_once,
            fingerprint=fingerprint,
        )
        return backbone.to(device)

    def prepare(self, photo: Photo) -> View:
        """Into the model's square, squashed or padded as `spec.frame` says, scaled to [-1, 1]."""
        return pad(photo, self.image_size[0]) if self.spec.frame == "pad" else squash(photo, self.image_size)

    def weights_digest(self) -> str:
        """Of the VAE's encoder; in another order it sums in another order."""
        in_order = self.vae.encoder.conv_in.weight.is_contiguous()
        return digest(weights_digest(self.vae), *(() if in_order else ("channels last",)))

    @torch.no_grad()
    def encode(self, views: Views) -> Latents:
        """The moments of the VAE's posterior; photo by photo, which a VAE of this size costs no time."""
        expected = (3, *self.image_size)
        for view in views.views:  # which need not be stacked: the VAE takes one after the other
            if tuple(view.pixels.shape) != expected:
                raise ShapeError(f"expected views {expected}, got {tuple(view.pixels.shape)}")
        where = {"device": self.signal.device, "dtype": self.vae.dtype}
        found = [self.vae.encode(one.pixels.to(**where)).latent_dist for one in views.each()]
        mean, log_variance = (
            torch.cat(parts).float() for parts in zip(*((one.mean, one.logvar) for one in found), strict=True)
        )
        return Latents(mean, log_variance, views.frames, views.keys)

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
        if self.clean:
            mean = latents.mean.to(self.signal.device) * self.vae.config.scaling_factor
            return self._map(self._features(mean, _CLEAN_TIMESTEP, context), latents.frames)
        batch, size = len(latents.keys), sampling.ensemble_size
        at_once = max(1, self.passes_at_once // batch)
        total: list[Tensor] | None = None
        for first in range(0, size, at_once):
            members = range(first, min(first + at_once, size))
            noisy = noisy_latents(
                latents, sampling, members,
                scale=self.vae.config.scaling_factor, signal=self.signal[sampling.timestep],
            )  # fmt: skip
            found = self._features(noisy, sampling.timestep, context.repeat(len(members), 1, 1))
            sums = [one.unflatten(0, (len(members), batch)).sum(dim=0) for one in found]
            total = sums if total is None else [one + other for one, other in zip(total, sums, strict=True)]
        assert total is not None
        return self._map([one / size for one in total], latents.frames)

    def _features(self, latents: Tensor, timestep: int, context: Tensor) -> list[Tensor]:
        found = features_at(self.unet, latents.to(self.unet.dtype), timestep, context, self.places)
        return [one.float() for one in found]

    def _map(self, features: list[Tensor], frames: tuple[ImageFrame, ...]) -> FeatureMap:
        """One map of all layers."""
        side = self.image_size[0] // self.spec.stride
        sized = [
            one if one.shape[-1] == side else F.interpolate(one, size=(side, side), mode="bilinear") for one in features
        ]
        return FeatureMap(torch.cat(sized, dim=1), frames, "corners", groups=self.spec.groups)

    def _context(self, prompt: PromptEmbedding | None, batch: int) -> Tensor:
        if prompt is None:
            raise InputError("Stable Diffusion needs a prompt; the empty one is EmptyPrompt")
        values = prompt.values
        if values.shape[-1] != self.spec.prompt_width or values.shape[0] not in (1, batch):
            raise ShapeError(f"expected a prompt ({batch}, L, {self.spec.prompt_width}), got {tuple(values.shape)}")
        return values.expand(batch, -1, -1).to(self.signal.device, self.unet.dtype)


def _variant(folder: Path, stem: str, wanted: str | None) -> str | None:
    """The variant of a part's weight files: the one that is wanted, or the only one that is there."""
    if wanted is not None or any((folder / f"{stem}.{end}").is_file() for end in ("safetensors", "bin")):
        return wanted
    if (folder / f"{stem}.safetensors.index.json").is_file():
        return None
    names = sorted(file.name.split(".")[1] for file in folder.glob(f"{stem}.*.safetensors"))
    names += sorted(file.name.split(".")[-2] for file in folder.glob(f"{stem}.safetensors.index.*.json"))
    return names[0] if names else None


def _sketch(unet: nn.Module) -> str:
    """A few weights at fixed places: equal to 1 % for the same model in another dtype or a re-saved mirror."""
    tensors = [value for _, value in sorted(unet.state_dict().items()) if value.ndim > 1]
    chosen = [tensors[i * len(tensors) // _SKETCH_SIZE] for i in range(_SKETCH_SIZE)]
    values = [float(tensor.flatten()[tensor.numel() // 2]) for tensor in chosen]
    return " ".join(f"{value:.4g}" for value in values)
