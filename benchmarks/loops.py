"""Loops shaped like those of the reference and of its peers, on our weights, inputs and noises.

They do no work that those do not do, and share with ours only what decides numbers and costs nothing: the noise of an
image, and the frame of a photo. Each sentence here stands beside the loop's row in the table.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from benchmarks.operations import LAYER
from sd4match.backbones.noise import image_noise
from sd4match.backbones.unet import features_at
from sd4match.interfaces import PairDataset
from sd4match.structures.images import Views
from sd4match.structures.pairs import PairRecord
from sd4match.structures.tensors import Encoded, Sampling


class Peer:
    """A whole model, as the peers hold it: nothing is kept from one call to the next.

    Args:
        unet: not pruned.
        vae: its encoder.
        alphas_cumprod: abar_t of every timestep.
    """

    def __init__(self, unet: UNet2DConditionModel, vae: AutoencoderKL, alphas_cumprod: Tensor) -> None:
        self.unet = unet
        self.vae = vae
        self.alphas_cumprod = alphas_cumprod

    def features_like_dift(self, view: Views, prompt: Tensor, sampling: Sampling, *, at_once: int) -> Tensor:
        """Encode a photo once for every member of the ensemble, then run the UNet up to the layer.

        Args:
            view: one photo.
            prompt: (1, L, D).
            sampling: timestep, ensemble, noise.
            at_once: members of a batch. DIFT's is the ensemble; at 768, smaller ones need less memory.
        """
        total = torch.zeros((), device=self.alphas_cumprod.device)
        for members in torch.arange(sampling.ensemble_size).split(at_once):
            moments = self._moments(Views(view.views * len(members)))
            draws = [image_noise(_one(view, moments), sampling, 0, "posterior", one) for one in members.tolist()]
            std = torch.exp(0.5 * moments[1])
            clean = (moments[0] + std * torch.stack(draws).to(std)) * self.vae.config.scaling_factor
            noisy = self._noisy(view, clean, sampling, members.tolist())
            context = prompt.expand(len(members), -1, -1)
            total = total + features_at(self.unet, noisy, sampling.timestep, context, [LAYER])[0].float().sum(0)
        return total / sampling.ensemble_size

    def features_like_sd4match(self, view: Views, prompt: Tensor, sampling: Sampling) -> Tensor:
        """Encode a photo, repeat its latents over the ensemble, and run the whole UNet for an early block."""
        size = sampling.ensemble_size
        with torch.no_grad():
            moments = self._moments(view)
        draw = image_noise(_one(view, moments), sampling, 0, "posterior", 0)[None].to(moments[0])
        clean = (moments[0] + torch.exp(0.5 * moments[1]) * draw) * self.vae.config.scaling_factor
        noisy = self._noisy(view, clean.expand(size, -1, -1, -1), sampling, range(size))
        found: list[Tensor] = []
        hook = self.unet.up_blocks[LAYER.block].register_forward_hook(lambda _, inputs, output: found.append(output))
        self.unet(noisy, torch.tensor(sampling.timestep), prompt.expand(size, -1, -1))
        hook.remove()
        return found[0].mean(0)

    def _moments(self, view: Views) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(view.pixels.to(self.alphas_cumprod.device, self.vae.dtype)).latent_dist
        return posterior.mean.float(), posterior.logvar.float()

    def _noisy(self, view: Views, clean: Tensor, sampling: Sampling, members: Sequence[int]) -> Tensor:
        alpha = self.alphas_cumprod[sampling.timestep]
        still = _one(view, (clean, clean))
        noises = torch.stack([image_noise(still, sampling, 0, "noise", one) for one in members])
        return (alpha.sqrt() * clean + (1 - alpha).sqrt() * noises.to(clean)).to(self.unet.dtype)


def _one(view: Views, moments: tuple[Tensor, Tensor]) -> Encoded:
    return Encoded({"mean": moments[0][:1], "log_variance": moments[1][:1]}, view.frames, view.keys)


def correlate(source: Tensor, target: Tensor, queries: Tensor) -> Tensor:
    """(C, h, w) maps and (N, 2) cells -> (N, h, w): samples by grid, normalizes queries and the whole target map."""
    height, width = source.shape[-2:]
    grid = queries / queries.new_tensor([width - 1, height - 1]) * 2 - 1
    sampled = F.grid_sample(source[None], grid[None, None], align_corners=True)[0, :, 0].T
    return torch.einsum("nc,chw->nhw", F.normalize(sampled, dim=-1), F.normalize(target, dim=0))


def loss(correlation: Tensor, truth: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of a pair's (N, h, w) with its smoothed target, read from a probability map by grid."""
    height, width = correlation.shape[-2:]
    probability = (correlation / temperature).flatten(1).softmax(-1).view_as(correlation)
    steps = torch.arange(-3.0, 4.0, device=correlation.device)
    offsets = torch.cartesian_prod(steps, steps)
    weights = torch.exp(-offsets.square().sum(-1) / (2 * 1.5**2)) / (2 * torch.pi * 1.5**2)
    places = truth[:, None] + offsets
    edge = places.new_tensor([width - 1, height - 1])
    inside = ((places > 0) & (places < edge)).all(-1)
    sampled = F.grid_sample(
        probability[:, None], (places / edge * 2 - 1)[:, None], align_corners=True, padding_mode="border"
    )[:, 0, 0]
    return -(torch.where(inside, sampled.log(), 0.0) * weights).sum() / len(truth)


