"""Two photos in, matches out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sd4match.config.experiment import Components, ExperimentConfig, build, load_preset
from sd4match.config.protocols import Measurement
from sd4match.data.collate import make_images
from sd4match.errors import ConfigError, InputError
from sd4match.geometry import grid_points
from sd4match.interfaces import Backbone, Matcher, PairTransform, PromptProvider
from sd4match.io.cache import Cache
from sd4match.matching import functional
from sd4match.matching.correlation import cells_to_photo, correlate_maps, photo_to_cells
from sd4match.matching.functional.peaks import best_cells
from sd4match.prompting.pairing import pair_maps, wanted_views
from sd4match.structures.images import Photo
from sd4match.structures.results import Candidates, DenseMatch, MatchResult
from sd4match.structures.tensors import Correlation, FeatureMap, Sampling

PhotoLike = Photo | str | Path | Image.Image | npt.NDArray[np.uint8]
Points = Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]]

_QUERIES_AT_ONCE = 256
RETURN_CELLS = 1.5
"""A point comes back if its match's match lies within so many feature cells of it, in x and in y."""


def build_for_matching(
    config: ExperimentConfig,
    *,
    prompt: str | Path | None = None,
    prompt_settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    cache: Cache | None = None,
) -> Components:
    """As `config.build`, but a prompt that is learned must come from a file.

    Raises:
        ConfigError: the config's prompt is yet to be learned and no file is given.
    """
    parts = build(config, prompt_file=prompt, prompt_settings=prompt_settings, device=device, cache=cache)
    if prompt is None and parts.prompt.parameter_groups():
        raise ConfigError(
            f"prompt.kind = {config.prompt.kind!r} is learned: give the file of a prompt from `sd4match train`"
        )
    return parts


