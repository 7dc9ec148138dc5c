"""The rows that a model is needed for: ours and the loop, checked to give the same result, then timed in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from benchmarks.loops import Peer, correlate, loss
from benchmarks.models import write_stable_diffusion_2
from benchmarks.operations import LAYER, Operations, count
from benchmarks.table import Row, duration, speed_row
from benchmarks.timing import in_turns, ratio
from sd4match.backbones.cached import cached
from sd4match.backbones.config import StableDiffusionConfig
from sd4match.backbones.noise import noisy_latents
from sd4match.backbones.stable_diffusion import StableDiffusionBackbone
from sd4match.config.sections import TrainingConfig
from sd4match.data.collate import make_pairs
from sd4match.geometry import Grid
from sd4match.interfaces import Backbone
from sd4match.matching.losses import GaussianCrossEntropyConfig
from sd4match.prompting.config import ConditionalPromptConfig
from sd4match.prompting.learned import SinglePrompt
from sd4match.prompting.pairing import pair_maps, preprocessors
from sd4match.prompting.text import EmptyPrompt
from sd4match.structures.images import ImageBatch, Views
from sd4match.structures.tensors import EvaluationNoise, Sampling, TrainingNoise
from sd4match.testing import FakePairs
from sd4match.training.accumulation import GradientAccumulator
from sd4match.training.batches import Batches, BatchSplit, MicroBatch

_PUBLISHED = 8
"""Passes that DIFT and SD4Match average."""
_SAME = 1e-4
"""How far results of another order of summation may be apart, of the largest value."""


@dataclass
class Bench:
    """A model, as we hold it and as the peers do."""

    ours: StableDiffusionBackbone
    peer: Peer
    operations: Operations
    members: int
    rounds: int
    reference: int
    """Passes whose mean few passes are compared with."""

    @classmethod
    def load(
        cls, folder: Path, *, quarter: bool, image_size: int, members: int, rounds: int, reference: int, dtype: str
    ) -> Bench:
        """Write a model with random weights to a folder, and load it twice."""
        write_stable_diffusion_2(folder, quarter=quarter)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        ours = StableDiffusionConfig(weights=str(folder), image_size=image_size, dtype=dtype).build(device=device)  # type: ignore[arg-type]
        kind = next(ours.unet.parameters()).dtype
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=kind).to(device)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=ours.vae.dtype).to(device)
        peer = Peer(unet.requires_grad_(False).eval(), vae.requires_grad_(False).eval(), ours.alphas_cumprod)
        return cls(ours, peer, count(quarter=quarter, image_size=image_size), members, rounds, reference)

    def rows(self) -> Iterator[Row]:
        """All of them, as they come."""
        yield self.training_step()
        yield from self.image_features()
        yield from self.fewer_passes()
        yield self.conditional_pair()
        yield self.extraction()

    def training_step(self) -> Row:
        """One pair, forward and backward, from photos on."""
        backbone = cached(self.ours)
        prompt = SinglePrompt(backbone=backbone)
        config = TrainingConfig(batch_size=1, both_directions=False)
        batches = Batches(FakePairs(points=20), preprocessors(backbone, prompt), seed=0, batch_size=1)
        criterion = GaussianCrossEntropyConfig().build()
        accumulator = GradientAccumulator(
            backbone=backbone, prompt=prompt, loss=criterion, config=config, batches=batches,
            split=BatchSplit(1, devices=1, per_device=1),
        )  # fmt: skip

        def forget() -> None:
            for parameter in prompt.parameters():
                parameter.grad = None

        def ours() -> tuple[float, Tensor]:
            total = accumulator.accumulate(1, 0, reset=forget)
            return total.loss, _gradient(prompt)

        def loop() -> tuple[float, Tensor]:
            forget()
            pair = batches.load(MicroBatch(1, range(1)))
            embedding = prompt(pair.source).values.to(self.peer.unet.dtype)
            maps = []
            for index, side in enumerate((pair.source, pair.target)):
                sampling = Sampling(config.sampling.timestep, 1, TrainingNoise(config.seed, 1, (index,)))
                maps.append(self.peer.features_like_sd4match(side.views["backbone"], embedding, sampling).float())
            cells = [
                Grid(side.views["backbone"].frames, found.shape[1:]).to_cells(points.points.to(found))[0]
                for side, points, found in (
                    (pair.source, pair.source_points, maps[0]), (pair.target, pair.target_points, maps[1]),
                )
            ]  # fmt: skip
            seen = pair.source_points.visible[0].to(maps[0].device)
            value = loss(correlate(maps[0], maps[1], cells[0][seen]), cells[1][seen], 0.04)
            value.backward()
            return value.item(), _gradient(prompt)

        (our_loss, our_gradient), (their_loss, their_gradient) = ours(), loop()
        apart = max(abs(our_loss - their_loss) / their_loss, difference(our_gradient, their_gradient))
        return self._compared(
            "training step of a pair, latents cached", ours, loop, self.operations.training_limit, apart,
            "Encodes both photos at every step and runs the whole UNet, one photo after the other; the backward pass "
            "begins at the layer, as ours does.",
        )  # fmt: skip

    def image_features(self) -> Iterator[Row]:
        """Return rows of a photo's features, with latents not cached and cached."""
        sampling = Sampling(261, self.members, posterior="member")
        prompt = EmptyPrompt(backbone=self.ours)
        views, embedding = self._photo(), prompt(_no_images()).values

        def loop() -> Tensor:
            with torch.no_grad():
                context = embedding.to(self.peer.unet.dtype)
                return self.peer.features_like_dift(views, context, sampling, at_once=self.members)

        keeping = cached(self.ours)
        for name, backbone, kept in (("cold", self.ours, False), ("latents cached", keeping, True)):

            def ours(backbone=backbone) -> Tensor:  # type: ignore[no-untyped-def]
                with torch.no_grad():
                    return backbone.extract(backbone.encode(views), prompt(_no_images()), sampling).values[0]

            yield self._compared(
                f"features of a photo, ensemble {self.members}, {name}", ours, loop,
                self.operations.features_limit(self.members, ours=self.members, kept=kept), difference(ours(), loop()),
                f"DIFT's way: encodes the photo {self.members} times, in one batch, then runs the UNet to the layer.",
            )  # fmt: skip

    def fewer_passes(self) -> Iterator[Row]:
        """Return rows of features as near to the mean over noises as eight independent passes come."""
        prompt = EmptyPrompt(backbone=self.ours)
        views, embedding = self._photo(), prompt(_no_images()).values
        keeping = cached(self.ours)
        for timestep, size, least in ((50, 2, (5.0, 11.0)), (261, 4, (3.8, 6.0))):
            published = Sampling(timestep, _PUBLISHED, posterior="member")
            chosen = replace(published, ensemble_size=size, ensemble="matched")

            def loop(sampling: Sampling = published) -> Tensor:
                with torch.no_grad():
                    context = embedding.to(self.peer.unet.dtype)
                    return self.peer.features_like_dift(views, context, sampling, at_once=self.members)

            def ours(backbone: Backbone = keeping, sampling: Sampling = chosen) -> Tensor:
                with torch.no_grad():
                    return backbone.extract(backbone.encode(views), prompt(_no_images()), sampling).values[0]

            error, allowed = self._errors(ours, chosen, published)
            contenders = {"cold": partial(ours, self.ours), "latents cached": ours, "loop": loop}
            times = in_turns(contenders, rounds=self.rounds)
            seconds = {name: statistics.median(found) for name, found in times.items()}
            for name, must in zip(("cold", "latents cached"), least, strict=True):
                row = speed_row(
                    f"features as near to the mean as eight, t {timestep}, {name}",
                    ours=seconds[name], loop=seconds["loop"], ratio=ratio(times["loop"], times[name]),
                    limit=self.operations.features_limit(_PUBLISHED, ours=size, kept=name != "cold"), must=must,
                    note=f"DIFT's way with 8 independent noises, {size} matched ones here. Relative error against the "
                    f"mean of {self.reference} independent passes, over three seeds: ours {error:.4f}, the loop's "
                    f"{allowed:.4f}.",
                )  # fmt: skip
                yield replace(row, reached=row.reached and error <= allowed)

    def _errors(self, features: Callable[..., Tensor], *samplings: Sampling) -> list[float]:
        """Return how far features of a photo are from the mean of many passes, relative, over three seeds."""
        published = samplings[-1]
        parts = [
            features(sampling=replace(published, noise=EvaluationNoise(1000 + part)))
            for part in range(max(1, self.reference // published.ensemble_size))
        ]
        mean = torch.stack(parts).mean(dim=0)

        def error(sampling: Sampling) -> float:
            found = [features(sampling=replace(sampling, noise=EvaluationNoise(seed))) - mean for seed in range(3)]
            return (torch.stack(found).square().mean() / mean.square().mean()).sqrt().item()

        return [error(sampling) for sampling in samplings]

    def conditional_pair(self) -> Row:
        """Both maps of a pair under a prompt that both photos decide."""
        backbone = cached(self.ours)
        prompt = ConditionalPromptConfig(image_encoder={"kind": "backbone"}).build(backbone=backbone)
        sampling = Sampling(50, self.members)
        data = FakePairs()
        pair = make_pairs([data[0]], data, preprocessors(backbone, prompt))

        def ours() -> Tensor:
            with torch.no_grad():
                maps = pair_maps(backbone, prompt, pair.source, pair.target, sampling)
                return torch.cat([one.values for one in maps])

        def loop() -> Tensor:
            with torch.no_grad():
                embedding = prompt(pair.source, pair.target).values.to(self.peer.unet.dtype)
                sides = [side.views["backbone"] for side in (pair.source, pair.target)]
                return torch.stack([self.peer.features_like_sd4match(one, embedding, sampling) for one in sides])

        return self._compared(
            f"CPM's maps of a pair, ensemble {self.members}, latents cached", ours, loop,
            self.operations.pair_limit(self.members), difference(ours(), loop()),
            "Encodes both photos once and runs the whole UNet on the ensemble of each. What the prompt looks at is "
            "kept on both sides.",
        )  # fmt: skip

    def extraction(self) -> Row:
        """Ours against the bare call of a UNet that ends at the layer."""
        prompt = EmptyPrompt(backbone=self.ours)
        with torch.no_grad():
            encoded = self.ours.encode(self._photo())
            context = prompt(_no_images()).values.to(self.ours.unet.dtype)
            sampling = Sampling(261, 1)
            bare = self.peer.unet
            later, out = bare.up_blocks, (bare.conv_norm_out, bare.conv_act, bare.conv_out)
            noisy = noisy_latents(
                encoded,
                sampling,
                (0,),
                scale=self.ours.vae.config.scaling_factor,
                alpha_cumprod=self.ours.alphas_cumprod[261],
            ).to(bare.dtype)
            bare.up_blocks, bare.conv_norm_out, bare.conv_out = later[: LAYER.block + 1], None, nn.Identity()

            def ours() -> Tensor:
                return self.ours.extract(encoded, prompt(_no_images()), sampling).values

            def call() -> Tensor:
                found: Tensor = bare(noisy, torch.tensor(261), context).sample
                return found

            apart = difference(ours(), call())
            times = in_turns({"ours": ours, "call": call}, rounds=2 * self.rounds + 1)
            bare.up_blocks = later
            bare.conv_norm_out, bare.conv_act, bare.conv_out = out
        share = ratio(times["ours"], times["call"])
        return Row(
            "extraction against the bare call of the pruned UNet", *(_typical(found) for found in times.values()),
            share, 1.0, "<= 1.05", share <= 1.05,
            "diffusers' own forward pass of a UNet that ends at the layer, on noisy latents that are there already. "
            f"{_apart(apart)}",
        )  # fmt: skip

    def _photo(self) -> Views:
        return Views.of([self.ours.prepare(FakePairs().photo("0"))])

    def _compared(
        self, what: str, ours: Callable[[], object], loop: Callable[[], object], limit: float, apart: float, note: str
    ) -> Row:
        check_same(what, apart, self.ours.unet.dtype)
        times = in_turns({"ours": ours, "loop": loop}, rounds=self.rounds)
        seconds = {name: statistics.median(found) for name, found in times.items()}
        return speed_row(
            what, ours=seconds["ours"], loop=seconds["loop"], ratio=ratio(times["loop"], times["ours"]), limit=limit,
            note=f"{note} {_apart(apart)}",
        )  # fmt: skip


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, as a fraction of the largest value."""
    return ((one.float() - other.float()).abs().max() / other.float().abs().max()).item()


def check_same(what: str, apart: float, dtype: torch.dtype = torch.float32) -> None:
    """Refuse to compare speeds where results differ.

    Raises:
        AssertionError: they do.
    """
    allowed = _SAME if dtype == torch.float32 else 0.1
    if not apart <= allowed:
        raise AssertionError(f"{what}: ours and the loop differ by {apart:.1e} of the largest value")


def _apart(apart: float) -> str:
    return f"Results differ by {apart:.0e} of the largest value."


def _typical(seconds: list[float]) -> str:
    return duration(statistics.median(seconds))


def _gradient(prompt: SinglePrompt) -> Tensor:
    (vectors,) = prompt.parameters()
    assert vectors.grad is not None
    return vectors.grad.clone()


def _no_images():  # type: ignore[no-untyped-def]

    return ImageBatch({}, (None,))