class PairEvaluator:
    """Goes pair by pair and matcher by matcher: each correlates anew, and sorts all scores where it wants the best."""

    def __init__(
        self, maps: dict[str, Tensor], *, side: int, alphas: Sequence[float], temperature: float = 0.04
    ) -> None:
        self.maps = maps
        self.side = side
        self.alphas = alphas
        self.temperature = temperature
        self.matchers = {
            "nearest": self.nearest, "soft": self.soft, "kernel": self.kernel, "bilinear": self.bilinear,
        }  # fmt: skip

    def evaluate(self, dataset: PairDataset) -> dict[str, Tensor]:
        """(pairs, alphas), the number of correct points, by matcher."""
        counts: dict[str, list[Tensor]] = {name: [] for name in self.matchers}
        for record in dataset:
            for name, found in self._count(record).items():
                counts[name].append(found)
        return {name: torch.stack(found) for name, found in counts.items()}

    def _count(self, record: PairRecord) -> dict[str, Tensor]:
        source, target = self.maps[record.source_id], self.maps[record.target_id]
        cells = source.shape[-1] - 1
        queries = self._scaled(record.source_points, record.source_size) / (self.side - 1) * cells
        truth = self._scaled(record.target_points, record.target_size).clamp(0, self.side - 1)
        left, top, right, bottom = record.target_box or (0, 0, 0, 0)
        height, width = record.target_size
        length = max((right - left) * self.side / width, (bottom - top) * self.side / height)
        visible = torch.from_numpy(record.visible)
        counted = {}
        for name, matcher in self.matchers.items():
            points = matcher(source, target, queries) / cells * (self.side - 1)
            distance = (points - truth).norm(dim=-1)
            counted[name] = torch.stack([((distance <= alpha * length) & visible).sum() for alpha in self.alphas])
        return counted

    def _scaled(self, points, size) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.from_numpy(points).float() * torch.tensor([self.side / size[1], self.side / size[0]])

    def nearest(self, source: Tensor, target: Tensor, queries: Tensor) -> Tensor:
        """Return the best of all scores, by sorting them."""
        return self._best(correlate(source, target, queries))

    def soft(self, source: Tensor, target: Tensor, queries: Tensor) -> Tensor:
        """Return the mean location."""
        return self._mean_place(correlate(source, target, queries))

    def kernel(self, source: Tensor, target: Tensor, queries: Tensor) -> Tensor:
        """Return the mean location under a Gaussian around the best."""
        scores = correlate(source, target, queries)
        away = self._grid(scores)[:, None] - self._best(scores).T[..., None, None]
        return self._mean_place(scores * torch.exp(-away.square().sum(0) / (2 * 7.0**2)))

    def bilinear(self, source: Tensor, target: Tensor, queries: Tensor) -> Tensor:
        """Return the best of each of the four cells around a query, blended as a query is."""
        low = queries.floor()
        high = (low + 1).clamp(max=source.shape[-1] - 1)
        share = queries - low
        corners = torch.stack(
            [low, torch.stack([high[:, 0], low[:, 1]], -1), torch.stack([low[:, 0], high[:, 1]], -1), high], 1
        )
        x, y = share.unbind(-1)
        weights = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], 1)
        best = self._best(correlate(source, target, corners.flatten(0, 1))).unflatten(0, (-1, 4))
        return (best * weights[..., None]).sum(1)

    @staticmethod
    def _grid(scores: Tensor) -> Tensor:
        y, x = torch.meshgrid(*(torch.arange(float(n)) for n in scores.shape[-2:]), indexing="ij")
        return torch.stack([x, y])

    def _best(self, scores: Tensor) -> Tensor:
        first = scores.flatten(1).sort(dim=-1, descending=True, stable=True).indices[:, 0]
        width = scores.shape[-1]
        return torch.stack([first % width, first // width], dim=-1).float()

    def _mean_place(self, scores: Tensor) -> Tensor:
        probability = (scores / self.temperature).flatten(1).softmax(-1).view_as(scores)
        return (self._grid(scores)[:, None] * probability).sum((-2, -1)).T