class SemanticMatcher:
    """The journey from two photos to matches, composed of a backbone, a prompt and a matcher.

    >>> matcher = SemanticMatcher.from_preset("mini-empty")
    >>> photo = np.zeros((60, 90, 3), dtype=np.uint8); photo[20:40, 30:50] = 255
    >>> result = matcher.match(photo, photo, points=[(40.0, 30.0)])
    >>> result.target_points.shape, result.scores.shape
    ((1, 2), (1,))
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt: PromptProvider,
        matcher: Matcher,
        sampling: Sampling | None = None,
        pair_transform: PairTransform | None = None,
        measurement: Measurement | None = None,
    ) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.matcher = matcher
        self.sampling = sampling or Sampling(timestep=50)
        self.pair_transform = pair_transform
        self.measurement = measurement
        """How cells lie on photos and source points are read, so that matches are those that its benchmark would
        count; None: as the backbone says."""

    @classmethod
    def from_preset(
        cls,
        name: str = "text",
        *,
        prompt: str | Path | None = None,
        overrides: Iterable[str] = (),
        device: str = "cpu",
    ) -> SemanticMatcher:
        """Build what a preset describes.

        Args:
            name: one of `preset_names()`.
            prompt: a learned prompt's file; a preset that learns its prompt needs one.
            overrides: `a.b=c` changes, for example `backbone.weights=FOLDER`.
            device: for example "cpu" or "cuda".
        """
        return cls.from_config(load_preset(name, overrides), prompt=prompt, device=device)

    @classmethod
    def from_config(
        cls, config: ExperimentConfig, *, prompt: str | Path | None = None, device: str = "cpu"
    ) -> SemanticMatcher:
        """Build what a config describes; `prompt` as in `from_preset`.

        Raises:
            ConfigError: the config's prompt is yet to be learned and no file is given.
        """
        return cls.from_components(build_for_matching(config, prompt=prompt, device=device), config)

    @classmethod
    def from_components(cls, parts: Components, config: ExperimentConfig) -> SemanticMatcher:
        """Compose built parts, with the sampling of the config's evaluation."""
        sampling = config.evaluation.sampling.sampling(config.evaluation.seed)
        return cls(
            backbone=parts.backbone, prompt=parts.prompt, matcher=parts.matcher, sampling=sampling,
            pair_transform=parts.pair_transform, measurement=config.evaluation.measurement,
        )  # fmt: skip

    @torch.no_grad()
    def match(
        self,
        source: PhotoLike,
        target: PhotoLike,
        points: Points | None = None,
        *,
        category: str | None = None,
        mutual: bool = False,
        grid: int = 8,
    ) -> MatchResult:
        """Where points of one photo are in another.

        Args:
            source: a path, a pillow image, an (H, W, 3) uint8 array or a `Photo`.
            target: likewise, of any size.
            points: (N, 2), (x, y) in pixels of the source; a regular grid, if not given.
            category: what is in the photos; text prompts need it.
            mutual: keep only points whose match, matched back, comes within `RETURN_CELLS` cells of them.
            grid: points a side of the regular grid.

        Returns:
            N matches; fewer with `mutual`.

        Raises:
            PhotoError: a photo cannot be read.
            InputError: a point outside the source, or a text prompt without a category.
        """
        photos = [as_photo(source), as_photo(target)]
        wanted = grid_points(photos[0].size, side=grid) if points is None else check_points(points, photos[0])
        maps = self._maps(photos, category)
        queries = wanted[None].to(maps[0].values)
        matches = self.matcher(self._correlate(maps[0], maps[1], queries))
        kept = self._comes_back(maps, queries, matches.points) if mutual else torch.ones(len(wanted), dtype=torch.bool)
        return MatchResult(
            source=photos[0],
            target=photos[1],
            source_points=wanted[kept].double().numpy(),
            target_points=_inside(matches.points[0].cpu(), photos[1])[kept].double().numpy(),
            scores=matches.scores[0].cpu()[kept].double().numpy(),
        )

    @torch.no_grad()
    def match_candidates(
        self,
        source: PhotoLike,
        target: PhotoLike,
        points: Points,
        *,
        count: int = 5,
        category: str | None = None,
        temperature: float = 0.04,
    ) -> Candidates:
        """Several best places for each point: peaks of the correlation, at the resolution of cells.

        Args:
            source: as in `match`.
            target: as in `match`.
            points: (N, 2), (x, y) in pixels of the source.
            count: places a point, K.
            category: as in `match`.
            temperature: of the scores.

        Raises:
            InputError: as `match`, or fewer cells than places.
        """
        photos = [as_photo(source), as_photo(target)]
        wanted = check_points(points, photos[0])
        maps = self._maps(photos, category)
        correlation = self._correlate(maps[0], maps[1], wanted[None].to(maps[0].values))
        cells, values = best_cells(correlation.values, count=count)
        if not values.isfinite().all():
            height, width = maps[1].map_size
            raise InputError(f"{count} places do not fit into a map of {height} x {width} cells")
        scores = torch.stack(
            [
                functional.probability_mass(correlation.values, one, temperature=temperature)
                for one in cells.unbind(dim=2)
            ],
            dim=2,
        )
        found = cells_to_photo(cells.flatten(1, 2), correlation.target)[0].cpu()
        places = _inside(found, photos[1]).unflatten(0, (len(wanted), count))
        return Candidates(wanted.double().numpy(), places.double().numpy(), scores[0].double().cpu().numpy())

    @torch.no_grad()
    def match_dense(self, source: PhotoLike, target: PhotoLike, *, category: str | None = None) -> DenseMatch:
        """Where every cell of the source's feature map is in the target.

        Args:
            source: as in `match`.
            target: as in `match`.
            category: as in `match`.

        Returns:
            (h, w) matches; 48 x 48 for Stable Diffusion 2.1's up-block 1 at 768.
        """
        photos = [as_photo(source), as_photo(target)]
        maps = self._maps(photos, category)
        height, width = maps[0].map_size
        across, down = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
        cells = torch.stack([across, down], dim=-1).flatten(0, 1)[None].to(maps[0].values)
        queries = cells_to_photo(cells, self.measurement.placed(maps[0]) if self.measurement else maps[0])
        parts = queries.split(_QUERIES_AT_ONCE, dim=1)
        found = [self.matcher(self._correlate(maps[0], maps[1], part)) for part in parts]
        points = torch.cat([one.points[0] for one in found]).cpu()
        scores = torch.cat([one.scores[0] for one in found]).cpu()
        places = queries[0].cpu()
        edge = torch.tensor([photos[0].size[1] - 0.5, photos[0].size[0] - 0.5])
        inside = ((places >= -0.5) & (places <= edge)).all(dim=-1)
        shape = (height, width)
        start, end, score = (
            part.unflatten(0, shape).double().numpy() for part in (places, _inside(points, photos[1]), scores)
        )
        return DenseMatch(start, end, score, inside.unflatten(0, shape).numpy())

    @torch.no_grad()
    def feature_map(self, photo: PhotoLike, *, category: str | None = None) -> FeatureMap:
        """The features of one photo, (1, C, h, w), with the frame in which its cells lie.

        Raises:
            InputError: the prompt depends on pairs.
        """
        if self.prompt.scope == "pair":
            raise InputError("this prompt depends on both photos of a pair: a single photo has no features under it")
        images = make_images([as_photo(photo)], [category], wanted_views(self.backbone, self.prompt))
        latents = self.backbone.encode(images.views["backbone"])
        return self.backbone.extract(latents, self.prompt(images), self.sampling)

    def _correlate(self, source: FeatureMap, target: FeatureMap, queries: torch.Tensor) -> Correlation:
        if self.measurement is None:
            return correlate_maps(source, target, queries)
        return self.measurement.correlate(source, target, queries)

    def _maps(self, photos: Sequence[Photo], category: str | None) -> list[FeatureMap]:
        """Of source and target."""
        views = wanted_views(self.backbone, self.prompt)
        source_image, target_image = (make_images([photo], [category], views) for photo in photos)
        source, target = pair_maps(self.backbone, self.prompt, source_image, target_image, self.sampling)
        return list(self.pair_transform(source, target)) if self.pair_transform else [source, target]

    def _comes_back(self, maps: list[FeatureMap], queries: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        back = self.matcher(self._correlate(maps[1], maps[0], found)).points
        away = photo_to_cells(back, maps[0]) - photo_to_cells(queries, maps[0])
        return (away.abs() <= RETURN_CELLS).all(dim=-1)[0].cpu()


def _inside(points: torch.Tensor, photo: Photo) -> torch.Tensor:
    """The outermost cells reach half a pixel over the border of a photo that was enlarged."""
    height, width = photo.size
    return torch.stack([points[:, 0].clamp(0, width - 1), points[:, 1].clamp(0, height - 1)], dim=-1)


def as_photo(photo: PhotoLike) -> Photo:
    """Whatever a user has, as a `Photo`."""
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, Image.Image):
        return Photo.from_image(photo)
    if isinstance(photo, np.ndarray):
        return Photo(photo)
    return Photo.open(photo)


def check_points(points: Points, photo: Photo) -> torch.Tensor:
    """(N, 2) in float32, each inside the photo.

    Raises:
        InputError: another shape, nothing, or a point outside; the message names it.
    """
    try:
        array = np.asarray(points, dtype=np.float64)
    except (ValueError, TypeError):
        raise InputError(f"points must be (x, y) pairs of numbers, not {points!r}") from None
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise InputError(f"points must be (N, 2), at least one, not {array.shape}")
    height, width = photo.size
    outside = ~((array >= 0) & (array <= [width - 1, height - 1])).all(axis=1)
    if outside.any():
        x, y = array[outside][0]
        raise InputError(
            f"point {x:g},{y:g} is outside {photo.name}, which is {width} x {height} pixels "
            f"(x from 0 to {width - 1}, y from 0 to {height - 1})"
        )
    return torch.from_numpy(array).float()
