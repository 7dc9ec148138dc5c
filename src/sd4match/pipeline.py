"""Match two photos: the composition of a backbone, a prompt and a matcher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from sd4match.arguments import check_arguments, check_value
from sd4match.checks import (
    LARGEST_POSITIVE,
    SMALLEST_POSITIVE,
    check_count,
    check_flag,
    check_number,
    check_text,
)
from sd4match.config.experiment import Components, ExperimentConfig, build_components
from sd4match.config.presets import load_preset
from sd4match.config.protocols import EvaluationProtocol
from sd4match.data.collate import make_images
from sd4match.errors import ConfigError, InputError, PhotoError, shown
from sd4match.geometry import grid_points
from sd4match.interfaces import Backbone, Prompt
from sd4match.io.cache import Cache
from sd4match.matching import functional
from sd4match.matching.checked import check_correlation, checked_matches, checked_pair
from sd4match.matching.correlation import correlate_maps
from sd4match.prompting.pairing import extract_maps, pair_maps, preprocessors, prompt_embeddings
from sd4match.structures.images import Photo
from sd4match.structures.results import Candidates, DenseMatch, MatchResult
from sd4match.structures.tensors import Correlation, FeatureMap, MatchFunction, PairFunction, Sampling

PhotoLike = Photo | str | Path | Image.Image | npt.NDArray[np.uint8]
Points = Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]]

_QUERIES_AT_ONCE = 4096
_LARGEST_GRID = 1000
_LARGEST_POINTS = 1_000_000
RETURN_CELLS = 1.5
"""Largest distance in cells, in x and in y, between a point and its match matched back, for mutual matches."""


def build_for_matching(
    config: ExperimentConfig,
    *,
    prompt: str | Path | None = None,
    prompt_changes: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    cache: Cache | None = None,
) -> Components:
    """Build components as `build_components` does, but refuse a learned prompt without its file.

    Raises:
        ConfigError: the prompt must be learned first, and no file is given.
    """
    components = build_components(config, prompt_file=prompt, prompt_changes=prompt_changes, device=device, cache=cache)
    if prompt is None and components.prompt.parameter_groups():
        raise ConfigError(
            f"prompt.kind = {config.prompt.kind!r} is learned: give the file of a prompt from `sd4match train`"
        )
    return components


class SemanticMatcher:
    """Matcher of two photos, composed of a backbone, a prompt and a matcher.

    Args:
        backbone: from photos to feature maps.
        prompt: from photos to prompt embeddings.
        matcher: from correlations to matches; a `Matcher` or any function.
        sampling: timestep, ensemble and noise; t = 50 if not given.
        pair_transform: transform of the two maps of a pair, before matching.
        protocol: how cells lie on photos and source points are read, so that matches are those that the benchmark of
            that name would count; as the backbone says, if not given.

    Components may be assigned later too, for example `matcher.prompt = load_prompt(...)`.

    Raises:
        InputError: a component is of another type, also when it is assigned; the message names it.

    >>> matcher = SemanticMatcher.from_preset("mini-empty")
    >>> photo = np.zeros((60, 90, 3), dtype=np.uint8); photo[20:40, 30:50] = 255
    >>> result = matcher.match(photo, photo, points=[(40.0, 30.0)])
    >>> result.target_points.shape, result.scores.shape
    ((1, 2), (1,))
    """

    backbone: Backbone
    prompt: Prompt
    matcher: MatchFunction
    sampling: Sampling
    pair_transform: PairFunction | None
    protocol: EvaluationProtocol | None

    @check_arguments
    def __init__(
        self,
        *,
        backbone: Backbone,
        prompt: Prompt,
        matcher: MatchFunction,
        sampling: Sampling | None = None,
        pair_transform: PairFunction | None = None,
        protocol: EvaluationProtocol | None = None,
    ) -> None:
        self.backbone = backbone
        self.prompt = prompt
        self.matcher = matcher
        self.sampling = sampling or Sampling(timestep=50)
        self.pair_transform = pair_transform
        self.protocol = protocol

    def __setattr__(self, name: str, value: object) -> None:
        """Set a component, if it is one."""
        check_value(type(self), name, value)
        super().__setattr__(name, value)

    @classmethod
    @check_arguments
    def from_preset(
        cls,
        name: str = "text",
        *,
        prompt: str | Path | None = None,
        overrides: Iterable[str] = (),
        device: str | torch.device = "cpu",
    ) -> SemanticMatcher:
        """Build the experiment of a preset.

        Args:
            name: one of `preset_names()`.
            prompt: a learned prompt's file; a preset that learns its prompt needs one.
            overrides: `a.b=c` changes, for example `backbone.weights=FOLDER`.
            device: "cpu", "cuda", "cuda:N", "mps", or "auto" for a GPU if there is one.
        """
        return cls.from_config(load_preset(name, overrides), prompt=prompt, device=device)

    @classmethod
    @check_arguments
    def from_config(
        cls, config: ExperimentConfig, *, prompt: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> SemanticMatcher:
        """Build the experiment of a config; `prompt` as in `from_preset`.

        Raises:
            ConfigError: the prompt must be learned first, and no file is given; or the device does not exist.
            InputError: it is no config.
        """
        return cls.from_components(build_for_matching(config, prompt=prompt, device=device), config)

    @classmethod
    @check_arguments
    def from_components(cls, components: Components, config: ExperimentConfig) -> SemanticMatcher:
        """Compose built components, with the sampling and the protocol of the config's evaluation."""
        sampling = config.evaluation.sampling.sampling(config.evaluation.seed)
        return cls(
            backbone=components.backbone, prompt=components.prompt, matcher=components.matcher, sampling=sampling,
            pair_transform=components.pair_transform, protocol=config.evaluation.protocol,
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
        """Find points of one photo in another.

        Args:
            source: a path, a pillow image, an (H, W, 3) uint8 array or a `Photo`.
            target: likewise, of any size.
            points: (N, 2), (x, y) in pixels of the source; a regular grid, if not given.
            category: what is in both photos; text prompts need it.
            mutual: keep only points whose match, matched back, comes within `RETURN_CELLS` cells of them.
            grid: points a side of the regular grid, at most 1000.

        Returns:
            N matches; fewer with `mutual`.

        Raises:
            PhotoError: a photo cannot be read.
            InputError: a point outside the source, or a text prompt without a category.
            NonFiniteError: features are NaN or infinite; the message says what helps.
            ComponentError: a component of another author fails, or returns what its interface does not allow.
        """
        check_flag("mutual", mutual)
        side = check_count("grid", grid, 1, _LARGEST_GRID)
        photos = [as_photo(source), as_photo(target)]
        wanted = grid_points(photos[0].size, side=side) if points is None else check_points(points, photos[0])
        maps = self._maps(photos, category)
        queries = wanted[None].to(maps[0].values)
        found, scores = self._match_all(maps[0], maps[1], queries)
        kept = self._comes_back(maps, queries, found) if mutual else torch.ones(len(wanted), dtype=torch.bool)
        return MatchResult(
            source=photos[0],
            target=photos[1],
            source_points=wanted[kept].double().numpy(),
            target_points=_inside(found[0].cpu(), photos[1])[kept].double().numpy(),
            scores=scores[0].cpu()[kept].double().numpy(),
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
        """Find several candidates for each point: peaks of the correlation, at the resolution of cells.

        Args:
            source: as in `match`.
            target: as in `match`.
            points: (N, 2), (x, y) in pixels of the source.
            count: K, candidates per point.
            category: as in `match`.
            temperature: temperature of the scores.

        Raises:
            InputError: as `match`, or the map has fewer cells than candidates.
        """
        check_count("count", count)
        temperature = check_number("temperature (positive)", temperature, SMALLEST_POSITIVE, LARGEST_POSITIVE)
        photos = [as_photo(source), as_photo(target)]
        wanted = check_points(points, photos[0])
        maps = self._maps(photos, category)
        correlation = self._correlate(maps[0], maps[1], wanted[None].to(maps[0].values))
        check_correlation(correlation)
        height, width = maps[1].size
        cells, values = functional.best_cells(correlation.values, count=min(count, height * width))
        if count > height * width or not values.isfinite().all():
            raise InputError(f"{count} candidates do not fit into a map of {height} x {width} cells")
        scores = torch.stack(
            [
                functional.probability_mass(correlation.values, rank, temperature=temperature)
                for rank in cells.unbind(dim=2)
            ],
            dim=2,
        )
        found = correlation.target.grid.to_pixels(cells.flatten(1, 2))[0].cpu()
        candidates = _inside(found, photos[1]).unflatten(0, (len(wanted), count))
        return Candidates(wanted.double().numpy(), candidates.double().numpy(), scores[0].double().cpu().numpy())

    @torch.no_grad()
    def match_dense(
        self, source: PhotoLike, target: PhotoLike, *, category: str | None = None, cycle: bool = True
    ) -> DenseMatch:
        """Match every cell of the source's feature map.

        Args:
            source: as in `match`.
            target: as in `match`.
            category: as in `match`.
            cycle: match every cell of the target's map in the source, too: the cycle mask, and what is carried from
                the source to the target, follow from these matches. Nothing is extracted again.

        Returns:
            (h, w) matches; 48 x 48 for Stable Diffusion 2.1's up-block 1 at 768.
        """
        check_flag("cycle", cycle)
        photos = [as_photo(source), as_photo(target)]
        maps = self._maps(photos, category)
        backward = self._match_cells(photos[::-1], maps[::-1]) if cycle else None
        return replace(self._match_cells(photos, maps), backward=backward)

    def _match_cells(self, photos: Sequence[Photo], maps: Sequence[FeatureMap]) -> DenseMatch:
        """Match every cell of the first map in the second one."""
        source, target = maps
        grid = (self.protocol.aligned(source) if self.protocol else source).grid
        height, width = grid.size
        across, down = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
        queries = grid.to_pixels(torch.stack([across, down], dim=-1).flatten(0, 1)[None].to(source.values.device))
        found, scores = self._match_all(source, target, queries)
        points = _inside(found[0].cpu(), photos[1]).double().unflatten(0, grid.size)
        return DenseMatch(
            photos[0], photos[1], grid, points.numpy(), scores[0].cpu().double().unflatten(0, grid.size).numpy()
        )

    @torch.no_grad()
    def feature_map(self, photo: PhotoLike, *, category: str | None = None) -> FeatureMap:
        """Extract the features of one photo, (1, C, h, w), with the grid on which its cells lie.

        Raises:
            InputError: the prompt depends on pairs.
        """
        if self.prompt.scope == "pair":
            raise InputError("this prompt depends on both photos of a pair: a single photo has no features under it")
        _check_category(category)
        images = make_images([as_photo(photo)], [category], preprocessors(self.backbone, self.prompt))
        return extract_maps(self.backbone, images, prompt_embeddings(self.prompt, images), self.sampling)

    def _match_all(
        self, source: FeatureMap, target: FeatureMap, queries: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return points (1, N, 2) and scores (1, N) of all queries, so many at once as memory allows."""
        found = [
            checked_matches(self.matcher, self._correlate(source, target, some))
            for some in queries.split(_QUERIES_AT_ONCE, dim=1)
        ]
        points = torch.cat([matches.points for matches in found], dim=1)
        return points, torch.cat([matches.scores for matches in found], dim=1)

    def _correlate(self, source: FeatureMap, target: FeatureMap, queries: torch.Tensor) -> Correlation:
        if self.protocol is None:
            return correlate_maps(source, target, queries)
        return self.protocol.correlate(source, target, queries)

    def _maps(self, photos: Sequence[Photo], category: str | None) -> list[FeatureMap]:
        """Return the maps of source and target."""
        _check_category(category)
        views = preprocessors(self.backbone, self.prompt)
        source_image, target_image = (make_images([photo], [category], views) for photo in photos)
        source, target = pair_maps(self.backbone, self.prompt, source_image, target_image, self.sampling)
        return list(checked_pair(self.pair_transform, source, target)) if self.pair_transform else [source, target]

    def _comes_back(self, maps: list[FeatureMap], queries: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        back, _ = self._match_all(maps[1], maps[0], found)
        away = maps[0].grid.to_cells(back) - maps[0].grid.to_cells(queries)
        return (away.abs() <= RETURN_CELLS).all(dim=-1)[0].cpu()


def _check_category(category: object) -> None:
    if category is not None:
        check_text("category", category)


def _inside(points: torch.Tensor, photo: Photo) -> torch.Tensor:
    """Clamp points into the photo: the outermost cells of an enlarged one reach half a pixel over its border."""
    height, width = photo.size
    return torch.stack([points[:, 0].clamp(0, width - 1), points[:, 1].clamp(0, height - 1)], dim=-1)


def as_photo(photo: PhotoLike) -> Photo:
    """Return a `Photo` from a path, a pillow image, an array or a `Photo`.

    Raises:
        PhotoError: it is none of these, or cannot be read.
    """
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, Image.Image):
        return Photo.from_image(photo)
    if isinstance(photo, np.ndarray):
        return Photo(photo)
    if isinstance(photo, (str, Path)):
        return Photo.open(photo)
    raise PhotoError(
        f"a photo is a path, a pillow image, an (H, W, 3) uint8 array or a Photo, not {type(photo).__name__}: "
        f"{shown(photo)}"
    )


def _holds_flags(points: object) -> bool:
    """Return whether a list of points holds a boolean, which NumPy takes for 0 or 1."""
    if isinstance(points, (list, tuple)):
        return any(_holds_flags(row) for row in points)
    return isinstance(points, (bool, np.bool_))


def check_points(points: Points, photo: Photo) -> torch.Tensor:
    """Return points as (N, 2) in float32, each inside the photo.

    Raises:
        InputError: another shape, no point, more than a million, or a point outside the photo; the message names it.
    """
    if isinstance(points, np.ma.MaskedArray):
        raise InputError("points must be an array without a mask: leave out the points that are masked")
    try:
        array = np.asarray(points)
    except Exception:  # of NumPy, or of a foreign `__array__`
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf" or _holds_flags(points):
        raise InputError(f"points must be (x, y) pairs of numbers, not {shown(points)}")
    if array.ndim != 2 or array.shape[1] != 2 or len(array) == 0:
        raise InputError(f"points must be (N, 2), at least one, not {array.shape}")
    if len(array) > _LARGEST_POINTS:
        raise InputError(f"at most {_LARGEST_POINTS:,} points are matched at once, not {len(array):,}")
    array = array.astype(np.float64)
    height, width = photo.size
    outside = ~((array >= 0) & (array <= [width - 1, height - 1])).all(axis=1)
    if outside.any():
        x, y = array[outside][0]
        raise InputError(
            f"point {x:g},{y:g} is outside {photo.name}, which is {width} x {height} pixels "
            f"(x from 0 to {width - 1}, y from 0 to {height - 1})"
        )
    return torch.from_numpy(array).float()
